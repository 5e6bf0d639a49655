"""Runs one after the other: kept, repeated, skipped, failed; `claims.json` after each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpunet import datasets
from gpunet.errors import DivergedError, FetchError, InputError, OutputError
from gpunet.experiments.result import Result
from gpunet.experiments.work import Work
from gpunet.files import alone
from gpunet.reproduce import runner
from gpunet.reproduce.plan import Run
from gpunet.reproduce.runner import Outcome, Request, reproduce

from ..datasets.idx_writer import small_arrays, write_folder
from ..hostile.disk import filled
from .small import NAMES, TINY, png, use

DOCUMENT = ["schema", "gpunet", "quick", "updated", "complete", "counts", "runs", "claims"]
CLAIM = {
    "experiment", "document", "run", "id", "statement", "where", "claimed", "measured", "verdict", "note",
}  # fmt: skip


@pytest.fixture
def go(tmp_path):
    def run(**changes: Any) -> Outcome:
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
    assert made == outcome.book.document() | {"updated": made["updated"]}
    assert (made["schema"], made["quick"], made["complete"]) == (1, True, True)
    assert made["counts"] == {"reproduced": 3, "exceeded": 0, "not reproduced": 0, "not tested": 3}
    assert [run["name"] for run in made["runs"]] == pretended.ran == NAMES
    assert [(claim["run"], claim["id"]) for claim in made["claims"]] == [
        (name, claim) for name in NAMES for claim in ("speed", "size")
    ]
    assert all(set(claim) == CLAIM for claim in made["claims"])
    assert made["claims"][0]["document"].startswith("000: H. Gu")
    first = made["runs"][0]
    assert (first["state"], first["reason"], first["dataset"], first["seeds"]) == ("finished", None, "digits", [0])
    assert (first["result"], first["figures"]) == ("svd-init-digits/result.json", ["figure.png"])
    assert (first["started"], first["seconds"], first["pieces"]) == ("2026-01-02T03:04:05+00:00", 1.5, 2)
    assert len({run["digest"] for run in made["runs"]}) == 3
    assert json.loads((tmp_path / "out" / first["result"]).read_text())["settings"] == first["settings"]


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

    def draw(work: Work, result: Result, folder: Path) -> list[Path]:
        assert (work.experiment, result.settings) == ("svd-init", {"tries": 1})
        (folder / "late.png").write_bytes(png())
        return [folder / "late.png"]

    monkeypatch.setattr(Work, "draw", draw)
    pretended.hooks["svd-init-digits figures"] = stop
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
    go(fresh=True, only=("toy",))
    assert pretended.ran == [*NAMES, *NAMES, "toy"]
    assert claims()["complete"]


def test_changed_settings_repeat_exactly_that_run(go, pretended, monkeypatch):
    go()
    use([replace(run, settings={"limit": 6}) if run.name == "toy" else run for run in TINY], monkeypatch)
    go()
    assert pretended.ran == [*NAMES, "toy"]


def test_changed_seeds_repeat_all_but_toys_stack(go, pretended):
    go()
    go(seeds=2)
    assert pretended.ran == [*NAMES, "svd-init-digits", "svd-dnn-xor"]


def test_another_device_and_other_code_repeat_all(go, pretended, monkeypatch):
    go()
    pytest.importorskip("numba")
    go(device="cpu")
    assert pretended.ran == NAMES * 2
    monkeypatch.setattr("gpunet.reproduce.asked.code", lambda: "another")
    go(device="cpu")
    assert pretended.ran == NAMES * 3


def test_changed_data_repeat_the_run(go, pretended, monkeypatch, tmp_path):
    folder = tmp_path / "data" / "mnist"
    write_folder(folder, small_arrays(), ".gz")
    use([Run("svd-init-mnist", "svd-init", 1, 1, dataset="mnist", quick=True), TINY[2]], monkeypatch)
    go()
    go()
    assert pretended.ran == ["svd-init-mnist", "toy"]
    changed = small_arrays()
    changed["x_train"][0, 0] ^= 1
    write_folder(folder, changed, ".gz")
    go()
    assert pretended.ran == ["svd-init-mnist", "toy", "svd-init-mnist"]


@pytest.mark.parametrize("damage", ["result.json changed", "result.json gone", "figure gone"])
def test_files_that_are_not_what_was_written_repeat_the_run(go, pretended, tmp_path, damage):
    go()
    folder = tmp_path / "out" / "toy"
    if damage == "result.json changed":
        (folder / "result.json").write_text("{}")
    else:
        (folder / ("result.json" if damage == "result.json gone" else "figure.png")).unlink()
    go()
    assert pretended.ran == [*NAMES, "toy"]


def test_only_some(go, claims, pretended):
    go(only=("svd-dnn", "toy"))
    assert pretended.ran == NAMES[1:]
    assert states(claims()) == dict(zip(NAMES, ["waiting", "finished", "finished"], strict=True))
    assert not claims()["complete"]
    go()
    assert pretended.ran == [*NAMES[1:], NAMES[0]]
    assert [run["name"] for run in claims()["runs"]] == NAMES


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interruption_keeps_what_is_finished_and_goes_on(go, claims, pretended):
    pretended.hooks["svd-dnn-xor"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        go()
    assert states(claims()) == dict(zip(NAMES, ["finished", "waiting", "waiting"], strict=True))
    assert {claim["run"] for claim in claims()["claims"]} == {"svd-init-digits"}
    pretended.hooks.clear()
    go()
    assert pretended.ran == ["svd-init-digits", "svd-dnn-xor", "svd-dnn-xor", "toy"]


def test_an_interrupted_repetition_does_not_pass_for_the_old_result(go, claims, pretended):
    """The old result.json still lies there, but it may be of other settings."""
    go()
    pretended.hooks["svd-dnn-xor"] = interrupt
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

    pretended.hooks["svd-dnn-xor"] = fail
    outcome = go()
    (problem,) = outcome.problems
    assert problem.startswith(f"svd-dnn-xor failed: {reason}")
    made = claims()
    assert states(made) == dict(zip(NAMES, ["finished", "failed", "finished"], strict=True))
    assert made["runs"][1]["reason"].startswith(reason)
    assert (made["runs"][1]["digest"], made["runs"][1]["figures"]) == (None, [])
    trace = tmp_path / "out" / "svd-dnn-xor" / "failure.txt"
    assert trace.exists() is traced
    assert not traced or "in fail" in trace.read_text()
    pretended.hooks.clear()
    assert go().problems == []
    assert pretended.ran == [*NAMES, "svd-dnn-xor"]
    assert not trace.exists()


CATS = Run("svd-dnn-cats", "svd-dnn", 9, 1, {"task": "cats"})


def test_data_that_cannot_be_fetched_is_skipped(go, claims, pretended, monkeypatch):
    fetched = []

    def refuse(name, **_):
        fetched.append(name)
        raise FetchError("cats: no mirror delivered it: example.org says 404")

    monkeypatch.setattr(datasets, "fetch", refuse)
    use([CATS, TINY[2]], monkeypatch)
    outcome = go()
    reason = "cats is missing and could not be fetched: cats: no mirror delivered it: example.org says 404"
    assert outcome.problems == [f"svd-dnn-cats skipped: {reason}"]
    assert states(claims()) == {"svd-dnn-cats": "skipped", "toy": "finished"}
    assert claims()["runs"][0]["reason"] == reason
    assert (fetched, pretended.ran) == (["cats"], ["toy"])


def test_missing_data_is_fetched_once(go, pretended, monkeypatch, tmp_path):
    fetched = []

    def deliver(name, **_):
        fetched.append(name)
        write_folder(tmp_path / "data" / name, small_arrays(), ".gz")

    monkeypatch.setattr(datasets, "fetch", deliver)
    mnist = [Run(name, name, 1, 1, dataset="mnist", quick=True) for name in ("svd-init", "dmn")]
    use(mnist, monkeypatch)
    assert go().problems == []
    assert (fetched, pretended.ran) == (["mnist"], ["svd-init", "dmn"])


def test_a_finished_run_is_kept_when_its_data_has_gone(go, claims, pretended, monkeypatch, tmp_path):
    folder = write_folder(tmp_path / "data" / "mnist", small_arrays(), ".gz")
    use([Run("svd-init-mnist", "svd-init", 1, 1, dataset="mnist", quick=True)], monkeypatch)
    go()
    folder.rename(tmp_path / "elsewhere")
    assert go().problems == []
    assert pretended.ran == ["svd-init-mnist"]
    assert states(claims()) == {"svd-init-mnist": "finished"}


def test_two_at_once(go, pretended, tmp_path):
    refused = []

    def second() -> None:
        with pytest.raises(OutputError, match=r"another `gpunet reproduce` is writing to '.*out': .* --out") as error:
            go()
        refused.append(str(error.value))

    pretended.hooks["svd-dnn-xor"] = second
    go()
    assert len(refused) == 1
    assert pretended.ran == NAMES
    with alone(tmp_path / "out"):
        pass  # it is free again


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1, "quick": true, "runs": [{"name": "toy"}], "claims": []}', "\xff"]
)
def test_a_claims_json_that_is_not_ours(go, claims, pretended, tmp_path, content):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "claims.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        OutputError, match=r"claims\.json is not what .* --out, or begin again in this one with --fresh"
    ):
        go()
    assert path.read_bytes() == content.encode("latin-1")
    assert pretended.ran == []
    go(fresh=True)
    assert claims()["complete"]


def test_a_disk_that_fills_up_ends_it_and_all_is_kept(go, pretended, tmp_path, monkeypatch):
    """The result of the run, and what is known of those before; no further run is begun for nothing."""
    full, out = filled(monkeypatch), tmp_path / "out"
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    pretended.hooks[NAMES[1]] = lambda: full.append(out)
    outcome = go()
    assert pretended.ran == NAMES[:2]
    book = tmp_path / "out-kept" / "claims.json"
    result = tmp_path / "temporary" / f"{NAMES[1]}-kept" / "result.json"
    assert outcome.problems == [
        f"{NAMES[1]} failed: cannot write '{out / NAMES[1] / 'result.json'}': No space left on device; it is kept as "
        f"'{result}'",
        f"cannot write '{out / 'claims.json'}': No space left on device; it is kept as '{book}'",
    ]
    assert json.loads(result.read_text())["experiment"] == "svd-dnn"
    kept = json.loads(book.read_text())
    assert (outcome.book.text, outcome.book.at) == (book.read_text(), book)
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
    monkeypatch.setattr("gpunet.reproduce.plan.FULL", TINY[2:])
    with pytest.raises(
        OutputError, match=r"holds a reproduction with --quick, this is one without --quick: .* --fresh"
    ):
        go(quick=False)
    assert pretended.ran == NAMES
    go(quick=False, fresh=True)
    assert states(claims()) == {"toy": "finished"}


def test_mistakes_come_before_anything_is_written(go, pretended, tmp_path):
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        go(device="tpu")
    with pytest.raises(InputError, match="--only is 'mnist'"):
        go(only=("mnist",))
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_is_a_problem_like_others(go, claims, pretended, monkeypatch):
    from gpunet.report import page

    def fail(folder):
        raise KeyError("colour")

    monkeypatch.setattr(page, "write", fail)
    outcome = go()
    assert outcome.problems == ["report.html was not written: unexpected KeyError: 'colour'"]
    assert outcome.page is None
    assert claims()["complete"]


def test_what_the_run_before_took_is_what_the_next_is_expected_to_take(go, pretended, monkeypatch):
    go(seeds=2)
    expected = {}
    monkeypatch.setattr(runner, "Forecast", lambda found: expected.update(found) or _Forecast(found))
    go(seeds=4)
    assert expected == {"svd-init-digits": (3.0, 2), "svd-dnn-xor": (3.0, 2)}  # 1.5 s for two seeds; toy is kept


_Forecast = runner.Forecast
