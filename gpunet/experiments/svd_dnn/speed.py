"""How much faster the factored nets are: epochs of all in turn, metrics off, the device waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpunet.backend import Backend
from gpunet.experiments.framework import Run
from gpunet.experiments.svd_dnn.tasks import Problem, Variant
from gpunet.timing import interleave

ROUNDS = 3  # a seed, after one to warm up
LEAST = 200  # steps that one timing takes at least: an epoch of XOR has four


def epoch_speeds(run: Run, problem: Problem, planned: Sequence[Variant]) -> None:
    """Add the speeds to each row, a value a seed, and the seconds that were timed.

    `epoch_speed_up` is the dense net's time over the cut one's for an epoch, `relative_speed` the same for all epochs,
    those before the cut included. Dense means the dense net of the same hidden layers.
    """
    timed = {_after_the_cut(variant): variant for variant in planned}
    run.bar.start(f"{run.experiment.name} {problem.task.name} timing epochs", len(run.seeds))
    for seed in run.seeds:
        run.bar.seed(seed)
        epochs = {name: _epochs(problem, variant, seed, run.backend) for name, variant in timed.items()}
        times = interleave(epochs, ROUNDS)
        for variant in planned:
            name, dense = _after_the_cut(variant), Variant(hidden=variant.hidden).name
            gain = 1 / times.ratio(name, dense)
            whole = 1 / (variant.phi + (1 - variant.phi) / gain)
            run.result.row(variant.name).add(epoch_speed_up=gain, relative_speed=whole)
            run.result.time(variant.name, timed=times.median(name))
        run.bar.advance(1)


def _after_the_cut(variant: Variant) -> str:
    """Variants that run the same epochs once cut have one name."""
    return Variant(0.0, variant.alpha, variant.meaning, variant.hidden).name


def _epochs(problem: Problem, variant: Variant, seed: int, backend: Backend) -> Callable[[], None]:
    """Run as many whole epochs as make LEAST steps, in the form that the net has after the cut."""
    trainer = problem.trainer(variant, seed, backend, cut=True)
    count = -(-LEAST // problem.train.batches(problem.batch)) if problem.batch == 1 else 1

    def run() -> None:
        trainer.fit(problem.train, epochs=count, batch_size=problem.batch)

    return run
