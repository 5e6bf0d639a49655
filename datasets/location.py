"""Where data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

from gpunet.errors import InputError, shown
from gpunet.files import check_path, user_cache

VARIABLE = "GPUNET_DATA"


def data_dir(override: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: `override`, else $GPUNET_DATA, else the platform's cache folder for gpunet.

    The folder need not exist. A data set called `mnist` lies in `data_dir() / "mnist"`.
    """
    name, given = ("data_dir", override) if _given(override) else (VARIABLE, os.environ.get(VARIABLE))
    if _given(given):
        try:
            return check_path(name, given).expanduser()
        except RuntimeError as error:
            raise InputError(f"{name} is {shown(given)}: {error}") from error
    return user_cache()


def _given(folder: object) -> bool:
    return folder is not None and not (isinstance(folder, str) and not folder)
