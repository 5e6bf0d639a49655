"""Lines and files of the library by room, beside what they are to become: `python .ci/lines.py`."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDINGS = {".py", ".cu", ".cuh", ".html", ".css", ".js"}
SIXTH = "gpunet/experiments/patches/"

# A room, the lines that it aims at, and how its files' paths begin ("rng" is gpunet/rng.py); the longest one counts.
ROOMS = {
    "leaves": (
        370,
        "__init__ errors rng checks files fingerprint progress timing addresses limits streams interrupts tensorfile"
        " reprs extras",
    ),
    "backend": (2640, "gpunet/backend/"),
    "linalg": (2150, "gpunet/linalg/ decompose"),
    "nn": (2800, "gpunet/nn/"),
    "spectral": (700, "gpunet/spectral/"),
    "compression": (1200, "gpunet/compression/"),
    "estimators": (900, "gpunet/estimators/"),
    "datasets": (1300, "datasets/"),
    "sweep": (800, "gpunet/sweep/"),
    "experiments": (4400, "gpunet/experiments/"),
    "report": (900, "gpunet/report/"),
    "reproduce": (350, "gpunet/reproduce/ reproduce"),
    "bench": (2200, "gpunet/bench/ benchmarks/"),
    "cli": (550, "cli/ __main__"),
    "testing": (180, "testing"),
    "tests": (None, "tests/"),
}  # fmt: skip


def room(path: str) -> str:
    """The one room of a file; one that stands in none is told with its folder."""
    starts = [(s if "/" in s else f"gpunet/{s}.py", name) for name in ROOMS for s in ROOMS[name][1].split()]
    fits = [(len(start), name) for start, name in starts if path.startswith(start)]
    return max(fits)[1] if fits else f"no room: {path if path.count('/') == 1 else path.rpartition('/')[0] + '/'}"


def main() -> None:
    """Count, and print a line a room; tests stand apart."""
    git = ["git", "ls-files", "-co", "--exclude-standard", "gpunet", "cli", "datasets", "benchmarks", "tests"]
    listed = subprocess.check_output(git, cwd=ROOT, text=True).splitlines()
    files = [path for path in listed if Path(path).suffix in ENDINGS and (ROOT / path).is_file()]
    groups: dict[str, list[str]] = defaultdict(list, {name: [] for name in ROOMS})
    for path in files:
        groups[room(path)].append(path)
    aims = {name: aim for name, (aim, _) in ROOMS.items()} | {"all": 19_000, "papers": 4600, "report + reproduce": 1400}
    groups["all"] = [path for path in files if not path.startswith("tests/")]
    # Beside the rooms, two sums: the five papers with framework and commands, without the scripts that look at settings
    # or race a rival; and the Python of report and reproduce, without the figures of benchmarks and sweeps.
    papers = [p for p in files if p.startswith(("gpunet/experiments/", "cli/run.py")) and not p.startswith(SIXTH)]
    groups["papers"] = [p for p in papers if Path(p).name not in ("chosen.py", "beside_torch.py")]
    drawn = [p for p in groups["report"] if not Path(p).name.startswith(("bench_", "sweep_", "scaling_"))]
    groups["report + reproduce"] = [p for p in drawn + groups["reproduce"] if p.endswith(".py")]
    for name, paths in groups.items():
        lines = sum(len((ROOT / path).read_bytes().splitlines()) for path in paths)
        aim = f" → {aims[name]:6,}" if aims.get(name) else ""
        print(f"{name:20} {lines:7,}{aim:9} lines {len(paths):5} files{' → 110' if name == 'all' else ''}")


if __name__ == "__main__":
    main()
