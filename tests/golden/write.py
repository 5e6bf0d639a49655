"""Golden results: what the quick runs give today, to the last bit, and how the golden files are written anew.

    python -m tests.golden.write [RUN ...] [help]     all of them and help.txt, or those named

Do so only where a change of numbers or words is meant, and say in the commit why they changed.

Bits follow from the kernels that NumPy and BLAS choose for the processor. So a run is a process of its own, held to one
thread and to AVX2; `made_with` says what else they follow from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .helps import help_text

HERE = Path(__file__).parent
RUNS = {
    "patches": ("patches",),
    "svd-init": ("svd-init",),
    "svd-dnn-xor": ("svd-dnn", "--task", "xor"),
    "svd-dnn-digits": ("svd-dnn", "--task", "mnist"),
    "dmn": ("dmn", "--epochs", "30"),
    "toy": ("toy",),
    "cifar-mlp": ("cifar-mlp",),
}
SHORT = {  # the long ones, with fewer epochs
    "svd-init-short": ("svd-init", "--epochs", "2"),
    "svd-dnn-digits-short": ("svd-dnn", "--task", "mnist", "--epochs", "2"),
    "dmn-short": ("dmn", "--epochs", "3"),
    "cifar-mlp-short": ("cifar-mlp", "--epochs", "3", "--trials", "4"),
}
RUNS |= SHORT
LONG = RUNS.keys() - {"svd-init-short", "dmn-short"}  # for the slow tests
CLOCK = ("epoch_speed_up", "relative_speed")  # metrics made of seconds: no value of theirs is kept


def simd() -> dict[str, list[str]]:
    """The processor's instruction sets as NumPy knows them: baseline, found, not found."""
    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    return {"baseline": [], "found": [], "not found": []} | config.get("SIMD Extensions", {})


def made_with() -> dict[str, str]:
    """What bits follow from beside our code: another of these, and they are not compared."""
    import scipy  # SVD's and PCA's LAPACK; scikit-learn brings it

    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    dependencies = config["Build Dependencies"]
    return {
        "machine": platform.machine(), "libc": " ".join(platform.libc_ver()), "numpy": np.__version__,
        "scipy": scipy.__version__, "blas": f"{dependencies['blas']['name']} {dependencies['blas']['version']}",
    }  # fmt: skip


def why_other_bits(golden: dict[str, Any]) -> str:
    """Why this machine's bits may be others than the golden ones; empty where they must be the same."""
    here = made_with()
    if other := [f"{name} {here[name]}, not {had}" for name, had in golden["made_with"].items() if here[name] != had]:
        return f"golden bits are of another machine: here {'; '.join(other)}"
    return "" if has_avx2() else "golden bits need a processor with AVX2"


def has_avx2() -> bool:
    """Whether AVX2's kernels can be asked for: elsewhere OpenBLAS would take them, too, and die of it."""
    sets = simd()
    return bool({"X86_V3", "AVX2"} & {*sets["baseline"], *sets["found"]})  # X86_V3: NumPy 2.4's name of AVX2 with FMA


def pinned() -> dict[str, str]:
    """The environment in which the kernels are those of AVX2, whatever more the processor has."""
    alone = {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    if not has_avx2():
        return alone
    wide = [name for name in simd()["found"] if name == "X86_V4" or name.startswith("AVX512")]
    return alone | {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": " ".join(wide)}


def result(name: str, folder: Path) -> dict[str, Any]:
    """One quick run's result.json, through the command line, in a process of its own; no figures are drawn."""
    command = [*RUNS[name], "--quick", "--device", "numpy", "--seed", "0", "--json", "--out", str(folder)]
    code = (
        "import sys; from gpunet.cli import main; from gpunet.report import drawing; drawing.drawn = lambda draw: []; "
        "sys.argv[0] = 'gpunet'; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *command], env=os.environ | pinned(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def found(document: dict[str, Any]) -> dict[str, Any]:
    """What a run found and what its settings came to, by name; `settings` holds both today, `notes` may come to."""
    both: dict[str, Any] = document["settings"] | document.get("notes", {})
    return both


def kept(document: dict[str, Any]) -> dict[str, Any]:
    """What is compared of a result: all but seconds, claims and provenance; curves as digests."""
    rows = {
        row["name"]: {n: None if n in CLOCK else metric["values"] for n, metric in row["metrics"].items()}
        for row in document["rows"]
    }
    about = {name: document[name] for name in ("experiment", "dataset", "seeds")}
    curves = {row: {n: c for n, c in named.items() if n != "seconds"} for row, named in document["curves"].items()}
    return about | {"rows": rows, "curves": digested(curves), "notes": found(document)}


def digested(value: Any) -> Any:
    """Lists of numbers as their shape and the SHA-256 of their float64 bytes; a null, which was not finite, as NaN."""
    if isinstance(value, dict):
        return {name: digested(item) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    with contextlib.suppress(ValueError, TypeError):  # rows of unequal length, or words
        numbers = np.array(value, dtype="<f8")
        numbers[np.isnan(numbers)] = np.nan
        return {"shape": list(numbers.shape), "sha256": hashlib.sha256(numbers.tobytes()).hexdigest()}
    return [digested(item) for item in value]


def structure(golden: dict[str, Any]) -> dict[str, Any]:
    """The part that no processor changes: names and shapes."""

    def shapes(curve: Any) -> Any:
        if isinstance(curve, dict):
            return curve["shape"] if "sha256" in curve else {name: shapes(item) for name, item in curve.items()}
        return [shapes(item) for item in curve] if isinstance(curve, list) else type(curve).__name__

    return {
        "rows": list(golden["rows"]), "metrics": {name: sorted(row) for name, row in golden["rows"].items()},
        "curves": shapes(golden["curves"]), "notes": sorted(golden["notes"]),
    }  # fmt: skip


def differences(was: Any, now: Any, at: str = "") -> list[str]:
    """Where two documents differ, as written to the last digit: 0 and -0, 1 and 1.0 are two."""
    if isinstance(was, dict) and isinstance(now, dict):
        lines = [f"{at}/{name}: only {'golden' if name in was else 'now'}" for name in sorted(was.keys() ^ now.keys())]
        for name in was.keys() & now.keys():
            lines += differences(was[name], now[name], f"{at}/{name}")
        return lines
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [line for i, pair in enumerate(zip(was, now, strict=True)) for line in differences(*pair, f"{at}[{i}]")]
    return [] if json.dumps(was) == json.dumps(now) else [f"{at}: {json.dumps(was)} was golden, now {json.dumps(now)}"]


def golden(name: str) -> dict[str, Any]:
    """The golden file of a run."""
    document: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return document


def write(name: str) -> None:
    """Run it and write its golden file; a row, a curve or a note on a line, so that a diff shows what changed."""
    with tempfile.TemporaryDirectory() as folder:
        document = {"made_with": made_with()} | kept(result(name, Path(folder)))
    parts = [f"{json.dumps(key)}: {_lines(value)}" for key, value in document.items()]
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _lines(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n}"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or [*RUNS, "help"]:
        if chosen == "help":
            (HERE / "help.txt").write_text(help_text())
        else:
            write(chosen)
