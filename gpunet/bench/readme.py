"""Tables and picture of speed in README and docs/, made from what is recorded: `python -m gpunet.bench.readme`.

A table stands between `<!-- speed:begin TABLE MACHINE -->` and `<!-- speed:end -->`, where TABLE is one of TABLES and
MACHINE names a file of benchmarks/results; the picture is of DRAWN. With --check no page is written; the exit code is 1
where one differs.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gpunet.bench import train
from gpunet.bench.gpu import BATCHES
from gpunet.bench.results import Case, Entry, Section, ratio, read_sections
from gpunet.errors import InputError
from gpunet.files import write_atomically

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "speed.md")
PICTURE, DRAWN = ROOT / "docs" / "speed.png", "epyc-2-cores"
BLOCK = re.compile(r"(?P<begin>^<!-- speed:begin (?P<table>\S+) (?P<machine>\S+) -->\n)(?P<body>.*?)(?P<end>^<!-- "
                   r"speed:end -->$)", re.MULTILINE | re.DOTALL)  # fmt: skip
Sections = Mapping[str, Section]
BEST, BEST_MIXED = "the fastest", "the fastest bf16"  # of PyTorch's ways in float32, and under autocast
OURS = {"numpy": "plain NumPy", "numba": "with numba", "numba mixed": "mixed precision"}
# PyTorch's ways, as columns; ours are over the fastest of those in float32, mixed precision over those under autocast.
WAYS = {
    "torch": "PyTorch", "torch flushed": "its denormals flushed", "torch one thread": "and on one thread",
    "torch bf16": "autocast to bfloat16", "torch bf16 one thread": "and on one thread",
}  # fmt: skip
EVERYBODY = WAYS | {"jax": "JAX"} | OURS
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
RECORDED = {"eager": "operation by operation", "graph": "recorded", "graph mixed": "in mixed precision"}  # ours, there
SHORT = 0.1  # seconds below which a decomposition's are told in a smaller unit
FAIR = ("top 100 of 784×60000", "4096×4096 to rank 256")
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


def _row(label: str, case: Case, *names: str) -> list[str]:
    """Times of these contenders; ours also over the fastest of PyTorch's ways, in float32 or mixed as they are."""
    best = {each: case.fastest_of_torch(mixed=each == BEST_MIXED) for each in (BEST, BEST_MIXED)}
    like = _seconds(case.entries.get(best[BEST]))
    cells = []
    for name in names:
        entry = case.entries.get(best.get(name, name))
        rival = best[BEST_MIXED if "mixed" in name else BEST]
        over = ratio(entry, case.entries[rival], rival) if entry and rival and name in OURS else None
        told = f" ({over[0]:.2f}×)" if over else ""
        cells.append(_time(entry.median, like) + told if entry and entry.median else "")  # nothing of who took no part
    return [label, *cells]


def _label(case: train.Case) -> str:
    return f"{'-'.join(map(str, case.notes['widths']))}, batch {case.batch}"


def dense(question: str, names: Mapping[str, str], sections: Sections) -> list[str]:
    """A step of each dense net, or an epoch of some of them: of ours all that `fit` does."""
    cases = {"train": train.CASES, "epoch": train.EPOCHS}[question]
    rows = [_row(_label(case), sections[question].cases[name], *names) for name, case in cases.items()]
    return _table([f"one {'epoch' if question == 'epoch' else 'Adam step'}", *names.values()], rows)


def steps_on_a_gpu(sections: Sections) -> list[str]:
    """A row for each rival in each net's batches: ours as timed in turn with it, and over it."""
    rows, nobody = [], Section({})
    for batch, race in itertools.product(BATCHES, ("train", "compile", "mixed", "mixed-compile", "jax")):
        name, label = f"gpu {race}-{batch}", f"{'-'.join(map(str, train.NET))}, batch {batch}"
        for case in (sections[name] if race == "train" else sections.get(name, nobody)).cases.values():
            for who, rival in case.entries.items():
                if rival.role == "rival" and rival.median:
                    fair = [each if ("mixed" in each) == ("bf16" in who) else "" for each in RECORDED]
                    ours = [_over(case.entries.get(each), rival, who) for each in fair]
                    rows.append([label, who, _time(rival.median), *ours])
    return _table(["one Adam step", "", "", *RECORDED.values()], rows)


def _over(own: Entry | None, rival: Entry, who: str) -> str:
    over = ratio(own, rival, who) if own else None
    return f"{_time(own.median, rival.median)} ({over[0]:.2f}×)" if own and own.median and over else ""


def others(sections: Sections) -> list[str]:
    """Factored training, convolution and whole runs beside the better of PyTorch's ways."""
    lowrank, conv = sections["lowrank"].cases, sections["conv"].cases
    cases = [(label.format(*lowrank[name].notes["ranks"]), lowrank[name]) for name, label in LOWRANK.items()]
    cases += [(label, conv[name]) for name, label in CONV.items()]
    rows = [each for each in sections.values() if "row" in each.notes]  # with their own names in this table
    cases += [(each.notes["row"], each.cases[each.notes["row"]]) for each in rows]
    names = (BEST, BEST_MIXED, *OURS)
    return _table(["", "PyTorch", WAYS["torch bf16"], *OURS.values()], [_row(*case, *names) for case in cases])


def _decomposed(sections: Sections) -> Mapping[str, Case]:
    """The cases of decompositions, of which each has its own section where a GPU was checked."""
    own = [each.cases for name, each in sections.items() if re.fullmatch(r"gpu svd-[^-]+", name)]
    return {label: case for cases in own for label, case in cases.items()} if own else sections["svd"].cases


def rivals(sections: Sections) -> list[str]:
    """The leading triples beside everybody who computes them, with the errors of each."""
    rows = []
    for label in FAIR:
        entries = _decomposed(sections)[label].entries
        for who, entry in entries.items():
            if entry.role == "floor" or entry.median is None or who == "gpunet, uint8":
                continue
            ours = "gpunet, one side" if "covariance" in who and "gpunet, one side" in entries else "gpunet"
            times = "" if entry.role == "ours" else _ratio(entry.median / _seconds(entries[ours]))
            errors = [_small(entry.notes.get(what)) for what in ("sigma", "angle", "energy_missed")]
            rows.append([label, who, _seconds_of(entry.median), times, *errors])
            label = ""
    return _table(["", "", "time", "over gpunet", "error in σ / σ₁", "angle, rad", "energy missed"], rows)


def _small(value: float | None) -> str:
    return "" if value is None else f"{max(value, 0.0):.0e}"


def _ratio(value: float) -> str:
    return f"{value:.2f}×" if value < 2 else f"{value:.1f}×"


def triples(sections: Sections) -> list[str]:
    """The same in short: of each time and angle."""
    both = [_decomposed(sections)[label].entries for label in FAIR]
    rows = []
    for who, entry in both[0].items():
        if entry.role != "floor" and entry.median is not None and who != "gpunet, uint8":
            cells = [(case[who].median, case[who].notes.get("angle")) if who in case else (None, None) for case in both]
            rows.append([who, *(cell for seconds, angle in cells for cell in (_seconds_of(seconds), _small(angle)))])
    return _table(["", *(cell for label in FAIR for cell in (label, "angle, rad"))], rows)


def _seconds_of(median: float | None) -> str:
    return "" if median is None else f"{median:.2f} s" if median >= SHORT else _time(median)


def decompositions(sections: Sections) -> list[str]:
    """Whole decompositions and stacks beside the call that does the same."""
    rows = []
    for name, label in WHOLE.items():
        entries = _decomposed(sections)[name].entries
        ours = _seconds(entries["gpunet"])
        rival = next(who for who, entry in entries.items() if entry.role == "rival" and entry.median)
        theirs = _seconds(entries[rival])
        rows.append([label, _seconds_of(ours), f"{rival} {_seconds_of(theirs)}", _ratio(theirs / ours)])
    return _table(["", "gpunet", "rival", ""], rows)


TABLES: dict[str, Callable[[Sections], list[str]]] = {
    "training": partial(dense, "train", EVERYBODY | {"products": "matrix products alone"}),
    "steps": partial(dense, "train", {BEST: "PyTorch", BEST_MIXED: "its autocast to bfloat16", "jax": "JAX"} | OURS),
    "epochs": partial(dense, "epoch", EVERYBODY),
    "gpu-steps": steps_on_a_gpu,
    "others": others, "rivals": rivals, "triples": triples, "decompositions": decompositions,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Make the tables anew; 0, 1 where a page differs with --check, 2 where they cannot be made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page differs")
    parser.add_argument("--picture", action="store_true", help="draw docs/speed.png as well")
    parser.add_argument(
        "pages", nargs="*", type=Path, default=PAGES, metavar="PAGE", help="by default README's and docs/'"
    )
    options = parser.parse_args(arguments)
    differing = []
    try:
        for page in options.pages:
            text = page.read_text()
            made = rewritten(text, _recorded)
            if made != text:
                differing.append(page)
                if not options.check:
                    write_atomically(page, made)
        if options.picture:
            from gpunet.report import speed_figure

            nets = {
                name: f"{'-'.join(map(str, case.notes['widths']))}\nbatch {case.batch}"
                for name, case in train.CASES.items()
            }
            speed_figure.draw(_recorded(DRAWN), FAIR[0], nets, PICTURE)
    except (InputError, OSError) as error:
        print(f"readme: {error}", file=sys.stderr)
        return 2
    if options.check and differing:
        for page in differing:
            print(f"readme: '{page}' differs from benchmarks/results; run python -m gpunet.bench.readme")
        return 1
    return 0


def _recorded(machine: str) -> Sections:
    return read_sections(ROOT / "benchmarks" / "results" / f"{machine}.json")


if __name__ == "__main__":
    sys.exit(main())
