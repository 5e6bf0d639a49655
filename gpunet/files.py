"""Writing files so that nothing half-written is ever left behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from gpunet.errors import InputError, OutputError, shown


def writable_folder(path: str | Path) -> Path:
    """The folder, made if need be; OutputError where it cannot be made or written to."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to '{folder}': {error.strerror or error}; choose another folder with --out"
        ) from error
    return folder


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a neighbour first, then rename: after an interruption the old file or the new one stands there."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # interrupted just after the rename
            os.unlink(name)
        raise


def check_path(name: str, value: Any) -> Path:
    """A path, which need not exist; InputError for what cannot be one."""
    try:
        path = Path(value)
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except Exception as error:  # too long for the system, of bytes, a zero within, or an object of the user's
        raise InputError(f"{name} is {shown(value)}: expected a path such as 'model.safetensors'") from error
    return path
