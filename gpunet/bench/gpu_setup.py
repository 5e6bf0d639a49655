"""What a section of benchmarks/gpu_check.sh is told, and what it says about the figures that it should reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Backend

Document = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """Where to run; small: sizes that any CPU does in a second, to find mistakes; compiled: torch.compile, too.

    save: called with what there is so far, since a stage may be stopped before its end. draw: called with the title
    and the dot text of a recorded graph.
    """

    backend: Backend
    rounds: int = 11
    small: bool = False
    compiled: bool = True
    save: Callable[[Document], None] = lambda document: None
    draw: Callable[[str, str], None] = lambda title, dot: None

    def size(self, full: int, small: int) -> int:
        """A size, or the one of a small run."""
        return small if self.small else full

    @property
    def on_gpu(self) -> bool:
        """Whether the device is one."""
        return self.backend.name.startswith("cuda")


def target(what: str, value: float | None, bound: float, at_least: bool = True) -> Document:
    """One of the figures to be reached; one that is missing is not."""
    met = value is not None and (value >= bound if at_least else value <= bound)
    return {"what": what, "value": value, "target": bound, "at_least": at_least, "met": met}
