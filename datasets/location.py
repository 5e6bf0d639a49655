"""Where data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

from gpunet.errors import DataError, shown

VARIABLE = "GPUNET_DATA"


def data_dir(override: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: `override`, else $GPUNET_DATA, else the platform's cache folder for gpunet.

    The folder need not exist. A data set called `mnist` lies in `data_dir() / "mnist"`.
    """
    chosen = override or os.environ.get(VARIABLE)
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise DataError(f"the data folder {shown(chosen)} is no path: {error}; set {VARIABLE}") from None
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("gpunet", appauthor=False))
