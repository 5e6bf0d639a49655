"""Tables of `gpunet bench report`: the ratios of each group."""

from __future__ import annotations

from collections.abc import Sequence

from gpunet.bench.report import Change, Ratio, Report
from gpunet.errors import printable
from gpunet.report.table import NOTHING, Column, Table

LONGEST = 48  # signs of a name that are shown


def tables(report: Report) -> list[Table]:
    """A table a group: time of ours over the rival's, medians and quartiles; several files one below the other."""
    return [_table(report, group) for group in report.groups]


def _table(report: Report, group: str) -> Table:
    several = len(report.files) > 1
    pairs = report.rows(group)
    heads = [Column("ours", text=True), Column("rival", text=True)]
    heads += [Column("file", text=True)] if several else []
    heads += [Column("time, ours"), Column("time, rival"), Column("ours / rival"), Column("quartiles")]
    rows = []
    for each, ratio in pairs:
        names = map(short, [ratio.case, ratio.ours, ratio.rival, *([each.name] if several else [])])
        rows.append(
            (*names, time(ratio.seconds), time(ratio.rival_seconds), f"{three(ratio.ratio)}×", quartiles(ratio))
        )
    breaks = {place for place in range(1, len(rows)) if rows[place][0] != rows[place - 1][0]}
    machines = "; ".join(f"{each.name}: {each.machine}" if several else each.machine for each in report.files)
    return Table(short(group), tuple(heads), tuple(rows), note=machines, breaks=frozenset(breaks), corner="case")


def changes(found: Sequence[Change], verdicts: Sequence[str]) -> Table:
    """A row for each comparison: the ratio in the old file and in the new one, and the verdict."""
    heads = [Column("ours / rival", text=True), Column("old"), Column("new"), Column("change"), Column("", text=True)]
    rows = []
    for each, verdict in zip(found, verdicts, strict=True):
        ratios = [f"{three(r.ratio)}×{f' ({quartiles(r)})' if r.quartiles else ''}" if r else NOTHING
                  for r in (each.old, each.new)]  # fmt: skip
        grew = "" if each.percent is None else f"{each.percent:+.1f} %"
        some = each.some
        names = f"{short(some.group)}: {short(some.case)}", f"{short(some.ours)} / {short(some.rival)}"
        rows.append((*names, *ratios, grew, verdict))
    return Table("time of ours over the rival's", tuple(heads), tuple(rows), corner="what")


def short(text: str) -> str:
    """A name out of a file in one line, of a long one beginning and end."""
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 17]}…{text[-16:]}"


def quartiles(ratio: Ratio) -> str:
    """Lower and upper, or nothing where there was one round."""
    return f"{three(ratio.least)} to {three(ratio.most)}" if ratio.quartiles else NOTHING


def time(seconds: float | None) -> str:
    """Seconds with a unit: 291 µs, 22.4 ms, 1.27 s."""
    if seconds is None:
        return NOTHING
    size, unit = next((pair for pair in ((1.0, "s"), (1e-3, "ms")) if seconds >= pair[0]), (1e-6, "µs"))
    return f"{three(seconds / size)} {unit}"


def three(value: float) -> str:
    """Three digits, or all before the point: 0.0358, 1.30, 291, 1234."""
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:.0f}"
