"""Where data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

from gpunet.errors import InputError, shown
from gpunet.files import check_path

VARIABLE = "GPUNET_DATA"


def data_dir(override: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: `override`, else $GPUNET_DATA, else the platform's cache folder for gpunet.

    The folder need not exist. A data set called `mnist` lies in `data_dir() / "mnist"`.
    """
    chosen = check_path("data_dir", override) if _given(override) else os.environ.get(VARIABLE)
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise InputError(f"data_dir is {shown(str(chosen))}: {error}") from error
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("gpunet", appauthor=False))


def _given(override: object) -> bool:
    return override is not None and not (isinstance(override, str) and not override)
