"""What a shell completes beyond names of commands and options: data sets, experiments, devices, words."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence


def among(words: Callable[[], Iterable[str]] | Sequence[str]) -> Callable[[str], list[str]]:
    """Those of the words, or of what they return when asked, that begin as what was typed does."""

    def found(incomplete: str) -> list[str]:
        return [word for word in (words() if callable(words) else words) if word.startswith(incomplete)]

    return found


def _data_sets() -> Iterable[str]:
    from gpunet.datasets import names

    return names()


def _experiments() -> Iterable[str]:
    from gpunet.experiments import experiments

    return experiments()


data_sets = among(_data_sets)
experiments = among(_experiments)
devices = among(("auto", "cpu", "numpy", "cuda"))


def data_or_path(incomplete: str) -> list[str]:
    """Data sets, and what lies here under such a name; nothing where no data set fits: a shell then offers files."""
    sets = data_sets(incomplete)
    beside = sorted(glob.glob(f"{glob.escape(incomplete)}*")) if sets and incomplete else []
    return [*sets, *(f"{path}{os.sep}" if os.path.isdir(path) else path for path in beside if path not in sets)]
