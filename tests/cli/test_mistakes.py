"""A mistake gets one clear line and an exit code, and leaves nothing half-written."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest
import typer

from gpunet.backend import why_no_gpu
from gpunet.cli import execute
from gpunet.cli.app import app
from gpunet.cli.help import in_our_words
from gpunet.errors import InputError
from gpunet.experiments import experiment, experiments
from gpunet.experiments.framework import Experiment, Run
from gpunet.experiments.svd_init import body

from ..datasets.idx_writer import small_arrays, write_folder
from ..experiments.made import arrays, read_result, write_npz
from ..hostile.disk import filled
from .runner import TINY, files, run, script


def svd_init(capsys, tmp_path, path, *options):
    done = run(capsys, "run", "svd-init", "--dataset", path, "--out", tmp_path / "out", *TINY, *options)
    assert files(tmp_path / "out") == []
    return done


# -- data -------------------------------------------------------------------------------------------------------------


def mnist_like(**changes) -> dict:
    return small_arrays() | changes


def damage(folder, part, change):
    path = folder / {"x_train": "train-images-idx3-ubyte", "y_train": "train-labels-idx1-ubyte"}[part]
    path.write_bytes(change(path.read_bytes()))
    return path.name


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("x_train", lambda b: b[:-1], ("truncated", "119 bytes", "expected 120")),
        ("x_train", lambda b: b[:9], ("truncated", "header")),
        ("x_train", lambda b: b + b"?", ("too long",)),
        ("x_train", lambda b: b"\x12\x34" + b[2:], ("not an IDX file", "12 34")),
        ("y_train", lambda b: b[:2] + b"\x07" + b[3:], ("type code 0x07",)),
        ("y_train", lambda b: b"", ("0 bytes long",)),
        ("y_train", lambda b: gzip.compress(b)[:-6], ("corrupt gzip",)),
        ("y_train", lambda b: gzip.compress(b)[:-8] + b"\0" * 8, ("corrupt gzip",)),
    ],
)
def test_damaged_idx(capsys, tmp_path, part, change, words):
    folder = write_folder(tmp_path / "idx", small_arrays())
    name = damage(folder, part, change)
    svd_init(capsys, tmp_path, folder).one_line(2, str(folder), name, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": np.arange(19, dtype="u1") % 4}, ("x_train has 20 samples but y_train has 19 labels",)),
        ({"y_test": np.full(8, 4, "u1")}, ("y_test row 0 is 4", "the 4 classes of the training labels")),
        (
            {"y_train": np.full(20, 1, "u1"), "y_test": np.full(8, 1, "u1")},
            ("all training labels are 1", "at least two classes"),
        ),
        ({"y_train": np.array([0, 1, 3, 3] * 5, "u1")}, ("y_test row 2 is 2", "training labels: 0, 1 and 3")),
        ({"x_train": np.zeros((0, 3, 2), "u1"), "y_train": np.zeros(0, "u1")}, ("x_train is empty",)),
        ({"x_test": np.zeros((8, 3, 3), "u1")}, ("(3, 2)", "(3, 3)")),
    ],
)
def test_idx_files_that_do_not_fit_each_other(capsys, tmp_path, changes, words):
    folder = write_folder(tmp_path / "idx", mnist_like(**changes))
    svd_init(capsys, tmp_path, folder).one_line(2, str(folder), *words)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("split", ["train", "test"])
def test_which_row_is_not_finite(capsys, tmp_path, split, bad):
    x = arrays()[f"x_{split}"]
    x[17, 4] = bad
    path = write_npz(tmp_path / "bad.npz", **{f"x_{split}": x})
    svd_init(capsys, tmp_path, path).one_line(2, str(path), f"x_{split} row 17, feature 4", str(bad))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda good: good[: len(good) // 2], ("not a sound .npz",)),
        (lambda good: b"", ("not a sound .npz",)),
        (lambda good: good[:60] + bytes(8) + good[68:], ()),
    ],
)
def test_damaged_npz(capsys, tmp_path, own, content, words):
    own.write_bytes(content(own.read_bytes()))
    svd_init(capsys, tmp_path, own).one_line(2, str(own), *words)


def test_incomplete_npz_and_folder(capsys, tmp_path):
    np.savez(tmp_path / "half.npz", x_train=np.ones((3, 3)), y_train=[0, 1, 1])
    svd_init(capsys, tmp_path, tmp_path / "half.npz").one_line(2, "missing x_test, y_test", "numpy.savez")
    (tmp_path / "empty").mkdir()
    svd_init(capsys, tmp_path, tmp_path / "empty").one_line(2, "not a complete set of IDX files", "no files")


def test_fewer_features_than_hidden_units(capsys, tmp_path, own):
    svd_init(capsys, tmp_path, own, "--hidden", 8).one_line(2, "7 features", "8 are asked for", "fewer hidden units")
    svd_init(capsys, tmp_path, own, "--hidden", 7).one_line(2, "singular value 7 of 7 is zero", "fewer units")


def test_a_class_with_fewer_samples_than_its_share(capsys, tmp_path):
    y = np.array([0] * 40 + [1] * 19 + [2])
    path = write_npz(tmp_path / "rare.npz", y_train=y)
    done = svd_init(capsys, tmp_path, path, "--hidden", 6)
    done.one_line(2, "class 2 has 1 samples of 7 features", "2 are asked for")


def test_samples_without_direction(capsys, tmp_path):
    path = write_npz(tmp_path / "flat.npz", x_train=np.ones((60, 7), "f4"))
    svd_init(capsys, tmp_path, path).one_line(2, "flat", "all features equal")


# -- names and options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ("nonsense",)),
        (["run", "nonsense"], ("nonsense",)),
        (["run", "svd-init", "--nonsense"], ("No such option", "--nonsense")),
        (["run", "svd-init", "extra"], ("extra",)),
        (["run", "svd-init", "--dataset"], ("--dataset",)),
        (
            ["run", "svd-init", "--dataset", "nonsense"],
            ("unknown data set 'nonsense'", "mnist, digits", "npz"),
        ),
        *((["run", name, "--dataset", ""], ("unknown data set ''",)) for name in ("toy", "svd-init", "svd-dnn")),
        (["run", "svd-init", "--dataset", "no/such.npz"], ("no/such.npz", "no such file")),
        (["run", "svd-init"], ("mnist: not in", "gpunet data fetch mnist", "--dataset digits")),
        (
            ["run", "svd-init", "--quick", "--device", "tpu"],
            ("unknown device 'tpu'", "auto, cpu, numpy, cuda or cuda:N"),
        ),
        (["data", "fetch", "nonsense"], ("unknown data set 'nonsense': known are mnist, digits",)),
        (["data", "path", "digits"], ("digits has no folder: it comes with scikit-learn",)),
        (["data", "path", "xor"], ("xor has no folder: it is made when it is asked for",)),
        (
            ["train"],
            ("No such command 'train'. There are `gpunet bench train`, `gpunet sweep train` and `gpunet run`",),
        ),
        (["svd"], ("No such command 'svd'. There is `gpunet bench svd`.",)),
        (["info", "--nonsense"], ("No such option",)),
    ],
)
def test_unknown_names(capsys, arguments, words):
    run(capsys, *arguments).one_line(2, *words)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seeds", 0), ("--seeds", -1), ("--seeds", "two"), ("--seed", -1), ("--epochs", 0), ("--epochs", 1.5),
        ("--hidden", 0), ("--hidden", "many"), ("--batch-size", 0), ("--batch-size", -5),
        ("--learning-rate", "fast"),
    ],
)  # fmt: skip
def test_options_out_of_range_name_the_option(capsys, own, tmp_path, option, value):
    done = run(capsys, "run", "svd-init", "-d", own, "-o", tmp_path / "out", option, value)
    line = done.one_line(2, "Invalid value", option)
    assert line.endswith(
        (
            "is not a whole number.",
            "is not a number.",
            f"{value} is out of range: expected at least 0.",
            f"{value} is out of range: expected at least 1.",
            "expected an odd one.",
        )
    ), line
    assert not (tmp_path / "out").exists()


def test_a_bad_number_is_told_in_plain_words():
    for told, ours in [
        ("'x' is not a valid int range.", "'x' is not a whole number."),
        ("'x' is not a valid integer range.", "'x' is not a whole number."),
        ("'x' is not a valid integer.", "'x' is not a whole number."),
        ("'x' is not a valid float.", "'x' is not a number."),
        ("9 is not in the range 0<=x<=5.", "9 is out of range: expected 0 to 5."),
        ("0.0 is not in the range x>=0.1.", "0.0 is out of range: expected at least 0.1."),
        ("No such option: --x", "No such option: --x"),
    ]:
        assert in_our_words(told) == ours


def test_what_is_no_data_for_a_command_is_not_asked_for(capsys):
    for words in (["data", "fetch", "x"], ["data", "verify", "x"], ["data", "path", "x"]):
        assert "path to" not in run(capsys, *words).one_line(2)
    assert "or give a path to a folder" in run(capsys, "run", "svd-init", "--dataset", "x").one_line(2)


def test_a_file_that_is_no_checkpoint_is_told_what_it_is(capsys, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.eye(3))
    (tmp_path / "r.py").write_text("print(1)\n" * 9)
    for name, words in [
        ("x.npz", "is a zip of NumPy's arrays"),
        ("r.py", "is not a readable safetensors file, but of"),
    ]:
        run(capsys, "compress", tmp_path / name, "--out", tmp_path / "q.safetensors").one_line(2, name, words)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        *(("--learning-rate", rate, ("--learning-rate", rate, "> 0")) for rate in ("0.0", "-1.0", "nan", "inf")),
        *(("--dependency", dep, ("dependency", dep, "≥ 0")) for dep in ("-0.1", "nan", "inf")),
    ],
)
def test_numbers_that_are_none(capsys, own, tmp_path, option, value, words):
    svd_init(capsys, tmp_path, own, option, value).one_line(2, *words)


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_without_a_gpu_says_why_and_what_to_install(capsys, own, tmp_path, device):
    done = svd_init(capsys, tmp_path, own, "--device", device)
    done.one_line(2, f"device '{device}' cannot be used", why_no_gpu(), "--device cpu")
    if "not installed" in why_no_gpu():
        assert "pip install 'gpunet[cuda13]'" in done.err


# -- folders ----------------------------------------------------------------------------------------------------------


def writing(command, path=()):
    """Every command that has --out, as words."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from writing(inner, (*path, name))
    if any("--out" in parameter.opts for parameter in command.params):
        yield path


WRITING = list(writing(typer.main.get_command(app)))
NEEDED = {"function": ["a:b"], "join": ["sqlite:///x.db"], "report": ["x.json"]}


@pytest.mark.parametrize("path", WRITING, ids=" ".join)
def test_an_empty_folder_name_is_a_mistake(capsys, tmp_path, monkeypatch, path):
    """As of `--out "$DIR"` where that is not set: everything went into the current folder."""
    monkeypatch.chdir(tmp_path)
    param = ["-p", "x=0..1"] if path[0] == "sweep" and path[1] != "join" else []
    done = run(capsys, *path, *NEEDED.get(path[-1], []), *param, "--out", "")
    done.one_line(2, "--out", "it is empty: expected the path of a ")
    assert list(tmp_path.iterdir()) == []


def test_every_command_that_writes_is_known():
    assert {("reproduce",), ("run", "toy"), ("sweep", "train"), ("sweep", "join"), ("bench", "report")} < set(WRITING)


@pytest.mark.parametrize("out", ["own.npz", "own.npz/below/it", "/proc/nowhere", "/dev/null"])
def test_a_folder_that_cannot_be_written(capsys, own, out):
    before = own.read_bytes()
    done = run(capsys, "run", "svd-init", "-d", own, "-o", out, *TINY)
    done.one_line(2, f"cannot write to '{out}'", "--out")
    assert done.err.count("\n") == 1  # found before anything was trained
    assert own.read_bytes() == before


def test_a_folder_in_the_place_of_the_result(capsys, own, tmp_path):
    """Found before anything is computed."""
    (tmp_path / "out" / "result.json").mkdir(parents=True)
    done = run(capsys, "run", "svd-init", "-d", own, "-o", tmp_path / "out", *TINY)
    done.one_line(2, "result.json': a folder stands there")
    assert files(tmp_path / "out") == ["result.json"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "json"),
    [("vanished", ()), ("a file now", ()), ("full", ()), ("full", ("--json",)), ("full everywhere", ())],
)
def test_a_folder_that_is_lost_meanwhile(capsys, own, tmp_path, monkeypatch, fault, json):
    """What was computed lies where it was asked for, or where the line says; and nowhere else."""
    out, compute, full = tmp_path / "runs" / "mine", Run.compute, filled(monkeypatch)

    def disturbed(*args):
        result = compute(*args)
        out.rmdir()
        if fault == "a file now":
            out.write_text("")
        if fault.startswith("full"):
            out.mkdir()
            full.append(tmp_path if fault == "full everywhere" else tmp_path / "runs")
        return result

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(Run, "compute", disturbed)
    done = run(capsys, "run", "svd-init", "-d", own, "-o", out, *TINY, *json)
    kept = {
        "vanished": out, "a file now": tmp_path / "runs" / "mine-kept", "full": tmp_path / "temporary" / "mine-kept",
        "full everywhere": None,
    }[fault]  # fmt: skip
    if kept == out:
        assert (done.code, done.said()) == (0, [])
    else:
        (line,) = done.said()
        assert done.code == 1
        assert line.startswith(f"gpunet: cannot write '{out / 'result.json'}': ")
        assert line.endswith(f"it is kept as '{kept / 'result.json'}'" if kept else "or in the temporary folder")
    found = [path for path in tmp_path.rglob("*") if path.name.endswith((".json", ".part"))]
    assert found == ([kept / "result.json"] if kept else [])
    if kept:
        assert read_result((kept / "result.json").read_text())
        assert json or str(kept) in "".join(done.out.split())
    if json or not kept:
        assert read_result(done.out)


@pytest.mark.slow
def test_two_runs_in_one_folder_at_once(capsys, own, tmp_path, monkeypatch):
    compute = Run.compute

    def meanwhile(*args):
        monkeypatch.setattr(Run, "compute", compute)
        second = run(capsys, "run", "svd-init", "-d", own, "-o", tmp_path / "out", *TINY)
        second.one_line(2, "another `gpunet run` is writing to", "wait for it to end", "--out")
        return compute(*args)

    monkeypatch.setattr(Run, "compute", meanwhile)
    assert run(capsys, "run", "svd-init", "-d", own, "-o", tmp_path / "out", *TINY).code == 0


# -- failures while running -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("rate", ["1e30", "1e60"])
def test_a_loss_that_becomes_nan(capsys, own, tmp_path, device, rate):
    done = svd_init(capsys, tmp_path, own, "--learning-rate", rate, "--device", device, "--epochs", 4)
    done.one_line(1, "epoch ", "step ", f"learning rate {float(rate):g}", "lower the learning rate")


def test_an_unforeseen_error_is_one_line_too_and_debug_shows_it_whole(capsys, own, tmp_path, monkeypatch):
    def broken(*args):
        raise KeyError("a\nsurprise")

    monkeypatch.setattr(body, "prepare", broken)
    done = run(capsys, "run", "svd-init", "-d", own, "-o", tmp_path / "out")
    (line,) = done.said()
    assert done.code == 1
    assert "unexpected KeyError" in line
    assert "--debug" in line
    with pytest.raises(KeyError):
        execute(["run", "svd-init", "-d", str(own), "-o", str(tmp_path / "out"), "--debug"])


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 7 TiB"), KeyboardInterrupt()])
def test_memory_and_interrupts(capsys, own, tmp_path, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(body, "prepare", broken)
    code, word = (1, "out of memory") if isinstance(error, MemoryError) else (130, "interrupted")
    svd_init(capsys, tmp_path, own).one_line(code, word)


def test_an_interrupt_while_figures_are_drawn_says_where_the_result_is(capsys, own, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "draw", interrupted)
    done = run(capsys, "run", "svd-init", "--dataset", own, "--out", tmp_path / "out", *TINY)
    done.one_line(130, "interrupted; '", "result.json' is finished")
    assert files(tmp_path / "out") == ["result.json"]


def test_an_interrupt_while_the_command_line_is_being_imported(capsys, monkeypatch):
    class Interrupting:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "gpunet.cli.app", Interrupting())
    run(capsys, "--help").one_line(130, "interrupted")


# -- the same in a process of its own ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_installed_command(own, tmp_path):
    script("run", "svd-init", "-d", "nonsense").one_line(2, "unknown data set 'nonsense'")
    done = script("run", "svd-init", "-d", own, "-o", tmp_path / "out", "--learning-rate", "1e60", "--epochs", 4)
    done.one_line(1, "epoch 2", "step 1", "learning rate 1e+60")
    assert files(tmp_path / "out") == []
    done = script("run", "svd-init", "--debug", "-d", "nonsense")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "unknown data set 'nonsense'" in done.err


def test_an_unknown_experiment_names_those_there_are(capsys):
    assert execute(["run", "nope"]) == 2
    there = ", ".join(experiments())
    assert there.startswith("svd-init, svd-dnn, dmn, toy, cifar-mlp")
    assert capsys.readouterr().err == f"gpunet: No such command 'nope'. Experiments: {there}.\n"


def test_the_registry_names_those_there_are():
    with pytest.raises(InputError, match="unknown experiment 'nope': expected one of svd-init"):
        experiment("nope")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(capsys, monkeypatch, tmp_path):
    import warnings

    from gpunet import datasets

    load = datasets.load
    monkeypatch.setattr(
        datasets, "load", lambda name, **reading: (warnings.warn("half of it\nis missing", stacklevel=1), load(name))[1]
    )
    assert execute(["run", "svd-init", "--quick", "--epochs", "1", "--device", "numpy", "-o", str(tmp_path)]) == 0
    assert "gpunet: warning: half of it is missing\n" in capsys.readouterr().err
