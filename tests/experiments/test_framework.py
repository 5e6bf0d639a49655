"""What experiments declare: found by looking, checked once, and named nowhere else."""

from __future__ import annotations

import importlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from gpunet.backend.blas import thread_rule
from gpunet.errors import DataError, InputError
from gpunet.experiments import experiment, experiments, framework
from gpunet.experiments.claims import Claim
from gpunet.experiments.framework import BANDS, Experiment, Figure, Job, Measured, Paper, option
from gpunet.experiments.result import Metric, Result, Row
from gpunet.report.table import Table

from .made import compute, dataset

ROOT = Path(__file__).parents[2]
PAPER = Paper("9", "A. Author", "A title", "paper", ("One.", "Two.", "Three."), ())
ORDINARY = ("toy", "patches")  # names that are words of English: they count where they cannot be that
every = pytest.mark.parametrize("name", experiments())


# -- what all of them declare -----------------------------------------------------------------------------------------


def test_they_are_in_the_order_of_their_papers():
    numbers = [x.paper.number for x in experiments().values()]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(numbers) >= 5


CHOSEN = sorted(path.parent.name for path in Path(framework.__file__).parent.glob("*/chosen.py"))


@pytest.mark.parametrize("name", CHOSEN)
def test_what_looks_at_settings_says_that_its_data_is_missing_in_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["chosen"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"gpunet.experiments.{name}.chosen").main()
    usage, told = capsys.readouterr().err.split("chosen: error: ")
    assert (end.value.code, usage.startswith("usage: "), told.count("\n")) == (2, True, 1)
    assert f"not in {tmp_path}" in told


def test_no_file_outside_its_folder_names_a_paper():
    """A sixth one is a folder: nothing else knows any of them by name."""
    spelt = {name: name.replace("-", "[-_]") for name in experiments()}
    known = "|".join(spelt.values())
    long = "|".join(spelt[name] for name in spelt if name not in ORDINARY)
    naming = re.compile(rf"\b({long})\b|[\"']({known})[\"']|(experiments[./]|run |sweep )({known})\b")
    folders = {x.package.rpartition(".")[2] for x in experiments().values()}
    found = []
    for top in ("gpunet", "cli", "datasets", "benchmarks"):
        for path in sorted((ROOT / top).rglob("*")):
            place = path.relative_to(ROOT)
            own = place.parts[:2] == ("gpunet", "experiments") and folders & {*place.parts[2:3]}
            if path.suffix in (".py", ".cu", ".cuh", ".html", ".css", ".js", ".sh") and not own:
                lines = path.read_text().splitlines()
                found += [f"{place}:{at}: {line.strip()}" for at, line in enumerate(lines, 1) if naming.search(line)]
    assert found == []


@every
def test_each_says_what_it_is(name):
    x = experiment(name)
    assert x.about != x.summary
    assert f"gpunet run {name}" in x.about
    assert len(x.paper.says) == 3
    assert x.paper.choices
    assert x.full
    assert x.quick


@every
def test_jobs_can_be_asked_for(name):
    x = experiment(name)
    for jobs, quick in ((x.full, False), (x.quick, True)):
        folders = []
        for job in jobs:
            usual = x.job(job.of, quick) is job  # others for the same settings are asked for by their data
            asked = x.asked(dict(job.of), quick=quick, dataset=None if usual else job.data[0])
            assert (asked.names, len(asked.seeds)) == (job.data, job.seeds)
            x.Settings(**{**job.of, **job.settings, **(job.also or {})})
            folders.append(asked.settings.label("+".join(job.data)))
        assert len(set(folders)) == len(folders)


@every
def test_every_setting_of_the_command_line_has_a_help_text_that_ends(name):
    offered = {setting: known for setting, known in experiment(name).Settings.options().items() if known.help}
    assert offered
    for setting, known in offered.items():
        assert known.help.endswith((".", ")")), setting


@every
def test_claims_tables_and_figures_are_declared(name):
    x = experiment(name)
    nothing = Result(name, x.full[0].data[0], "cpu", {}, [0])
    for part in ("body", "claims", "tables", "figures"):
        x._part(part)
    assert x._tables
    assert x._figures
    assert len({figure.stem for figure in x._figures}) == len(x._figures)
    assert len({(claim.id, claim.on) for claim in x._claims}) == len(x._claims)
    assert nothing.rows == []


def test_an_unknown_one_is_told_those_there_are():
    for wrong in ("nope", "", None, 3):
        with pytest.raises(InputError, match=r"unknown experiment .*: expected one of svd-init"):
            experiment(wrong)


# -- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Own(framework.Settings):
    task: Literal["easy", "hard"] = option("easy")
    epochs: int | None = option(None)
    layers: int = option(2, least=0)
    rate: float = option(0.5, above=0, most=1)
    rates: tuple[float, ...] = option((0.1,), above=0)
    fast: bool = option(False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "harder"}, "task is 'harder': expected one of easy, hard"),
        ({"epochs": 0}, "epochs is a whole number ≥ 1, got 0"),
        ({"epochs": 1.5}, "epochs is a whole number ≥ 1, got 1.5"),
        ({"epochs": 10**19}, "epochs is a whole number ≤ 1e+09, got 10000000000000000000"),
        ({"epochs": True}, "epochs is a whole number"),
        ({"layers": -1}, "layers is a whole number ≥ 0, got -1"),
        ({"layers": None}, "layers is a whole number"),
        ({"rate": 0.0}, "rate cannot be 0.0: expected a finite number > 0 and ≤ 1"),
        ({"rate": float("nan")}, "rate cannot be nan"),
        ({"rate": "much"}, "rate cannot be 'much'"),
        ({"rates": (0.1, -2.0)}, "rates cannot be -2.0: expected a finite number > 0"),
        ({"rates": (0.1, 0.2, 0.20000001)}, "rates is (0.1, 0.2, 0.20000001): expected values that differ within six"),
        ({"fast": "yes"}, "fast is 'yes': expected True or False"),
    ],
)
def test_settings_that_cannot_be(change, words):
    with pytest.raises(InputError, match=re.escape(words)):
        Own(**change)


def test_settings_that_can_be():
    Own("hard", None, 0, 1, (0.1, 3), True)


def own(**known) -> Experiment:
    jobs = {
        "full": [Job(("big",), 3, of={"task": "hard"}), Job(("small",), 5, of={"task": "easy"})],
        "quick": [
            Job(("tiny",), 1, of={"task": "easy"}, settings={"layers": 1}),
            Job(("big",), 1, of={"task": "hard"}),
        ],
    }
    return Experiment("mine", "a summary", PAPER, Own, **jobs, package=__name__, **known)


def test_a_run_is_asked_for_by_its_settings():
    x = own()
    usual = x.asked({})
    assert (usual.names, usual.seeds, usual.settings) == (("small",), [0, 1, 2, 3, 4], Own())
    hard = x.asked({"task": "hard", "epochs": None}, first=7, seeds=2)
    assert (hard.names, hard.seeds, hard.settings) == (("big",), [7, 8], Own("hard"))
    quick = x.asked({}, quick=True, dataset="x.npz")
    assert (quick.names, quick.seeds, quick.settings) == (("x.npz",), [0], Own(layers=1))
    assert x.asked({"layers": 3}, quick=True).settings == Own(layers=3)
    with pytest.raises(InputError, match="task is 'harder'"):
        x.asked({"task": "harder"})
    with pytest.raises(InputError, match=f"seeds begin at {2**70}: expected numbers below"):
        x.asked({}, first=2**70)


# -- a run ------------------------------------------------------------------------------------------------------------


def test_what_a_body_enters():
    x = own()
    x._part = lambda name: None

    @x.run
    def body(run):
        run.settings = replace(run.settings, epochs=9)
        run.each_seed("row", 1, lambda seed: Measured({"error": seed / 2}, {"cost": [seed, seed]}, {"epoch": 0.25}))
        run.note(ranks={"a": 1})
        run.note(ranks={"b": 2}, other="text")

    data = dataset()
    run = framework.Run(x, data, Own(), [3, 4])
    result = run.compute("numpy")
    assert result.rows == [Row("row", {"error": Metric([1.5, 2.0])})]
    assert result.curves == {"row": {"cost": [[3, 3], [4, 4]]}}
    assert result.timings == {"row": {"epoch": [0.25, 0.25]}}
    assert result.settings["epochs"] == 9
    assert (result.notes["ranks"], result.notes["other"]) == ({"a": 1, "b": 2}, "text")
    assert result.notes["blas_threads"] == thread_rule()
    assert run.settings == Own(), "what was asked stays, whatever a run makes of it"
    assert not hasattr(run, "result")


def test_a_caption_promises_no_bands_that_one_seed_cannot_have():
    figure = Figure("stem", "A caption.", "alt", lambda result, axes: None, spread=BANDS)
    assert figure.told(Result("mine", "own", "cpu", {}, [0])) == "A caption."
    assert figure.told(Result("mine", "own", "cpu", {}, [0, 1])) == f"A caption. {BANDS}"


def test_a_table_of_what_was_not_measured_is_left_out():
    x = own()
    x._part = lambda name: None
    x.table(lambda result: result.values("no", "metric"))
    kept = Table("a table", (), (("a row",),))
    x.table(lambda result: kept)
    x.table(lambda result: Table("of nothing", (), ()))
    x.table(lambda result: None)
    assert x.tables(Result("mine", "own", "cpu", {}, [0])) == [kept]


def test_claims_are_those_of_the_data_or_else_all():
    x = own()
    x._part = lambda name: None
    for on in ("big", "small"):
        x.claim(f"of-{on}", "a statement", "Table 1", 1.0, on=on)(lambda result: None)
    names = {data: [c.id for c in x.claims(Result("mine", data, "cpu", {}, [0]))] for data in ("big", "small", "my")}
    assert names == {"big": ["of-big"], "small": ["of-small"], "my": ["of-big", "of-small"]}
    assert all(isinstance(claim, Claim) and claim.number for claim in x._claims)


def test_a_claim_that_names_no_data_is_of_the_first_full_job():
    x = own()
    x.claim("first", "a statement", "Table 1", "better")(lambda result: None)
    assert [claim.on for claim in x._claims] == [("big",)]


# -- result.json ------------------------------------------------------------------------------------------------------


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = compute("svd-init", dataset(), [0, 1], epochs=1)
    read = Result.read(result.write(tmp_path))
    assert read.to_json() == json.loads((tmp_path / "result.json").read_text())
    assert read.rows == result.rows


def test_a_result_of_an_older_format_is_refused_in_a_line(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"experiment": "mine", "claims": [], "rows": []}))
    with pytest.raises(DataError, match=r"written by an older gpunet \(format 1, .*: run the experiment again"):
        Result.read(path)
    path.write_text(json.dumps({"format": 3}))
    with pytest.raises(DataError, match="its format is 3, this version reads 2"):
        Result.read(path)


def test_null_is_not_a_number(tmp_path):
    result = Result("mine", "own", "cpu", {"limit": None}, [0], notes={"share": math.nan})
    result.row("a").add(loss=math.inf)
    result.time("a", epoch=math.nan)
    read = Result.read(result.write(tmp_path))
    found = [*read.values("a", "loss"), *read.seconds("a", "epoch"), read.notes["share"]]
    assert list(map(math.isnan, found)) == [True] * 3
    assert read.settings == {"limit": None}


def test_what_a_damaged_result_lacks_is_told_with_its_place(tmp_path):
    path = tmp_path / "result.json"
    document = Result("mine", "own", "cpu", {}, [0]).to_json()
    for damage, told in (
        ({"rows": [{"name": "a"}]}, r"missing required field `metrics` - at `\$\.rows\[0\]`"),
        ({"rows": [{"name": "a", "metrics": {}}] * 3}, "the row 'a' stands in it 3 times"),
        ({"seeds": [3, -1]}, r"Expected `int` >= 0 - at `\$\.seeds\[1\]`"),
        ({"seeds": []}, r"Expected `array` of length >= 1 - at `\$\.seeds`"),
        ({"seeds": [3, 3]}, r"seeds \[3, 3\]: expected distinct ones"),
        (
            {"rows": [{"name": "a", "metrics": {"loss": {"values": [1, 2]}}}]},
            "2 values of 'loss' of 'a': expected one a",
        ),
        ({"timings": {"a": {"epoch": []}}}, r"Expected `array` of length >= 1 - at `\$\.timings"),
    ):
        path.write_text(json.dumps(document | damage))
        with pytest.raises(DataError, match=told):
            Result.read(path)
    path.write_text(json.dumps({name: value for name, value in document.items() if name != "curves"}))
    with pytest.raises(
        DataError, match=r"result\.json' is damaged, or of another .* \(it lacks 'curves'\): run it again"
    ):
        Result.read(path)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ("seeds", [-1]), ("seeds", ["0"]), ("rows", {"a": 1}), ("rows", [{"name": "a"}]), ("timings", {"a": [1.0]}),
        ("timings", {"a": {"b": ["1"]}}), ("notes", 3), ("curves", [1]), ("provenance", {"seconds": -1}),
        ("provenance", {"started": "yesterday"}), ("experiment", 3),
        ("rows", [{"name": "a", "metrics": {"b": {"values": []}}}]),
        ("rows", [{"name": "a", "metrics": {"b": {"values": [1e200]}}}]),
        ("rows", [{"name": "a", "metrics": {"b": {"values": [True]}}}]), ("rows", [{"name": "a", "metrics": {}}] * 2),
        ("seeds", [2**62]), ("seeds", [True]), ("timings", {"a": {"b": [1e200]}}), ("settings", None),
        ("provenance", {"peak_memory_bytes": "much"}), ("provenance", {"started": "9999-12-31T23:59:59-11:00"}),
    ],
)  # fmt: skip
def test_a_damaged_result_is_a_line(tmp_path, at, value):
    document = Result("mine", "own", "cpu", {}, [0]).to_json() | {at: value}
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="is damaged, or of another version of gpunet"):
        Result.read(tmp_path / "result.json")
