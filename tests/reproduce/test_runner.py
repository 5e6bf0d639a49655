"""Runs one after the other: kept, repeated, skipped, failed; `claims.json` after each, its verdicts judged anew."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpunet import datasets
from gpunet.errors import DivergedError, FetchError, InputError, OutputError
from gpunet.experiments import experiment
from gpunet.experiments.framework import Experiment, Job
from gpunet.experiments.result import Result
from gpunet.files import alone
from gpunet.report.style import figure
from gpunet.reproduce import runner
from gpunet.reproduce.runner import Reproduction, Request, reproduce

from ..datasets.idx_writer import small_arrays, write_folder
from ..hostile.disk import filled
from . import paper
from .paper import claims as judging
from .small import NAMES, use_page, use_small

DOCUMENT = ["schema", "gpunet", "quick", "updated", "complete", "counts", "here", "runs", "claims"]
CLAIM = [
    "experiment", "document", "run", "id", "statement", "where", "claimed", "measured", "verdict", "note", "here",
]  # fmt: skip


def on(x: Experiment, *jobs: Job) -> Experiment:
    """The same with other quick jobs."""
    made = copy.copy(x)
    made.quick = list(jobs)
    return made


CATS = on(paper.x, Job(("cats",), 1, of={"task": "far"}))
MNIST = on(paper.x, Job(("mnist",), 1, of={"task": "far"}))


def counts(reproduced=0, exceeded=0, missed=0, inconclusive=0, untested=0) -> dict[str, int]:
    return {
        "reproduced": reproduced, "exceeded": exceeded, "not reproduced": missed, "inconclusive": inconclusive,
        "not tested": untested,
    }  # fmt: skip


@pytest.fixture
def go(tmp_path):
    def run(**changes: Any) -> Reproduction:
        return reproduce(Request(tmp_path / "out", **({"quick": True, "device": "numpy"} | changes)))

    return run


@pytest.fixture
def claims(tmp_path):
    return lambda: json.loads((tmp_path / "out" / "claims.json").read_text())


def states(document: dict[str, Any]) -> dict[str, str]:
    return {run["name"]: run["state"] for run in document["runs"]}


def test_all_claims_of_all_runs(go, claims, pretended, tmp_path):
    outcome = go()
    assert outcome.problems == []
    assert outcome.page == tmp_path / "out" / "report.html"
    made = claims()
    assert list(made) == DOCUMENT
    assert made == outcome.file.document() | {"updated": made["updated"]}
    assert (made["schema"], made["quick"], made["complete"]) == (2, True, True)
    assert made["counts"] == counts(reproduced=4, untested=4)
    assert made["here"] == counts(reproduced=1)
    assert [run["name"] for run in made["runs"]] == pretended.ran == NAMES
    assert [(claim["run"], claim["id"]) for claim in made["claims"]] == [
        (name, claim) for name in NAMES for claim in ("accuracy", "falls", "size")
    ]
    assert all(list(claim) == CLAIM for claim in made["claims"])
    first = made["runs"][0]
    assert (first["experiment"], first["document"]) == ("line", "900: A. Author, Lines (for tests)")
    assert (first["state"], first["reason"], first["dataset"], first["seeds"]) == ("finished", None, "xor", [0])
    assert (first["result"], first["figures"]) == ("line-near/result.json", ["figure.png"])
    assert (first["started"], first["seconds"], first["pieces"]) == ("2026-01-02T03:04:05+00:00", 1.5, 2)
    assert (first["counts"], first["here"]) == (counts(reproduced=2, untested=1), counts())
    assert len({run["digest"] for run in made["runs"]}) == 3
    path = tmp_path / "out" / first["result"]
    assert json.loads(path.read_text())["settings"] == first["settings"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first["sha256"]


def test_claims_on_other_data_are_apart(go, claims, pretended):
    go()
    made = claims()
    number, ordering, size = (claim for claim in made["claims"] if claim["run"] == "line-far")
    assert (number["verdict"], number["here"]) == ("not tested", False)
    assert number["note"] == "not applicable: the document speaks of xor"
    assert (ordering["verdict"], ordering["here"], ordering["claimed"]) == ("reproduced", True, "falls")
    assert ordering["measured"] == "2.000 to 1.500"
    assert (size["measured"], size["note"]) == (None, "not measured")
    assert (made["runs"][1]["counts"], made["runs"][1]["here"]) == (counts(untested=2), counts(reproduced=1))


def test_a_statement_names_the_runs_own_settings(go, claims, pretended):
    go()
    said = [claim["statement"] for claim in claims()["claims"] if claim["id"] == "accuracy"]
    assert said == [f"it reaches 75 % in {count} epochs" for count in (1, 2, 3)]


# -- verdicts are judged anew -----------------------------------------------------------------------------------------


def test_another_tolerance_judges_what_is_kept_and_runs_nothing(go, claims, pretended, monkeypatch):
    go(seeds=2)
    before = claims()
    monkeypatch.setattr(judging, "MARGIN", 0.0)
    go(seeds=2)
    after = claims()
    assert pretended.ran == NAMES
    assert before["counts"] == counts(reproduced=4, untested=4)
    assert after["counts"] == counts(reproduced=2, missed=2, untested=4)
    assert [run["counts"]["not reproduced"] for run in after["runs"]] == [1, 0, 1]
    assert after["claims"][0]["note"] == "margin 0.0"
    kept = ("digest", "asked", "sha256", "started", "provenance", "figures")
    for old, new in zip(before["runs"], after["runs"], strict=True):
        assert {key: old[key] for key in kept} == {key: new[key] for key in kept}


def test_verdicts_that_stand_in_the_file_are_not_believed(go, claims, pretended, tmp_path):
    go()
    before = claims()
    path = tmp_path / "out" / "claims.json"
    edited = before | {"claims": [], "counts": {}}
    for run in edited["runs"]:
        run["counts"] = "many"
    path.write_text(json.dumps(edited))
    go()
    again = claims()
    assert (again["counts"], len(again["claims"])) == (counts(reproduced=4, untested=4), 9)
    assert again["runs"][0]["counts"] == counts(reproduced=2, untested=1)
    assert pretended.ran == NAMES


def test_a_mistake_in_what_judges_loses_no_run(go, claims, pretended, monkeypatch):
    go(only=("line-near",))
    declared = paper.stack._claims[0]
    wrong = replace(declared, test=lambda result: result.rows[7])
    monkeypatch.setattr(paper.stack, "_claims", [wrong, *paper.stack._claims[1:]])
    outcome = go()
    assert outcome.problems == [
        "claims of stack were not judged: unexpected IndexError: list index out of range",
    ]
    assert list(states(claims()).values()) == ["finished"] * 3
    assert claims()["runs"][2]["counts"] == counts()
    assert [claim["run"] for claim in claims()["claims"]] == [NAMES[0]] * 3 + [NAMES[1]] * 3
    monkeypatch.setattr(paper.stack, "_claims", [declared, *paper.stack._claims[1:]])
    assert go().problems == []
    assert pretended.ran == NAMES
    assert len(claims()["claims"]) == 9


def test_a_number_that_is_none_is_null(go, claims, pretended, monkeypatch):
    monkeypatch.setattr(Result, "mean", lambda *_: float("nan"))
    go(only=("line-near",))
    assert (claims()["claims"][0]["measured"], claims()["claims"][0]["verdict"]) == (None, "not reproduced")


def test_our_own_experiment_is_judged_as_well(go, claims, pretended, monkeypatch):
    use_small(monkeypatch, experiment("svd-init"))
    go()
    made = claims()
    assert list(states(made)) == ["svd-init-digits"]
    assert made["runs"][0]["counts"] == counts(untested=len(made["claims"]))
    assert len({claim["id"] for claim in made["claims"]}) == len(made["claims"]) > 20


# -- kept, repeated, skipped, failed ----------------------------------------------------------------------------------


def test_what_is_finished_is_kept(go, claims, pretended):
    go()
    before = claims()
    go()
    assert pretended.ran == NAMES
    assert claims() == before | {"updated": claims()["updated"]}


def test_claims_are_there_before_figures_which_are_drawn_later_if_need_be(go, claims, pretended, monkeypatch, tmp_path):
    def stop() -> None:
        assert claims()["runs"][0]["state"] == "finished"
        raise KeyboardInterrupt

    def draw(x: Experiment, result: Result, folder: Path) -> None:
        assert (x, result.experiment, result.settings) == (paper.x, "line", {"epochs": 1})
        with figure(folder / "late.png"):
            pass

    monkeypatch.setattr(Experiment, "draw", draw)
    pretended.hooks["line-near figures"] = stop
    with pytest.raises(KeyboardInterrupt):
        go()
    assert claims()["runs"][0]["figures"] == []
    go()
    assert pretended.ran == NAMES
    assert [run["figures"] for run in claims()["runs"]] == [["late.png"], ["figure.png"], ["figure.png"]]


def test_fresh_repeats_all_that_is_chosen(go, claims, pretended):
    go()
    go(fresh=True)
    assert pretended.ran == NAMES * 2
    go(fresh=True, only=("stack",))
    assert pretended.ran == [*NAMES, *NAMES, "stack"]
    assert claims()["complete"]


def test_changed_settings_repeat_exactly_that_run(go, pretended, monkeypatch):
    go()
    use_small(monkeypatch, paper.x, on(paper.stack, replace(paper.stack.quick[0], settings={"epochs": 6})))
    go()
    assert pretended.ran == [*NAMES, "stack"]


def test_changed_seeds_repeat_all_but_those_that_train_together(go, pretended):
    go()
    go(seeds=2)
    assert pretended.ran == [*NAMES, *NAMES[:2]]


def test_another_device_and_other_code_repeat_all(go, pretended, monkeypatch):
    go()
    pytest.importorskip("numba")
    go(device="cpu")
    assert pretended.ran == NAMES * 2
    monkeypatch.setattr("gpunet.reproduce.plan.code", lambda package: "another")
    go(device="cpu")
    assert pretended.ran == NAMES * 3


def test_changed_data_repeat_the_run(go, pretended, monkeypatch, tmp_path):
    folder = tmp_path / "data" / "mnist"
    write_folder(folder, small_arrays(), ".gz")
    use_small(monkeypatch, MNIST, paper.stack)
    go()
    go()
    assert pretended.ran == NAMES[1:]
    changed = small_arrays()
    changed["x_train"][0, 0] ^= 1
    write_folder(folder, changed, ".gz")
    go()
    assert pretended.ran == [*NAMES[1:], NAMES[1]]


@pytest.mark.parametrize("damage", ["result.json changed", "result.json gone", "figure gone"])
def test_files_that_are_not_what_was_written_repeat_the_run(go, pretended, tmp_path, damage):
    go()
    folder = tmp_path / "out" / "stack"
    if damage == "result.json changed":
        (folder / "result.json").write_text("{}")
    else:
        (folder / ("result.json" if damage == "result.json gone" else "figure.png")).unlink()
    go()
    assert pretended.ran == [*NAMES, "stack"]


@pytest.mark.parametrize("name", ["result.json", "figure.png"])
def test_what_lost_its_files_does_not_pass_for_finished(go, claims, pretended, tmp_path, name, capsys):
    go()
    (tmp_path / "out" / "stack" / name).unlink()
    go(only=("line",))
    assert list(states(claims()).values()) == ["finished", "finished", "waiting"]
    assert {claim["run"] for claim in claims()["claims"]} == {*NAMES[:2]}
    assert not claims()["complete"]
    assert pretended.ran == NAMES


def test_why_a_run_begins_again(tmp_path, go, pretended, capsys):
    go()
    (tmp_path / "out" / "stack" / "figure.png").unlink()
    reproduce(Request(tmp_path / "out", quick=True, device="numpy", seeds=2), progress=True)
    said = capsys.readouterr().err.splitlines()
    assert "line-near: begins again, seeds is [0, 1] here and [0] there; about" in said[0]
    assert "stack: begins again, its files changed; about" in said[4]


def test_only_some(go, claims, pretended):
    go(only=("line-far", "stack"))
    assert pretended.ran == NAMES[1:]
    assert states(claims()) == dict(zip(NAMES, ["waiting", "finished", "finished"], strict=True))
    assert not claims()["complete"]
    go()
    assert pretended.ran == [*NAMES[1:], NAMES[0]]
    assert [run["name"] for run in claims()["runs"]] == NAMES


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interruption_keeps_what_is_finished_and_goes_on(go, claims, pretended):
    pretended.hooks["line-far"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        go()
    assert states(claims()) == dict(zip(NAMES, ["finished", "waiting", "waiting"], strict=True))
    assert {claim["run"] for claim in claims()["claims"]} == {"line-near"}
    pretended.hooks.clear()
    go()
    assert pretended.ran == ["line-near", "line-far", "line-far", "stack"]


def test_an_interrupted_repetition_does_not_pass_for_the_old_result(go, claims, pretended):
    """The old result.json still lies there, but it may be of other settings."""
    go()
    pretended.hooks["line-far"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        go(fresh=True)
    assert states(claims()) == dict(zip(NAMES, ["finished", "waiting", "waiting"], strict=True))
    pretended.hooks.clear()
    go()
    assert pretended.ran == [*NAMES, *NAMES[:2], *NAMES[1:]]


@pytest.mark.parametrize(
    ("error", "reason", "traced"),
    [
        (DivergedError("the loss\nbecame NaN"), r"the loss\nbecame NaN", False),
        (ZeroDivisionError("a bug"), "unexpected ZeroDivisionError: a bug (traceback in", True),
        (MemoryError("too much"), "unexpected MemoryError: too much (traceback in", True),
    ],
    ids=["foreseen", "bug", "memory"],
)
def test_one_failure_does_not_lose_the_others(go, claims, pretended, tmp_path, error, reason, traced):
    def fail() -> None:
        raise error

    pretended.hooks["line-far"] = fail
    outcome = go()
    (problem,) = outcome.problems
    assert problem.startswith(f"line-far failed: {reason}")
    made = claims()
    assert states(made) == dict(zip(NAMES, ["finished", "failed", "finished"], strict=True))
    assert made["runs"][1]["reason"].startswith(reason)
    assert (made["runs"][1]["digest"], made["runs"][1]["figures"]) == (None, [])
    trace = tmp_path / "out" / "line-far" / "failure.txt"
    assert trace.exists() is traced
    assert not traced or "in fail" in trace.read_text()
    pretended.hooks.clear()
    assert go().problems == []
    assert pretended.ran == [*NAMES, "line-far"]
    assert not trace.exists()


def test_data_that_cannot_be_fetched_is_skipped(go, claims, pretended, monkeypatch):
    fetched = []

    def refuse(name, **_):
        fetched.append(name)
        raise FetchError("cats: no mirror delivered it: example.org says 404")

    monkeypatch.setattr(datasets, "fetch", refuse)
    use_small(monkeypatch, CATS, paper.stack)
    outcome = go()
    reason = "cats is missing and could not be fetched: cats: no mirror delivered it: example.org says 404"
    assert outcome.problems == [f"line-far skipped: {reason}"]
    assert states(claims()) == {"line-far": "skipped", "stack": "finished"}
    assert claims()["runs"][0]["reason"] == reason
    assert (fetched, pretended.ran) == (["cats"], ["stack"])


def test_missing_data_is_fetched_once(go, pretended, monkeypatch, tmp_path):
    fetched = []

    def deliver(name, **_):
        fetched.append(name)
        write_folder(tmp_path / "data" / name, small_arrays(), ".gz")

    monkeypatch.setattr(datasets, "fetch", deliver)
    use_small(monkeypatch, on(paper.x, *(Job(("mnist",), 1, of={"task": task}) for task in ("near", "far"))))
    assert go().problems == []
    assert (fetched, pretended.ran) == (["mnist"], NAMES[:2])


def test_a_finished_run_is_kept_when_its_data_has_gone(go, claims, pretended, monkeypatch, tmp_path):
    folder = write_folder(tmp_path / "data" / "mnist", small_arrays(), ".gz")
    use_small(monkeypatch, MNIST)
    go()
    folder.rename(tmp_path / "elsewhere")
    assert go().problems == []
    assert pretended.ran == ["line-far"]
    assert states(claims()) == {"line-far": "finished"}
    assert len(claims()["claims"]) == 3


def test_two_at_once(go, pretended, tmp_path):
    refused = []

    def second() -> None:
        with pytest.raises(OutputError, match=r"another `gpunet reproduce` is writing to '.*out': .* --out") as error:
            go()
        refused.append(str(error.value))

    pretended.hooks["line-far"] = second
    go()
    assert len(refused) == 1
    assert pretended.ran == NAMES
    with alone(tmp_path / "out"):
        pass  # it is free again


REFUSED = r"claims\.json is not what .* --out, or begin again in this one with --fresh"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 2, "quick": true, "runs": [{"name": "stack"}], "claims": []}', "\xff"]
)
def test_a_claims_json_that_is_not_ours(go, claims, pretended, tmp_path, content):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "claims.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(OutputError, match=REFUSED):
        go()
    assert path.read_bytes() == content.encode("latin-1")
    assert pretended.ran == []
    go(fresh=True)
    assert claims()["complete"]


@pytest.mark.parametrize(
    "change",
    [
        {"state": "done"}, {"name": "../stack"}, {"started": "yesterday"}, {"seconds": -1}, {"pieces": 1.5},
        {"figures": ["../loss.png"]}, {"result": "../result.json"}, {"result": "line-far/result.json"},
        {"asked": None}, {"sha256": None}, {"seeds": 3}, {"more": 1}, {"name": "line-far"}, {"name": ".."},
        {"state": "waiting"}, {"seconds": None}, {"device": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_entry_that_we_do_not_write(go, pretended, claims, tmp_path, change):
    go()
    made = claims()
    made["runs"][2] |= change
    (tmp_path / "out" / "claims.json").write_text(json.dumps(made))
    with pytest.raises(OutputError, match=REFUSED):
        go()
    assert pretended.ran == NAMES


def test_an_older_schema_is_refused_in_a_line(go, pretended, claims, tmp_path):
    go()
    made = claims() | {"schema": 1}
    for run in made["runs"]:
        del run["here"]
    (tmp_path / "out" / "claims.json").write_text(json.dumps(made))
    with pytest.raises(OutputError, match=REFUSED):
        go()
    go(fresh=True)
    assert claims()["schema"] == 2
    assert pretended.ran == NAMES * 2


def test_a_result_of_an_older_format_is_refused_in_a_line(go, pretended, claims, tmp_path):
    go()
    path = tmp_path / "out" / "line-far" / "result.json"
    old = json.loads(path.read_text()) | {"claims": []}
    del old["format"]
    path.write_text(json.dumps(old))
    made = claims()
    made["runs"][1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "out" / "claims.json").write_text(json.dumps(made))
    with pytest.raises(OutputError, match=r"line-far/result\.json' was written by an older gpunet.* with --fresh$"):
        go()
    go(fresh=True, only=("stack",))
    assert states(claims()) == dict(zip(NAMES, ["finished", "waiting", "finished"], strict=True))
    go()
    assert pretended.ran == [*NAMES, "stack", "line-far"]


def test_a_disk_that_fills_up_ends_it_and_all_is_kept(go, pretended, tmp_path, monkeypatch):
    """The result of the run, and what is known of those before; no further run is begun for nothing."""
    full, out = filled(monkeypatch), tmp_path / "out"
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    pretended.hooks[NAMES[1]] = lambda: full.append(out)
    outcome = go()
    assert pretended.ran == NAMES[:2]
    file = tmp_path / "out-kept" / "claims.json"
    result = tmp_path / "temporary" / f"{NAMES[1]}-kept" / "result.json"
    assert outcome.problems == [
        f"{NAMES[1]} failed: cannot write '{out / NAMES[1] / 'result.json'}': No space left on device; it is kept as "
        f"'{result}'",
        f"cannot write '{out / 'claims.json'}': No space left on device; it is kept as '{file}'",
    ]
    assert json.loads(result.read_text())["experiment"] == "line"
    kept = json.loads(file.read_text())
    assert (outcome.file.text, outcome.file.at) == (file.read_text(), file)
    assert list(states(kept).values()) == ["finished", "failed", "waiting"]
    full.clear()
    pretended.hooks.clear()
    assert go().problems == []
    assert pretended.ran == [*NAMES[:2], *NAMES[1:]]


def test_what_is_no_file_is_told_before_anything_is_run(go, pretended, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "claims.json").symlink_to(tmp_path / "precious")
    for fresh in (False, True):
        with pytest.raises(OutputError, match=r"claims\.json': a symbolic link to '.*precious' stands there"):
            go(fresh=fresh)
    assert (pretended.ran, (tmp_path / "precious").exists()) == ([], False)


def test_quick_and_full_do_not_mix(go, claims, pretended, monkeypatch):
    go()
    full = copy.copy(paper.stack)
    full.full = full.quick
    with pytest.raises(
        OutputError, match=r"holds a reproduction with --quick, this is one without --quick: .* --fresh"
    ):
        go(quick=False)
    assert pretended.ran == NAMES
    use_small(monkeypatch, full)
    go(quick=False, fresh=True)
    assert states(claims()) == {"stack": "finished"}


def test_mistakes_come_before_anything_is_written(go, pretended, tmp_path):
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        go(device="tpu")
    with pytest.raises(InputError, match="--only is 'mnist'"):
        go(only=("mnist",))
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_is_a_problem_like_others(go, claims, pretended, monkeypatch):
    def fail(folder):
        raise KeyError("colour")

    use_page(monkeypatch, fail)
    outcome = go()
    assert outcome.problems == ["report.html was not written: unexpected KeyError: 'colour'"]
    assert outcome.page is None
    assert claims()["complete"]


def test_a_report_of_an_earlier_run_is_gone_when_a_run_begins(go, pretended, monkeypatch, tmp_path):
    def fail(folder):
        raise KeyError("colour")

    page = tmp_path / "out" / "report.html"
    go()
    page.write_text("of these runs")
    use_page(monkeypatch, fail)
    go()  # keeps all runs
    assert page.exists(), "it shows what there is"
    go(fresh=True)
    assert not page.exists()


def test_what_the_run_before_took_is_what_the_next_is_expected_to_take(go, pretended, monkeypatch):
    go(seeds=2)
    expected = {}

    class Display(runner.Display):
        def __init__(self, found, *arguments):
            expected.update(found)
            super().__init__(found, *arguments)

    monkeypatch.setattr(runner, "Display", Display)
    go(seeds=4)
    assert expected == {"line-near": (3.0, 2), "line-far": (3.0, 2)}  # 1.5 s for two seeds; stack's are kept
    expected.clear()
    go(seeds=8, fresh=True, only=("line-far", "stack"))
    assert expected == {"line-far": (3.0, 2), "stack": (3.0, 2)}


def test_before_anything_was_run_it_is_what_the_jobs_say(go, pretended, monkeypatch):
    outcome = go(only=("stack",))
    outcome.file.set(outcome.runs[0])
    specs = {"stack": {"seeds": list(range(8))}}
    work = Reproduction(Request(Path(), seeds=8), outcome.file, outcome.runs, specs)
    assert work.expected == {"stack": (2.0, 2)}
