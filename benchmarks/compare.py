"""Whether anything got slower: python benchmarks/compare.py OLD NEW [--limit PERCENT].

OLD and NEW are files of benchmarks/results, or what `pytest benchmarks --benchmark-only --benchmark-json FILE` wrote.
Compared are ratios, ours over a rival in the same file, so that a faster or busier machine cancels out. A ratio is
worse when its median grew by more than the limit and, where quartiles are known, the lower one of NEW lies above the
upper one of OLD: what lies within the noise is shown, but fails nothing.

Exit code 1 when a ratio is worse, 2 for files that cannot be compared, else 0.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from gpunet.bench.ratios import Measured, Ratio, read
from gpunet.errors import InputError

LIMIT = 15.0  # percent


@dataclass(frozen=True)
class Change:
    """One comparison in both files, or in one of them alone."""

    old: Ratio | None
    new: Ratio | None

    @property
    def percent(self) -> float | None:
        """How much the ratio grew."""
        return 100 * (self.new.ratio / self.old.ratio - 1) if self.old and self.new else None

    def verdict(self, limit: float) -> str:
        if self.old is None or self.new is None or self.percent is None:
            return "new" if self.old is None else "missing"
        if self.percent > limit:
            return "worse" if self.new.least > self.old.most else "within noise"
        if self.old.ratio / self.new.ratio - 1 > limit / 100:
            return "better" if self.new.most < self.old.least else "within noise"
        return "same"


def changes(old: Measured, new: Measured) -> list[Change]:
    """By what was compared, in OLD's order, then what NEW alone has; InputError where they share nothing."""
    before, after = ({ratio.key: ratio for ratio in each.ratios} for each in (old, new))
    if not set(before) & set(after):
        raise InputError(
            f"'{old.name}' and '{new.name}' have no comparison in common: expected two files of the same benchmarks"
        )
    return [Change(before.get(key), after.get(key)) for key in dict.fromkeys([*before, *after])]


def told(change: Change, limit: float) -> list[str]:
    """A line of the table."""
    some = change.new or change.old
    assert some is not None
    ratios = [_ratio(each) for each in (change.old, change.new)]
    grew = "" if change.percent is None else f"{change.percent:+.1f} %"
    return [f"{some.group}: {some.case}", f"{some.ours} / {some.rival}", *ratios, grew, change.verdict(limit)]


def _ratio(each: Ratio | None) -> str:
    if each is None:
        return "–"
    spread = f" ({each.least:.3g}–{each.most:.3g})" if each.quartiles else ""
    return f"{each.ratio:.3g}×{spread}"


def table(lines: list[list[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(arguments: list[str] | None = None) -> int:
    head, _, more = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="compare", description=head.partition(":")[0] + ".", epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="PERCENT", help=f"default {LIMIT:g}")
    options = parser.parse_args(arguments)
    if not options.limit >= 0:
        parser.error(f"--limit is {options.limit:g}: expected a percentage from 0 on")
    try:
        old, new = read(options.old), read(options.new)
        found = changes(old, new)
    except InputError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    if old.machine != new.machine:
        print(f"compare: warning: {old.machine} and {new.machine} are not the same kind of machine", file=sys.stderr)
    print(table([["what", "ratio", "old", "new", "change", ""], *(told(each, options.limit) for each in found)]))
    verdicts = [each.verdict(options.limit) for each in found]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    print(f"\n{counts}; the limit is {options.limit:g} %")
    return 1 if "worse" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
