"""Comparing tables."""

from __future__ import annotations

from functools import cache

from gpunet.sweep import search

from .functions import BOWL, SPACE


def without_seconds(table) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table]


@cache
def _undisturbed(trials: int, stages: int, seed: int, settings: tuple) -> tuple:
    return tuple(without_seconds(search(BOWL, dict(settings), SPACE, trials=trials, stages=stages, seed=seed)))


def undisturbed(trials: int = 12, stages: int = 2, seed: int = 0, **settings) -> list[dict]:
    """The table of a sweep by one worker in memory."""
    return list(_undisturbed(trials, stages, seed, tuple(settings.items())))
