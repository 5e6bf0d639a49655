"""A guard against files that promise, or unpack to, more than the machine can hold or anybody would expect of them."""

from __future__ import annotations

from gpunet.errors import DataError
from gpunet.limits import VARIABLE, allowed, physical_memory


def check_fits(size: int, where: str, stored: int | None = None) -> None:
    """Raise DataError where `size` bytes are more than the machine's memory; `where` begins the message.

    stored: bytes of the packed file that they are in; they may not be more than `gpunet.limits` allows it either.
    """
    memory = physical_memory()
    if memory is not None and size > memory:
        raise DataError(
            f"{where} needs {size:,} bytes but this machine has {memory:,} bytes of memory; "
            "the file is damaged, or give a smaller one"
        )
    if stored is not None and size > allowed(stored):
        raise DataError(
            f"{where} unpacks to {size:,} bytes, but a file of {stored:,} is allowed {allowed(stored):,}; it is "
            f"damaged, or set {VARIABLE} to a higher limit"
        )
