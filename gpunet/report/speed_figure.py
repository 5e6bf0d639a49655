"""README's picture: who computes leading singular triples how fast and how well, and a training step beside PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpunet.bench.results import Case, Section
from gpunet.report.style import COLOURS, MARKS, figure

OURS, THEIRS = COLOURS[2], COLOURS[0]
BESIDE = {"sklearn randomized_svd": (6, -13)}  # points, of a label that another one would touch
AUTOCAST = "autocast"  # the fastest of PyTorch's ways under it
STEPS = {  # contender of a training step: (its name, its colour, its mark)
    AUTOCAST: ("PyTorch, autocast to bfloat16", THEIRS, "o"), "jax": ("JAX", THEIRS, "^"),
    "numpy": ("gpunet, plain NumPy", OURS, "s"), "numba": ("gpunet with numba", OURS, "D"),
    "numba mixed": ("the same in mixed precision", OURS, "*"),
}  # fmt: skip


def draw(sections: Mapping[str, Section], triples: str, nets: Mapping[str, str], path: Path) -> None:
    """Write `path`. triples: the case of the left panel; nets: {case: its label}, the rows of the right one."""
    with figure(path, 2, width=7.2, height=4.3) as (left, right):
        _triples(left, sections["svd"].cases[triples], triples)
        _steps(right, {label: sections["train"].cases[case] for case, label in nets.items()})


def _triples(axes: Any, case: Case, label: str) -> None:
    beside = iter([(7, -4), (-6, -15), (7, -4)])  # of ours, which lie close
    for who, entry in case.entries.items():
        if entry.median and "angle" in entry.notes and who != "gpunet, uint8":
            ours = entry.role == "ours"
            axes.plot(entry.median, entry.notes["angle"], MARKS[4 if ours else 0], color=OURS if ours else THEIRS)
            axes.annotate(
                who, (entry.median, entry.notes["angle"]), next(beside) if ours else BESIDE.get(who, (6, 5)),
                textcoords="offset points", fontsize=8.5, color=OURS if ours else "#333333",
                fontweight="bold" if ours else "normal",
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="largest angle to the right subspace, rad")
    axes.set(title=f"Singular triples, {label}: fast, and right?", xlim=(0.12, 40), ylim=(5e-9, 20))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _steps(axes: Any, cases: Mapping[str, Case]) -> None:
    axes.axvline(1, color="#888888", linewidth=1)
    for who, (label, colour, mark) in STEPS.items():
        rows = []
        for place, case in enumerate(cases.values()):
            own, torch = case.entries.get(_named(who, case)), case.entries[case.fastest_of_torch()]
            if own and own.median and torch.median:
                rows.append((own.median / torch.median, place))
        axes.plot(
            [over for over, _ in rows], [place for _, place in rows], mark,
            color=colour, label=label, markerfacecolor=colour if who in ("jax", "numba", "numba mixed") else "white",
            markersize=10 if mark == "*" else None,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="time of a training step / PyTorch's in float32", ylim=(len(cases) - 0.4, -0.6))
    axes.set(title="A training step: left is faster")
    axes.set_xticks([0.03, 0.1, 0.3, 1], ["0.03×", "0.1×", "0.3×", "1×"], minor=False)
    axes.set_yticks(range(len(cases)), list(cases))
    axes.grid(axis="y", visible=False)
    axes.figure.legend(loc="outside lower right", ncols=5)


def _named(who: str, case: Case) -> str:
    return case.fastest_of_torch(mixed=True) if who == AUTOCAST else who
