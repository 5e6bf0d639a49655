"""README's tables of speed, made from the recorded results.

A table stands between `<!-- speed:begin TABLE MACHINE -->` and `<!-- speed:end -->`, where TABLE is one of TABLES and
MACHINE names a file of results: `rewritten` puts there what the file says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpunet.bench import train
from gpunet.bench.ratios import without_route
from gpunet.errors import InputError

Figures = Mapping[str, Any]
BLOCK = re.compile(r"(?P<begin>^<!-- speed:begin (?P<table>\S+) (?P<machine>\S+) -->\n)(?P<body>.*?)(?P<end>^<!-- "
                   r"speed:end -->$)", re.MULTILINE | re.DOTALL)  # fmt: skip
CONV = {
    "convnet-8": "ConvNet, 8 filters, 3×32×32, batch 64, a step",
    "convnet-8-30": "ConvNet, 8+30 filters, a step",
    "features-8": "features of 8 filters, batch 500",
    "features-13-82": "features of 13+82 filters, batch 500",
}
LOWRANK = {
    "dimension 1/2": "MNIST net cut to ranks {}, {} (two `nn.Linear` each), a step",
    "break-even 1/2": "the same, ranks {}, {}",
}
SVD = {  # what was timed: its row, and what the rival is called there
    "top 100 / numpy.linalg.svd": ("top 100 of 784×60000, both sides", "numpy.linalg.svd"),
    "top 100 / torch.linalg.svd": ("the same", "torch.linalg.svd"),
    "top 100 / sklearn covariance_eigh": ("the same, one side", "scikit-learn covariance_eigh"),
    "ten classes / ten numpy.linalg.svd": ("ten classes, top 10 each", "ten numpy.linalg.svd"),
    "4096×4096 to rank 256 / full SVD": ("4096×4096 to rank 256", "numpy.linalg.svd"),
    "all of 60000×784 float32 / numpy.linalg.svd": ("all 784 of 60000×784", "numpy.linalg.svd"),
    "all of 60000×784 float64 / numpy.linalg.svd": ("the same in float64", "numpy.linalg.svd"),
    "all of 4000×784 float64 / numpy.linalg.svd": ("all 784 of 4000×784, float64", "numpy.linalg.svd"),
    "top 100 of noise 1050×1050 float64 / scipy svds": ("top 100 of noise 1050×1050, float64", "scipy svds"),
}


def rewritten(text: str, sections_of: Callable[[str], Mapping[str, Any]]) -> str:
    """The text with every table of speed made anew; `sections_of(machine)` gives a file's sections.

    Raises InputError where there is no table, where one has no end, and for a table or figure that is not known.
    """
    made, count = BLOCK.subn(lambda found: _block(found, sections_of), text)
    begun = text.count("<!-- speed:begin")
    if count == 0 or not count == begun == text.count("<!-- speed:end"):
        raise InputError(
            f"{begun} tables of speed begin, {count} are whole: expected a line '<!-- speed:begin TABLE MACHINE -->' "
            "above each and '<!-- speed:end -->' below"
        )
    return made


def _block(found: re.Match[str], sections_of: Callable[[str], Mapping[str, Any]]) -> str:
    table, machine = found["table"], found["machine"]
    if table not in TABLES:
        raise InputError(f"unknown table of speed {table!r}: expected one of {', '.join(TABLES)}")
    try:
        lines = TABLES[table](sections_of(machine))
    except KeyError as error:
        raise InputError(f"the results of {machine} have no {error.args[0]!r}, which table {table} shows") from error
    return found["begin"] + "".join(f"{line}\n" for line in lines) + found["end"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; an empty cell is a single blank."""
    lines = [heads, ["---"] * len(heads), *rows]
    head, rule, *body = ["|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines]
    return [head, rule.replace(" ", ""), *body]


def _time(seconds: float, like: float | None = None) -> str:
    """In the unit that suits `like` seconds, or itself: 291 µs, 22.42 ms, 1.27 s."""
    size = like or seconds
    if size >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.2f} ms" if size >= 1e-3 else f"{1e6 * seconds:.0f} µs"


def _ratio(value: float) -> str:
    return f"{value:.2f}×" if value < 2 else f"{value:.1f}×"


def _ours(contestants: Figures, name: str, unit: tuple[str, float], over: str, like: float) -> str:
    """Time and ratio of a contestant, nothing where it did not take part."""
    figures = contestants.get(name)
    return f"{_time(figures[unit[0]] * unit[1], like)} ({figures[over]:.2f}×)" if figures else ""


def training(sections: Figures) -> list[str]:
    """A step of each net of `benchmarks/train.py`."""
    unit, rows = ("microseconds_per_step", 1e-6), []
    for name, contestants in sections["train"]["cases"].items():
        case = train.CASES[name]
        torch = unit[1] * contestants["torch"][unit[0]]
        rows.append([
            f"{'-'.join(map(str, case.widths))}, batch {case.batch}",
            _time(torch),
            *(_ours(contestants, who, unit, "over_torch", torch) for who in ("numpy", "numba")),
            _time(unit[1] * contestants["products"][unit[0]], torch),
        ])  # fmt: skip
    return _table(["one Adam step", "PyTorch eager", "plain NumPy", "with numba", "matrix products alone"], rows)


def others(sections: Figures) -> list[str]:
    """Factored training, convolution and whole runs beside the better of PyTorch's ways."""
    rows = _lowrank(sections["lowrank"])
    for name, contestants in sections["conv"]["cases"].items():
        rows.append(_beside_best(CONV[name], contestants, ("microseconds_per_batch", 1e-6)))
    for section in sections.values():
        if "row" in section:  # its own name in this table
            rows.append(_beside_best(section["row"], section["contestants"], ("seconds_per_run", 1.0)))
    return _table(["", "PyTorch eager", "plain NumPy", "with numba"], rows)


def _lowrank(section: Figures) -> list[list[str]]:
    unit, rows = ("milliseconds_per_step", 1e-3), []
    for net, label in LOWRANK.items():
        found = section["nets"][net]
        torch = unit[1] * found["contestants"]["torch"][unit[0]]
        ours = _ours(found["contestants"], "gpunet", unit, "over_torch", torch)
        columns = ["", ours] if section["provenance"]["numba"] else [ours, ""]
        rows.append([label.format(*found["ranks"]), _time(torch), *columns])
    return rows


def _beside_best(label: str, contestants: Figures, unit: tuple[str, float]) -> list[str]:
    best = min(figures[unit[0]] for name, figures in contestants.items() if name.startswith("torch")) * unit[1]
    ours = [_ours(contestants, who, unit, "over_best_torch", best) for who in ("numpy", "numba")]
    return [label, _time(best), *ours]


def decompositions(sections: Figures) -> list[str]:
    """The SVD engine beside what its rivals' users call."""
    timed, rows = {without_route(row["what"]): row for row in sections["svd"]["rows"]}, []
    for what, (label, rival) in SVD.items():
        ours, theirs = timed[what]["ours_s"], timed[what]["theirs_s"]
        rows.append([label, f"{ours:.2f} s", f"{rival} {theirs:.2f} s", _ratio(theirs / ours)])
    return _table(["", "gpunet", "rival", ""], rows)


TABLES: dict[str, Callable[[Figures], list[str]]] = {
    "training": training, "others": others, "decompositions": decompositions,
}  # fmt: skip
