"""Registers, shared memory and spills of every CUDA kernel, as ptxas reports them; no GPU is needed.

nvcc compiles where it is on the path, else NVRTC (pip install nvidia-cuda-nvrtc), which is what CuPy calls; with
CuPy's options, those included that it adds by itself.

python -m tests.cuda.kernel_resources        # writes benchmarks/results/kernel-resources.json and .md
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gpunet.backend import cupy_backend as kernels

ARCHITECTURES = ("sm_80", "sm_90")
OPTIONS = (*kernels.OPTIONS, *kernels.ADDED)
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NUMBERS = {
    "registers": r"Used (\d+) registers",
    "shared_bytes": r"(\d+) bytes smem",
    "stack_bytes": r"(\d+) bytes stack frame",
    "spill_store_bytes": r"(\d+) bytes spill stores",
    "spill_load_bytes": r"(\d+) bytes spill loads",
}
Resources = dict[str, dict[str, int]]


def why_not() -> str | None:
    """Why nothing can be compiled, or None."""
    if compilers():
        return None
    return "nvcc is not on the path, and NVRTC is not installed (pip install nvidia-cuda-nvrtc)"


def compilers() -> list[Callable[[str, str], str]]:
    """Those that are here, nvcc first: from source and architecture to ptxas's report. Their versions may differ."""
    return [*([by_nvcc] if shutil.which("nvcc") else []), *([by_nvrtc] if nvrtc() else [])]


def compiler() -> str:
    if not shutil.which("nvcc"):
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"NVRTC {major.value}.{minor.value}"
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return next(line for line in said.splitlines() if "release" in line)


def compiled(architecture: str, compile_one: Callable[[str, str], str]) -> Resources:
    """What ptxas says of each kernel; warnings are errors."""
    return parsed(compile_one(kernels.source(), architecture))


def by_nvcc(source: str, architecture: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "kernels.cu"
        text.write_text(source)
        command = ["nvcc", *OPTIONS, f"-arch={architecture}", "-cubin", "-Werror", "all-warnings", "-Xptxas", "-v"]
        done = subprocess.run(
            [*command, "-o", f"{folder}/kernels.cubin", str(text)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return done.stderr


@cache
def nvrtc() -> Any:
    """The library out of NVIDIA's wheel, None where none is installed."""
    for package in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if re.search(r"(libnvrtc\.so\.\d+|nvrtc64_\d+_0\.dll)$", str(file)):
                return ctypes.CDLL(str(file.locate()))
    return None


def by_nvrtc(source: str, architecture: str) -> str:
    """NVRTC's log, which is ptxas's report; a warning or an error raises."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v")]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    report = log.value.decode()
    if status or "warning" in report:
        raise RuntimeError(f"NVRTC, {architecture}, status {status}:\n{report}")
    return report


def parsed(report: str) -> Resources:
    """Numbers by kernel, in the kernels' order of names."""
    found: Resources = {}
    for part in report.split("Compiling entry function ")[1:]:
        name = part.split("'")[1]
        found[name] = {
            key: int(match[1]) if (match := re.search(pattern, part)) else 0 for key, pattern in NUMBERS.items()
        }
    return dict(sorted(found.items()))


def table(found: dict[str, Resources]) -> str:
    """Markdown: a row a kernel, registers and shared memory for each architecture."""
    lines = [
        "| kernel | " + " | ".join(f"{a}: registers | shared, bytes" for a in found) + " |",
        "|---" + "|---:|---:" * len(found) + "|",
    ]
    for name in next(iter(found.values())):
        cells = [f"{each[name][key]}" for each in found.values() for key in ("registers", "shared_bytes")]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    if reason := why_not():
        raise SystemExit(reason)
    found = {architecture: compiled(architecture, compilers()[0]) for architecture in ARCHITECTURES}
    version = compiler()
    written = {"compiler": version, "options": OPTIONS, "kernels": found}
    (RESULTS / "kernel-resources.json").write_text(json.dumps(written, indent=1) + "\n")
    text = (
        f"Kernels of `gpunet/backend/cuda`, {version}, `{' '.join(OPTIONS)}`. None spills registers or uses a stack."
        f"\n\n{table(found)}\n"
    )
    (RESULTS / "kernel-resources.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
