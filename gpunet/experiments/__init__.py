"""The experiments: a folder a paper, found by looking for it. Each declares itself, see `framework.Experiment`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from gpunet.errors import InputError, shown

if TYPE_CHECKING:
    from gpunet.experiments.framework import Experiment


@functools.cache
def experiments() -> dict[str, Experiment]:
    """All of them by name, in the order of their papers."""
    folders = (found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    every: list[Experiment] = [importlib.import_module(f"{__name__}.{name}").x for name in folders]
    return {x.name: x for x in sorted(every, key=lambda x: x.paper.number)}


def experiment(name: str) -> Experiment:
    """The one of that name; InputError naming those that exist."""
    if not isinstance(name, str) or name not in experiments():
        raise InputError(f"unknown experiment {shown(name)}: expected one of {', '.join(experiments())}")
    return experiments()[name]
