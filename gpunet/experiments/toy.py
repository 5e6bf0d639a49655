"""toy, document 003: a sigmoid net of any depth, squared error, backprop by hand, on points in the plane.

2-3-3-1 without biases, weights uniform in ±4·√(6/(in+out)), ½(y − t)², full batch, learning rate 0.8, until every
sample's loss is below 0.04; on `linear`, whose points are drawn anew for each seed, and on `xor-easy`. Rows are named
by data set and what differs from that: `linear`, `linear zeros`, `glorot`, `mean`, `unhalved`, `rate=0.1` …

Not clear in the document, our choice: the loss is ½(y − t)², because "the derivative of squared error is simply a
subtraction" (`unhalved` stops by (y − t)² instead); the gradient is summed over the samples (`mean` divides it by
their number); Figure 4's learning rates; and that a net is given up after `limit` steps: it counts as not converged,
and its `steps` are the limit.

The same seed gives the same bits on one machine. On a GPU every net is a block of threads (`gpunet.stacked_cuda`).
Training at this rate is chaotic, so that another processor's rounding moves single nets' steps; shares, medians and
quartiles over seeds stay (see `gpunet.stacked`).

Zero weights never converge: the units of a layer stay equal, so that without biases the last z has the same sign for
every sample, and the samples of one class cannot get beyond y = ½.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpunet.backend import Backend, get_backend
from gpunet.checks import check_range, is_whole
from gpunet.errors import InputError, shown
from gpunet.experiments.provenance import Stopwatch
from gpunet.experiments.result import Result
from gpunet.experiments.toy_claims import CLAIMS, verdicts
from gpunet.experiments.toy_nets import Nets, Problem, pose, variants
from gpunet.progress import Progress
from gpunet.stacked_book import Trained

__all__ = ["CLAIMS", "Settings", "run"]

COURSES, WEIGHTS, POINTS = 10, 100, 1000  # kept for figures; metrics and quartiles are over all seeds and samples


@dataclass(frozen=True)
class Settings:
    """Settings of a run; those that the document states come first. Of the learning rates the first is the main one."""

    hidden: tuple[int, ...] = (3, 3)
    learning_rates: tuple[float, ...] = (0.8, 0.1, 0.2, 0.4, 1.6, 3.2)
    threshold: float = 0.04
    limit: int = 10_000
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not all(map(is_whole, self.hidden)):
            raise InputError(f"hidden layers are {list(self.hidden)}: expected whole numbers of units ≥ 1, say 3,3")
        if not self.learning_rates:
            raise InputError("no learning rate is given: expected at least one, say 0.8")
        for rate in self.learning_rates:
            check_range("learning_rate", rate, above=0)
        check_range("threshold", self.threshold, above=0)
        if not is_whole(self.limit):
            raise InputError(f"limit is a whole number of steps ≥ 1, got {shown(self.limit)}")

    @property
    def as_in_the_document(self) -> bool:
        """Whether what the document states is as it states it."""
        stated = Settings()
        mine, theirs = ((s.hidden, s.learning_rates[0], s.threshold) for s in (self, stated))
        return mine == theirs


def run(
    data: Sequence[Any],
    settings: Settings,
    seeds: list[int],
    *,
    device: str | Backend = "auto",
    progress: Progress | None = None,
) -> Result:
    """The whole experiment on some data sets; rows, claims, curves and timings as `Result` describes."""
    watch, backend, bar = Stopwatch(), trains_on(device), progress or Progress()
    problems, planned = [pose(each, seeds) for each in data], variants(settings.learning_rates, settings.threshold)
    names = [problem.name for problem in problems]
    result = Result("toy", "+".join(names), backend.name, asdict(settings), list(seeds))
    result.settings |= {
        "datasets": names, "features": {problem.name: problem.features for problem in problems},
        "as_in_the_document": settings.as_in_the_document,
    }  # fmt: skip
    result.timings |= {"seconds": {}, "seconds_per_step_alone": {}}
    for problem in problems:
        nets = Nets(problem, settings.hidden, seeds, settings.limit, settings.dtype, backend)
        result.timings["seconds_per_step_alone"][problem.name] = nets.seconds_per_step_alone(planned[0])
        for index, variant in enumerate(planned):
            name = f"{problem.name} {variant.word}".strip()
            bar.start(f"toy {index + 1}/{len(planned)} {name}", settings.limit)
            trained, result.timings["seconds"][name] = nets.train(variant, bar)
            _enter(result, name, trained, nets)
            if not variant.word:
                for error in nets.gradient_errors(nets.start(variant)):
                    result.row(name).add(gradient_error=error)
                result.curves[name] |= _picture(problem, trained)
    result.claims = verdicts(result)
    result.provenance = watch.provenance(backend)
    return result


def trains_on(device: str | Backend) -> Backend:
    """The GPU, by `stacked_cuda`, or else plain NumPy, whatever CPU backend was asked for."""
    backend = get_backend(device)
    return backend if backend.name.startswith("cuda") else get_backend("numpy")


def _enter(result: Result, name: str, trained: Trained, nets: Nets) -> None:
    """A row and its curves."""
    held_out = nets.held_out_accuracy(trained)
    for net in range(len(result.seeds)):
        result.row(name).add(
            converged=trained.converged[net], steps=trained.steps[net], train_loss=trained.loss[net],
            largest_loss=trained.largest_loss[net], train_accuracy=trained.accuracy[net], test_accuracy=held_out[net],
        )  # fmt: skip
    result.curves[name] = {
        "steps": trained.marks,
        "loss": trained.course[:, :COURSES].T,
        "loss_quartiles": np.percentile(trained.course, (25, 50, 75), axis=1),
    }


def _picture(problem: Problem, trained: Trained) -> dict[str, Any]:
    """What the decision boundaries are drawn from: learned weights, and the samples of the first net."""
    if problem.features != 2:
        return {}
    x, labels = problem.of(0)
    return {"weights": [w[:WEIGHTS] for w in trained.weights], "x": x[:POINTS], "labels": labels[:POINTS]}
