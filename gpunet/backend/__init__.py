"""The array layer: the one place that knows which device computes."""

from gpunet.backend.base import Backend
from gpunet.backend.device import get_backend, why_no_gpu, why_no_numba

__all__ = ["Backend", "get_backend", "why_no_gpu", "why_no_numba"]
