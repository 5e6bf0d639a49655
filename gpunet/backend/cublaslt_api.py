"""cublasLt's C interface through ctypes: constants, structures, loading, and errors that say what failed.

Numbers and layouts are those of cublasLt.h and library_types.h of CUDA 12 and 13, where they are the same.
cuda.pathfinder comes with CuPy 14; it is imported inside the function: this module loads anywhere.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from gpunet.backend.cuda_facts import first_line
from gpunet.errors import DeviceError, RunError

R_32F, R_64F = 0, 1  # cudaDataType
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77  # cublasComputeType_t
OP_N, OP_T = 0, 1  # cublasOperation_t
EPILOGUE_DEFAULT, EPILOGUE_RELU, EPILOGUE_BIAS = 1, 2, 4  # cublasLtEpilogue_t; RELU | BIAS adds before max(x, 0)
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
PREF_MAX_WORKSPACE_BYTES = 1  # cublasLtMatmulPreferenceAttributes_t
PREF_ALIGNMENTS = (5, 6, 7, 8)  # of A, B, C and D, in bytes
SUCCESS, INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED = 0, 7, 8, 15  # cublasStatus_t

STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED", 7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH", 11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED", 16: "CUBLAS_STATUS_LICENSE_ERROR",
}  # fmt: skip

_pointer, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_out = ctypes.POINTER(ctypes.c_void_p)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_out,),
    "cublasLtMatmulDescCreate": (_out, _int, _int),
    "cublasLtMatmulDescSetAttribute": (_pointer, _int, _pointer, _size),
    "cublasLtMatmulDescGetAttribute": (_pointer, _int, _pointer, _size, ctypes.POINTER(_size)),
    "cublasLtMatmulDescDestroy": (_pointer,),
    "cublasLtMatrixLayoutCreate": (_out, _int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64),
    "cublasLtMatrixLayoutDestroy": (_pointer,),
    "cublasLtMatmulPreferenceCreate": (_out,),
    "cublasLtMatmulPreferenceSetAttribute": (_pointer, _int, _pointer, _size),
    "cublasLtMatmulPreferenceDestroy": (_pointer,),
    "cublasLtMatmulAlgoGetHeuristic": (*(_pointer,) * 7, _int, _pointer, ctypes.POINTER(_int)),
    "cublasLtMatmul": (*(_pointer,) * 14, _size, _pointer),
}


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t: opaque, 64 bytes."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t, 96 bytes."""

    _fields_ = (
        ("algo", Algorithm),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


def load(major: int = 13) -> Any:
    """The library, found as CuPy finds its own: loaded already, in NVIDIA's wheels, in conda, or by the system.

    major: CUDA's, tried first where only names are left to try. Raises DeviceError where there is none.
    """
    try:
        from cuda import pathfinder  # type: ignore[import-not-found, unused-ignore]

        return declare(ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path))
    except Exception as error:  # it has classes of its own for every way not to find something
        reason = first_line(error)
    for version in (major, *(each for each in (13, 12) if each != major)):
        name = f"cublasLt64_{version}.dll" if sys.platform == "win32" else f"libcublasLt.so.{version}"
        try:
            return declare(ctypes.CDLL(name))
        except OSError:
            continue
    raise DeviceError(
        f"cublasLt is not found ({reason}); install it with: pip install 'gpunet[cuda{major}]', which brings "
        "NVIDIA's libraries"
    )


def declare(library: Any) -> Any:
    """Give the functions their argument types: without them ctypes would pass 64-bit sizes as int."""
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    library.cublasLtGetVersion.argtypes, library.cublasLtGetVersion.restype = (), ctypes.c_size_t
    return library


def version(library: Any) -> str:
    """As in "13.1.0"."""
    number = int(library.cublasLtGetVersion())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def check(status: int, what: str) -> None:
    """Raise RunError, naming the call and what it answered, unless that is success."""
    if status != SUCCESS:
        raise RunError(f"cublasLt: {what} failed with {STATUS.get(status, f'status {status}')}")
