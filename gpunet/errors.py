"""The library's exceptions.

Every message is one line that says what was given, what was expected and what to do. The command line
turns an `InputError` into exit code 2 and a `RunError` into exit code 1, without a traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class GpunetError(Exception):
    """Base of everything gpunet raises on purpose."""


class InputError(GpunetError, ValueError):
    """What the caller gave cannot be used: a mistake that can be mended before running again."""


class ShapeError(InputError):
    """Arrays whose shapes do not fit each other or the layer they were given to."""


class DataError(InputError):
    """A data set, or a file of one, that is missing, damaged or inconsistent."""


class DeviceError(InputError):
    """A device that was asked for by name and cannot be used; the message says why."""


class RunError(GpunetError, RuntimeError):
    """Something that went wrong while running, with input that looked right."""


class DivergedError(RunError):
    """A loss that became NaN or infinite, or grew far beyond its start; names where and the learning rate."""


class ConvergenceError(RunError):
    """A decomposition that did not reach its tolerance; names the matrix and the residual."""


class CaptureError(RunError):
    """Something in a training step that a device cannot record and replay; the message says what."""


class MemoryFullError(RunError):
    """A device without room for an array; names the allocation, the device, and what may help."""


class FetchError(RunError):
    """No mirror delivered a file with the right content; says what each of them answered."""


class StorageLostError(RunError):
    """A sweep's storage that is gone; `table` has the trials that were finished until then."""

    def __init__(self, message: str, table: Any) -> None:
        super().__init__(message)
        self.table = table


class OutputError(InputError):
    """A folder or file that cannot be written; `kept` is where its content lies instead, None where nowhere."""

    def __init__(self, message: str, kept: Path | None = None) -> None:
        super().__init__(message)
        self.kept = kept
