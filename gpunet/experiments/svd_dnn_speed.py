"""How much faster the factored nets are: epochs of all in turn, metrics off, the device waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gpunet.backend import Backend
from gpunet.experiments.result import Result
from gpunet.experiments.svd_dnn_tasks import Variant
from gpunet.progress import Progress
from gpunet.timing import Times, interleave
from gpunet.train import Trainer

if TYPE_CHECKING:
    from gpunet.experiments.svd_dnn import Problem

ROUNDS = 3  # a seed, after one to warm up
LEAST = 200  # steps that one timing takes at least: an epoch of XOR has four


def epoch_speeds(
    result: Result, problem: Problem, planned: Sequence[Variant], seeds: Sequence[int], backend: Backend, bar: Progress
) -> None:
    """Add the speeds to each row, a value a seed; the seconds stand under `timings`.

    `epoch_speed_up` is the dense net's time over the cut one's for an epoch, `relative_speed` the same for all epochs,
    those before the cut included. Dense means the dense net of the same hidden layers.
    """
    timed = {_state(variant): variant for variant in planned}
    bar.start(f"svd-dnn {problem.task.name} timing epochs", len(seeds))
    rounds: list[Times] = []
    for seed in seeds:
        bar.seed(seed)
        epochs = {name: _epochs(problem, variant, seed, backend) for name, variant in timed.items()}
        rounds.append(interleave(epochs, ROUNDS))
        bar.advance(1)
    for variant in planned:
        for times in rounds:
            dense = _state(Variant(hidden=variant.hidden))
            gain = 1 / times.ratio(_state(variant), dense)
            result.row(variant.name).add(
                epoch_speed_up=gain, relative_speed=1 / (variant.phi + (1 - variant.phi) / gain)
            )
    result.timings["timed_seconds"] = {name: [t.median(name) for t in rounds] for name in timed}


def _state(variant: Variant) -> str:
    """Variants that run the same epochs once cut have one name."""
    return Variant(0.0 if variant.alpha else 1.0, variant.alpha, variant.meaning, variant.hidden).name


def _epochs(problem: Problem, variant: Variant, seed: int, backend: Backend) -> Callable[[], None]:
    """Run as many whole epochs as make LEAST steps, in the form that the net has after the cut."""
    trainer: Trainer = problem.trainer(variant, seed, backend)
    trainer.prepare(problem.train.shape)
    rule = variant.rule
    for layer in list(trainer.model.layers[:-1]):
        if rule is not None:
            trainer.model.replace(layer.name, layer.factorise(rule))
    count = -(-LEAST // problem.train.batches(problem.batch)) if problem.batch == 1 else 1

    def run() -> None:
        trainer.fit(problem.train, epochs=count, batch_size=problem.batch)

    return run
