"""A guard against headers that promise more than the machine can hold."""

from __future__ import annotations

import os

from gpunet.errors import DataError


def physical_memory() -> int | None:
    """Bytes of the machine's main memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def check_fits(size: int, where: str) -> None:
    """Raise DataError where `size` bytes are more than the machine's memory; `where` begins the message."""
    memory = physical_memory()
    if memory is not None and size > memory:
        raise DataError(
            f"{where} needs {size:,} bytes but this machine has {memory:,} bytes of memory; "
            "the file is damaged, or give a smaller one"
        )
