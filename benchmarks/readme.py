"""README's tables of speed from benchmarks/results: python benchmarks/readme.py writes them, --check compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpunet.bench.readme import rewritten
from gpunet.bench.record import read_sections
from gpunet.errors import InputError
from gpunet.files import write_atomically

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where README differs")
    parser.add_argument("--readme", type=Path, default=HERE.parent / "README.md", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        text = options.readme.read_text()
        made = rewritten(text, lambda machine: read_sections(HERE / "results" / f"{machine}.json"))
    except (InputError, OSError) as error:
        print(f"readme: {error}", file=sys.stderr)
        return 2
    if options.check and made != text:
        print(f"readme: '{options.readme}' differs from benchmarks/results; run python benchmarks/readme.py")
        return 1
    if made != text:
        write_atomically(options.readme, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
