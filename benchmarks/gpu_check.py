"""The parts of benchmarks/gpu_check.sh, one process each: what hangs or crashes costs itself and nothing else."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_process import LEAST, run_part, run_tests

from gpunet.bench.gpu_parts import LIMITS, PARTS
from gpunet.bench.gpu_table import page
from gpunet.bench.record import write_section
from gpunet.errors import GpunetError
from gpunet.files import write_atomically

TESTS_LIMIT = 170  # seconds
ORDER = ("machine", "tests", *[name for name in PARTS if name != "machine"])


def main() -> int:
    chosen = options()
    if chosen.part:
        return child(chosen)
    out = Path(chosen.out or os.environ.get("OUT") or Path(__file__).parent / "results")
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + chosen.seconds
    sections: dict[str, dict[str, Any]] = {}
    path = out / "gpu.json"
    with tempfile.TemporaryDirectory() as work:
        for name in chosen.parts:
            limit = min(LIMITS.get(name, TESTS_LIMIT), deadline - time.monotonic())
            if limit < LEAST:
                section = {"state": "not run", "why": f"of {chosen.seconds} s none were left", "provenance": {}}
            elif name == "tests":
                section = run_tests(out / "tests.txt", Path(work), limit)
            else:
                section = run_part(name, child_options(chosen), Path(work), limit)
            if name == "machine":
                path = out / f"{slug(section)}.json"
            sections[name] = section
            rest = {key: value for key, value in section.items() if key != "provenance"}
            write_section(path, f"gpu {name}", rest, section["provenance"])
            print(f"{name}: {section['state']}, {section.get('seconds', 0):.0f} s", flush=True)
    for failure in sections.get("tests", {}).get("figures", {}).get("failures", [])[:40]:
        print(failure[:200])
    print(page(sections))
    print(f"\nWritten: {path}")
    if any(section["state"] != "done" for section in sections.values()):
        return 1
    missed = [each for section in sections.values() for each in section.get("targets", []) if not each["met"]]
    return 3 if missed and not chosen.small else 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", help="folder for the results ($OUT, else benchmarks/results)")
    parser.add_argument("--parts", type=parts, default=list(ORDER), help=f"by comma, of {', '.join(ORDER)}")
    parser.add_argument("--device", default="cuda", help="another one (cpu) to try the scripts out")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--small", action="store_true", help="sizes that any CPU does in seconds; targets are not judged"
    )
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--seconds", type=float, default=465, help="for everything; what has no time left is not run")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)  # what the parent calls
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def parts(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in ORDER]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown part {', '.join(unknown)}: expected some of {', '.join(ORDER)}")
    return [name for name in ORDER if name in names]


def child_options(chosen: argparse.Namespace) -> list[str]:
    flags = [flag for flag, on in (("--small", chosen.small), ("--no-compile", chosen.no_compile)) if on]
    return ["--device", chosen.device, "--rounds", str(chosen.rounds), *flags]


def child(chosen: argparse.Namespace) -> int:
    """One part in this process; what it has so far lies in the file all the time."""
    from gpunet.backend import get_backend
    from gpunet.bench.gpu_setup import Setup
    from gpunet.bench.record import provenance

    try:
        backend = get_backend(chosen.device)
    except GpunetError as error:
        print(error, file=sys.stderr)
        return 2
    made = provenance(backend)

    def save(document: dict[str, Any]) -> None:
        write_atomically(chosen.file, json.dumps(document | {"provenance": made}))

    setup = Setup(backend, chosen.rounds, chosen.small, not chosen.no_compile, save)
    save(PARTS[chosen.part](setup))
    return 0


def slug(machine: dict[str, Any]) -> str:
    """The GPU's name as a file's: nvidia-h200."""
    name = machine.get("figures", {}).get("gpu") or machine.get("figures", {}).get("device") or "gpu"
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
