"""See `gpunet.timing`."""

from gpunet.timing import Times, interleave

__all__ = ["Times", "interleave"]
