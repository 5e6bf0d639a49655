"""Rivals on a GPU in turn: each warmed up and given enough steps by itself, and one that fails costs only itself."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gpunet.timing import Times, interleave

LEAST = 0.05  # seconds of a timed call
MOST = 5000  # steps of a timed call
# Errors after which no work of the process runs on the GPU any more, in the words of CUDA's runtime, driver, PyTorch.
STICKY = re.compile(
    "(cudaError|CUDA_ERROR_)_?(illegal_?address|misaligned_?address|launch_?fail|launch_?timeout|assert"
    "|illegal_?instruction|invalid_?pc|invalid_?address_?space|hardware_?stack_?error|ecc_?uncorrectable|contained"
    "|tensor_?memory_?leak|mps_?client_?terminated|external_?device)"
    "|CUDA error: (an illegal|misaligned|unspecified launch|device-side assert|the launch timed out)", re.IGNORECASE
)  # fmt: skip
UNLEARNED = 1.1  # a final loss above so many times the first one means that the steps were no training


@dataclass(frozen=True)
class Contestant:
    """run(steps) takes so many steps and waits for the device; loss: the mean loss now.

    keeps: what must live as long, such as the arrays of a recording.
    """

    run: Callable[[int], None]
    loss: Callable[[], float]
    keeps: Any = None


@dataclass
class Race:
    """Seconds of a step by contestant and round; the loss after the first steps and at the end; who failed, and why."""

    times: Times = field(default_factory=lambda: Times({}))
    first_loss: dict[str, float] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """For JSON: microseconds and steps a second (medians), losses, and the reasons of those that failed."""
        found: dict[str, Any] = {
            name: {
                "microseconds_per_step": 1e6 * self.times.median(name),
                "steps_per_second": 1 / self.times.median(name),
                "loss_at_first": self.first_loss[name],
                "loss": self.loss[name],
            }
            for name in self.times.seconds
            if name not in self.failed
        }
        return found | {name: {"failed": why} for name, why in self.failed.items()}

    def speed_up(self, ours: str, rivals: list[str]) -> float | None:
        """Time of the fastest of the rivals over ours, the median over rounds; None where one side is missing."""
        there = [name for name in rivals if name in self.times.seconds and name not in self.failed]
        if ours not in self.times.seconds or ours in self.failed or not there:
            return None
        return self.times.ratio(min(there, key=self.times.median), ours)


def race(makers: Mapping[str, Callable[[], Contestant]], rounds: int, first: int) -> Race:
    """Make, warm up with `first` steps, measure how many take LEAST seconds, then time all in turn.

    A contestant that fails is left out with the reason, its traceback printed; `sticky` errors are raised.
    """
    result, ready = Race(), {}
    for name, make in makers.items():
        try:
            made = make()
            made.run(first)
            result.first_loss[name] = made.loss()
            ready[name] = (made, _enough(made, first))
        except Exception as error:  # whatever a rival raises
            result.failed[name] = told(error)
    runs = {name: partial(made.run, steps) for name, (made, steps) in ready.items()}
    times = interleave(runs, rounds, pause=0)  # no thread pools to wait for, and the clocks stay up
    result.times = Times({name: [s / ready[name][1] for s in each] for name, each in times.seconds.items()})
    for name, (made, _) in ready.items():
        result.loss[name] = made.loss()
        if not result.loss[name] <= UNLEARNED * result.first_loss[name]:
            result.failed[name] = f"its loss rose from {result.first_loss[name]:.4g} to {result.loss[name]:.4g}"
    return result


def _enough(made: Contestant, first: int) -> int:
    made.run(first)  # torch.compile records its graphs at the second and third call
    began = time.perf_counter()
    made.run(first)
    return max(1, min(MOST, round(first * LEAST / max(1e-9, time.perf_counter() - began))))


def told(error: Exception) -> str:
    """Its `reason`, once the traceback is printed; a `sticky` one is raised, since all after it would fail, too."""
    if sticky(error):
        raise error
    traceback.print_exception(error)
    return reason(error)


def sticky(error: BaseException | None) -> bool:
    """Whether it, or what it came from, is an error after which nothing of this process runs on the GPU any more."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if STICKY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException) -> str:
    """The error in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]}"
