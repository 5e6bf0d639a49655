"""Folders to make a page of, and the page taken apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from gpunet.datasets import load
from gpunet.experiments import experiment
from gpunet.experiments.framework import Run
from gpunet.experiments.result import Metric, Result, Row
from gpunet.report.claims_json import Entry

from ..experiments.made import dataset

VOID = {"meta", "img", "source", "input", "br", "hr", "link"}


def of(name: str, data: Any, seeds: int = 2, **settings: Any) -> Result:
    x = experiment(name)
    return Run(x, data, x.Settings(**settings), list(range(seeds))).compute("numpy")


def svd_init(name: str = "mnist", seeds: int = 2) -> Result:
    """A run on a few made points; named as the document's data and settings are, every claim gets a verdict."""
    result = of("svd-init", dataset(name), seeds, epochs=2, hidden=6, batch_size=20)
    result.settings |= {"epochs": 5, "hidden": 100}
    for times in result.timings.values():  # of a busy machine they may differ so much that a claim is not tested
        times |= {name: [0.02] * len(each) for name, each in times.items()}
    return result


def toy() -> Result:
    return of("toy", [load("xor-easy")], limit=30, learning_rates=(0.8,))


def made(experiment: str = "mine", **changes: Any) -> Result:
    """A result of an experiment that the page knows nothing of: no figures are drawn, which takes time."""
    parts: dict[str, Any] = {
        "dataset": "points", "device": "cpu", "settings": {"epochs": 3}, "seeds": [0, 1],
        "rows": [Row("first", {"test_accuracy": Metric([0.5, 0.75]), "loss": Metric([1.25, 1.75])})],
        "notes": {"svd": {"whole": {"route": "gram", "residual": 1e-06}}},
        "timings": {"first": {"epoch": [0.25, 0.75]}, "second": {"epoch": [0.125, 0.375]}},
        "provenance": {"gpunet": "0", "cpu": "a processor", "started": "2026-01-02T03:04:05+00:00", "seconds": 65.0},
    }  # fmt: skip
    return Result(experiment=experiment, **{**parts, **changes})


def write(folder: Path, **runs: Result | tuple[str, str, str]) -> Path:
    """What `gpunet reproduce` leaves: a folder for each result; of the others the experiment, state and reason."""
    for name, held in runs.items():
        if isinstance(held, Result):
            (folder / name).mkdir(parents=True)
            held.write(folder / name)
    (folder / "claims.json").write_text(json.dumps(claims_json(**runs)))
    return folder


def claims_json(**runs: Result | tuple[str, str, str]) -> dict[str, Any]:
    """What is read of the claims.json of such a folder."""
    entries = []
    for name, held in runs.items():
        if isinstance(held, Result):
            entry = Entry(
                name, held.experiment, "a document", "finished", None, held.dataset, held.device, held.seeds,
                held.settings, "0" * 16, {}, "2026-01-02T03:04:05+00:00", 65.0, 2, [], f"{name}/result.json", "0" * 64,
            )  # fmt: skip
        else:
            experiment, state, reason = held
            entry = Entry(name, experiment, "a document", state, reason or None)  # type: ignore[arg-type]
        entries.append(asdict(entry))
    return {"schema": 2, "quick": True, "updated": "2026-01-02T03:04:05+00:00", "runs": entries}


class Walk(HTMLParser):
    """A page's elements as (tag, attributes) in order; `problems` has what is not closed as it was opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.problems: list[str] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len({name for name, _ in attrs}) < len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        """What is read: neither style sheet nor script."""
        return " ".join(" ".join(said for place, said in self.texts if not {"style", "script"} & {*place}).split())
