"""README's tables of speed, made from the recorded results: `python -m gpunet.bench.readme` in a checkout.

A table stands between `<!-- speed:begin TABLE MACHINE -->` and `<!-- speed:end -->`, where TABLE is one of TABLES and
MACHINE names a file of benchmarks/results. With --check nothing is written; the exit code is 1 where README differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpunet.bench import train
from gpunet.bench.results import Case, Entry, Section, ratio, read_sections
from gpunet.errors import InputError
from gpunet.files import write_atomically

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?P<begin>^<!-- speed:begin (?P<table>\S+) (?P<machine>\S+) -->\n)(?P<body>.*?)(?P<end>^<!-- "
                   r"speed:end -->$)", re.MULTILINE | re.DOTALL)  # fmt: skip
Sections = Mapping[str, Section]
OURS = {"numpy": "plain NumPy", "numba": "with numba"}
# PyTorch's ways, as columns; ours are over the fastest of those in float32.
WAYS = {"torch": "PyTorch", "torch flushed": "its denormals flushed", "torch bf16": "autocast to bfloat16"}
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
FAIR = {"top 100 of 784×60000": "top 100 of 784×60000", "4096×4096 to rank 256": "4096×4096 to rank 256"}
WHOLE = {  # case: its row
    "10 classes, top 10 each": "ten classes, top 10 each",
    "all of 60000×784 float32": "all 784 of 60000×784",
    "all of 60000×784 float64": "the same in float64",
    "all of 4000×784 float64": "all 784 of 4000×784, float64",
    "top 100 of noise 1050×1050 float64": "top 100 of noise 1050×1050, float64",
}


def rewritten(text: str, sections_of: Callable[[str], Sections]) -> str:
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


def _block(found: re.Match[str], sections_of: Callable[[str], Sections]) -> str:
    table, machine = found["table"], found["machine"]
    if table not in TABLES:
        raise InputError(f"unknown table of speed {table!r}: expected one of {', '.join(TABLES)}")
    try:
        lines = TABLES[table](sections_of(machine))
    except KeyError as error:
        raise InputError(f"the results of {machine} have no {error.args[0]!r}, which table {table} shows") from error
    return found["begin"] + "".join(f"{line}\n" for line in lines) + found["end"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; an empty cell is a single blank, and a column that nobody fills is left out."""
    filled = [place for place in range(len(heads)) if place == 0 or any(row[place] for row in rows)]
    lines = [[line[place] for place in filled] for line in (heads, ["---"] * len(heads), *rows)]
    head, rule, *body = ["|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines]
    return [head, rule.replace(" ", ""), *body]


def _time(seconds: float, like: float | None = None) -> str:
    """In the unit that suits `like` seconds, or itself: 291 µs, 22.42 ms, 1.27 s."""
    size = like or seconds
    if size >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.2f} ms" if size >= 1e-3 else f"{1e6 * seconds:.0f} µs"


def _seconds(entry: Entry | None) -> float:
    return (entry.median if entry else None) or float("inf")


def _best(case: Case) -> str:
    """The fastest of PyTorch's ways in float32."""
    ways = [name for name in case.entries if name.startswith("torch") and "bf16" not in name]
    return min(ways, key=lambda name: _seconds(case.entries[name]))


def _cell(case: Case, name: str, over: str = "", like: float | None = None) -> str:
    """Time of a contender, and its ratio over another; nothing where it did not take part."""
    entry = case.entries.get(name)
    if entry is None or entry.median is None:
        return ""
    found = ratio(entry, case.entries[over], over) if over else None
    return _time(entry.median, like) + (f" ({found[0]:.2f}×)" if found else "")


def _nets(section: Section, labels: Mapping[str, str], *more: str) -> list[list[str]]:
    """A row a net: PyTorch's ways, JAX, ours over the fastest in float32 of PyTorch's, and `more` of the contenders."""
    rows = []
    for name, label in labels.items():
        case = section.cases[name]
        best = _best(case)
        like = _seconds(case.entries[best])
        names = [*WAYS, "jax", *OURS, *more]
        rows.append([label, *(_cell(case, who, best if who in OURS else "", like) for who in names)])
    return rows


def _label(case: train.Case) -> str:
    return f"{'-'.join(map(str, case.notes['widths']))}, batch {case.batch}"


def training(sections: Sections) -> list[str]:
    """A step of each dense net."""
    labels = {name: _label(case) for name, case in train.CASES.items()}
    heads = ["one Adam step", *WAYS.values(), "JAX", *OURS.values(), "matrix products alone"]
    return _table(heads, _nets(sections["train"], labels, "products"))


def epochs(sections: Sections) -> list[str]:
    """An epoch of some of them: of ours all that `fit` does."""
    labels = {name: _label(case) for name, case in train.EPOCHS.items()}
    return _table(["one epoch", *WAYS.values(), "JAX", *OURS.values()], _nets(sections["epoch"], labels))


def others(sections: Sections) -> list[str]:
    """Factored training, convolution and whole runs beside the better of PyTorch's ways."""
    rows = []
    for name, label in LOWRANK.items():
        rows.append(
            _beside_best(label.format(*sections["lowrank"].cases[name].notes["ranks"]), sections["lowrank"], name)
        )
    rows += [_beside_best(label, sections["conv"], name) for name, label in CONV.items()]
    for section in sections.values():
        if row := section.notes.get("row"):  # its own name in this table
            rows.append(_beside_best(row, section, row))
    return _table(["", "PyTorch float32", WAYS["torch bf16"], *OURS.values()], rows)


def _beside_best(label: str, section: Section, name: str) -> list[str]:
    case = section.cases[name]
    best = _best(case)
    like = _seconds(case.entries[best])
    ours = [_cell(case, who, best, like) for who in OURS]
    return [label, _time(like), _cell(case, "torch bf16", like=like), *ours]


def rivals(sections: Sections) -> list[str]:
    """The leading triples beside everybody who computes them, with the errors of each."""
    rows = []
    for name, label in FAIR.items():
        entries = sections["svd"].cases[name].entries
        for who, entry in entries.items():
            if entry.role == "floor" or entry.median is None or who == "gpunet, uint8":
                continue
            ours = "gpunet, one side" if "covariance" in who and "gpunet, one side" in entries else "gpunet"
            times = "" if entry.role == "ours" else _ratio(entry.median / _seconds(entries[ours]))
            errors = [_small(entry.notes.get(what)) for what in ("sigma", "angle", "energy_missed")]
            rows.append([label, who, f"{entry.median:.2f} s", times, *errors])
            label = ""
    return _table(["", "", "time", "over gpunet", "error in σ / σ₁", "angle, rad", "energy missed"], rows)


def _small(value: float | None) -> str:
    return "" if value is None else f"{max(value, 0.0):.0e}"


def _ratio(value: float) -> str:
    return f"{value:.2f}×" if value < 2 else f"{value:.1f}×"


def decompositions(sections: Sections) -> list[str]:
    """Whole decompositions and stacks beside the call that does the same."""
    rows = []
    for name, label in WHOLE.items():
        entries = sections["svd"].cases[name].entries
        ours = _seconds(entries["gpunet"])
        rival = next(who for who, entry in entries.items() if entry.role == "rival" and entry.median)
        theirs = _seconds(entries[rival])
        rows.append([label, f"{ours:.2f} s", f"{rival} {theirs:.2f} s", _ratio(theirs / ours)])
    return _table(["", "gpunet", "rival", ""], rows)


TABLES: dict[str, Callable[[Sections], list[str]]] = {
    "training": training, "epochs": epochs, "others": others, "rivals": rivals, "decompositions": decompositions,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Make the tables anew; 0, 1 where README differs with --check, 2 where they cannot be made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where README differs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        text = options.readme.read_text()
        made = rewritten(text, lambda machine: read_sections(ROOT / "benchmarks" / "results" / f"{machine}.json"))
    except (InputError, OSError) as error:
        print(f"readme: {error}", file=sys.stderr)
        return 2
    if options.check and made != text:
        print(f"readme: '{options.readme}' differs from benchmarks/results; run python -m gpunet.bench.readme")
        return 1
    if made != text:
        write_atomically(options.readme, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
