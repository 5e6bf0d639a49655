"""`gpunet bench scaling`: widths, figures, what is written, what is skipped, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from gpunet.backend import get_backend
from gpunet.bench import harness, scaling
from gpunet.errors import InputError, RunError

from ..conftest import make_backend
from ..experiments.schema import PROVENANCE, is_png
from .runner import files, run

TINY = ("--batch", 4, "--rounds", 1, "--device", "numpy")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(scaling, "LEAST", 1e-4)


def bench(capsys, *arguments):
    """A run that must succeed: what it printed, and its progress left out."""
    done = run(capsys, "bench", "scaling", *arguments)
    said = [line for line in done.err.splitlines() if not line.startswith("bench scaling, width ")]
    assert (done.code, said) == (0, [])
    return done


def read(path):
    """The result, held against its schema; NaN and Infinity are not JSON."""
    document = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert document["benchmark"] == "scaling"
    settings = document["notes"]
    assert set(settings) == {"widths", "alphas", "meaning", "batch", "layers", "rounds", "device", "kernels"}
    assert set(document["provenance"]) >= PROVENANCE | {"threads"}
    assert list(document["cases"]) == [f"width {width}" for width in settings["widths"]]
    for case in document["cases"].values():
        entries = case["entries"]
        assert list(entries) == ["dense", *(f"alpha {alpha}" for alpha in settings["alphas"])]
        for name, entry in entries.items():
            if name != "dense":
                assert entry["notes"]["rank"] >= 1
                assert min(entry["notes"]["allowed"], entry["notes"]["allowed_step"]) > 0
            assert ("seconds" in entry) is ("skipped" not in case["notes"]) is ("loss" in entry.get("notes", {}))
            assert len(entry.get("seconds", ())) in (0, settings["rounds"])
    return document


def nets(document, what):
    """What is noted of each factored net."""
    entries = [entry for case in document["cases"].values() for entry in case["entries"].values()]
    return [entry["notes"][what] for entry in entries if "alpha" in entry.get("notes", {})]


@pytest.mark.slow
def test_a_range_of_widths(capsys, tmp_path):
    done = bench(capsys, "--width", "8..16", "--out", tmp_path / "a" / "b", *TINY)
    assert files(tmp_path / "a" / "b") == ["result.json", "scaling.png"]
    assert is_png((tmp_path / "a" / "b" / "scaling.png").read_bytes())
    document = read(tmp_path / "a" / "b" / "result.json")
    assert document["notes"] == {
        "widths": [8, 16], "alphas": [0.5, 0.25, 0.125], "meaning": "break-even", "batch": 4, "layers": 2, "rounds": 1,
        "device": "cpu", "kernels": "numpy",
    }  # fmt: skip
    assert nets(document, "rank") == [2, 1, 1, 4, 2, 1]
    for words in ("break-even α: 2 wide layers, batch 4", "cpu (numpy)", "speed-up", "allowed", "0.125"):
        assert words in done.out
    assert done.out.endswith(f"Written: {tmp_path / 'a' / 'b' / 'result.json'}, scaling.png\n")
    assert done.err.splitlines()[-1].startswith("bench scaling, width 16 (2 of 2")


@pytest.mark.slow
def test_a_list_of_widths_in_the_meaning_of_the_text(capsys, tmp_path):
    options = ("--alpha", "1,0.5,1", "--meaning", "dimension", "--layers", 3)
    done = bench(capsys, "--width", "12, 9,12", "--json", *options, *TINY)
    assert done.out == (tmp_path / "runs" / "scaling" / "result.json").read_text()
    document = read(tmp_path / "runs" / "scaling" / "result.json")
    assert document["notes"]["widths"] == [9, 12]
    assert [*zip(nets(document, "alpha"), nets(document, "rank"), strict=True)] == [(1, 9), (0.5, 4), (1, 12), (0.5, 6)]


@pytest.mark.slow
def test_a_width_that_does_not_fit_is_skipped_with_the_reason(capsys, tmp_path, monkeypatch):
    settings = scaling.Settings((8, 64), (0.5,), batch=4, rounds=1)
    room = int(scaling.memory_needed(settings, 64) / harness.SHARE) - 1
    monkeypatch.setattr(harness, "physical_memory", lambda: room)
    done = bench(capsys, "--width", "8,64", "--alpha", 0.5, "--out", tmp_path, *TINY)
    small, large = (case["notes"] for case in read(tmp_path / "result.json")["cases"].values())
    assert "skipped" not in small
    assert large["skipped"] == "needs 0.0 GB, and of 0.0 GB of memory at most 80% are used"
    assert f"width 64 skipped: {large['skipped']}" in done.out
    assert is_png((tmp_path / "scaling.png").read_bytes())


@pytest.mark.slow
def test_a_gpus_own_memory_decides(monkeypatch):
    """On CuPy's backend, NumPy in CuPy's place."""
    gpu = make_backend("cuda-host")
    settings = scaling.Settings((8, 8192), (0.5,), batch=4, rounds=1)
    assert gpu.memory()["total"] < scaling.memory_needed(settings, 8192)
    monkeypatch.setattr(harness, "physical_memory", pytest.fail)
    fits, does_not = scaling.compare(settings, gpu).cases.values()
    assert all(entry.seconds for entry in fits.entries.values())
    assert "of 2.1 GB of memory" in does_not.notes["skipped"]


def test_a_width_that_no_machine_holds_is_skipped(capsys, tmp_path):
    done = bench(capsys, "--width", "1000000", "--out", tmp_path, *TINY)
    need = scaling.memory_needed(scaling.Settings((1_000_000,), batch=4), 1_000_000)
    assert need > 2 * 4 * 4 * 10**12
    assert f"width 1000000 skipped: needs {need / 1e9:.1f} GB" in done.out
    assert is_png((tmp_path / "scaling.png").read_bytes())


@pytest.mark.slow
def test_memory_that_runs_out_all_the_same(capsys, tmp_path, monkeypatch):
    time = scaling._time

    def tight(settings, each, *rest):
        if each == 16:
            raise MemoryError("Unable to allocate 7 TiB")
        time(settings, each, *rest)

    monkeypatch.setattr(scaling, "_time", tight)
    bench(capsys, "--width", "8..32", "--alpha", 0.5, "--out", tmp_path, *TINY)
    found = [case["notes"].get("skipped") for case in read(tmp_path / "result.json")["cases"].values()]
    assert found == [None, "out of memory: Unable to allocate 7 TiB", None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alphas", "meaning", "batch", "layers"),
    [((0.5, 0.125), "break-even", 64, 2), ((0.25, 1.0), "dimension", 64, 1), ((1.0,), "dimension", 1500, 3)],
)
def test_the_memory_asked_for_is_the_memory_used(monkeypatch, alphas, meaning, batch, layers):
    settings = scaling.Settings((384,), alphas, meaning, batch, layers, rounds=1)
    monkeypatch.setattr(scaling, "enough", lambda run, least: 1)
    scaling.compare(settings, get_backend("numpy"))
    tracemalloc.start()
    scaling.compare(settings, get_backend("numpy"))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used <= scaling.memory_needed(settings, 384) <= 1.3 * used


@pytest.mark.slow
def test_times_of_a_net_that_went_astray_mean_nothing(monkeypatch):
    monkeypatch.setattr(scaling, "STILL", 1e38)
    with pytest.raises(RunError, match="a loss at width 8 became NaN or infinite"):
        scaling.compare(scaling.Settings((8,), batch=4, rounds=2), get_backend("numpy"))


@pytest.mark.slow
def test_the_estimate_of_what_is_left(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "PAUSE", 0.05)
    settings = scaling.Settings((256,), (0.5,), batch=512, rounds=3)
    totals = [scaling.step_total(settings.shapes(256), [rank, rank, None], 512) for rank in (None, 64)]
    # four rounds of two nets, a pause before each; slow steps are timed one by one
    assert scaling._seconds(settings, 256, rate=1.0) == pytest.approx(4 * (sum(totals) + 2 * scaling.PAUSE), rel=1e-9)
    done = bench(capsys, "--width", "8,16,1000000", "--out", tmp_path, *TINY)
    assert [line.partition(",")[2] for line in done.err.splitlines()] == [
        " width 8 (1 of 3): 8/8",
        " width 16 (2 of 3): 8/8",  # less than a second, though the widest would take weeks
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *((("--width", text), ("--width is", text, "256..8192", "256,512,1000"))
          for text in ("abc", "", "8..", "..8", "8...16", "8,", "8,x", "-8", "8.5", "1e3", "9" * 12)),
        (("--width", "512..256"), ("its end is below its beginning", "256..512")),
        (("--width", "300..500"), ("no power of two", "300,500")),
        (("--width", "0"), ("width cannot be 0", "≥ 1")),
        (("--width", "8,2000000"), ("width cannot be 2000000",)),
        *((("--alpha", text), ("--alpha is", text, "above 0 and up to 1"))
          for text in ("0", "1.5", "-0.5", "half", "", ",", "0.5,", "nan", "inf", "0.5;0.25")),
        (("--meaning", "both"), ("meaning is 'both': expected one of break-even, dimension",)),
        *(((option, 0), ("Invalid value", option)) for option in ("--batch", "--layers", "--rounds")),
        (("--device", "tpu"), ("unknown device 'tpu'",)),
        (("--out", "/proc/nowhere"), ("cannot write to '/proc/nowhere'", "--out")),
    ],
)  # fmt: skip
def test_mistakes(capsys, tmp_path, arguments, words):
    run(capsys, "bench", "scaling", *arguments).one_line(2, *words)
    assert files(tmp_path / "runs") == []


def test_settings_of_nothing():
    for widths, alphas in (((), (0.5,)), ((8,), ())):
        with pytest.raises(InputError, match="at least one width and one alpha"):
            scaling.Settings(widths, alphas)


def test_help_is_quick_and_says_what_the_counts_are(capsys):
    done = run(capsys, "bench", "scaling", "--help")
    assert (done.code, done.err) == (0, "")
    for word in ("--width", "LOW..HIGH|LIST", "256..8192", "mn multiplications", "l(m + n)", "l(2 in + 3 out)",
                 "break-even|dimension", "runs/scaling", "bias, activation, Adam"):  # fmt: skip
        assert word in done.out, word
    code = (
        "import sys; from gpunet.cli import execute; execute(['bench', 'scaling', '--help']); "
        "print('loaded:', [m for m in ('numpy', 'matplotlib', 'numba', 'sklearn', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.splitlines()[-1] == "loaded: []"


def test_steps_train_the_rows_that_were_drawn():
    """The timed steps are training steps: they learn."""
    import gpunet as gn
    from gpunet.bench.train import stepping

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = rng.normal(size=(60, 8)).astype("float32") + 3 * np.eye(3, 8, dtype="float32")[labels]
    trainer = gn.Trainer(gn.Sequential([gn.Dense(3)]), optimizer=gn.Adam(0.05), device="numpy")
    data = trainer.samples(x, labels)
    epoch = stepping(trainer, data, 16, lambda: rng.permutation(60))
    before = trainer.evaluate(data)["loss"]
    for _ in range(20):
        epoch()
        assert trainer.tally.cursor[0] == 60
    assert trainer.evaluate(data)["loss"] < before / 4
