"""Data as people have it, through `gpunet run` and `gpunet sweep`: it runs, or one line says why not before it runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpunet.experiments import experiments
from gpunet.experiments.result import Result

from .runner import TINY, files, run

Image = pytest.importorskip("PIL.Image")
NAMES = ("Café “Crème”", "chien noir", "$x_1$ <b>&")
QUICK = {
    "svd-init": TINY, "svd-dnn": (*TINY, "--no-speed"),
    "dmn": (*TINY, "--no-sweeps", "--no-dynamics", "--variance", "0.9"),
    "toy": ("--seeds", "2", "--limit", "20", "--learning-rate", "0.8"), "cifar-mlp": (*TINY, "--part", "final"),
    "patches": ("--seeds", "1", "--patches", "8", "--size", "3", "--no-sweeps"),
}  # fmt: skip


def photos(folder, names=NAMES, count=10, sides=(14, 22)):
    rng = np.random.default_rng(0)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            height, width = rng.integers(*sides, 2)
            image = rng.integers(0, 90, (height, width, 3)) + 80 * np.eye(3, dtype=int)[label % 3]
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.{('png', 'jpg', 'webp')[i % 3]}")
    return folder


def table(path, columns=4, classes=("ja", "nein"), scale=1.0):
    rng = np.random.default_rng(1)
    lines = [",".join([*(f"c{i}" for i in range(columns)), "Antwort"])]
    for i in range(40):
        values = rng.normal(size=columns) + i % len(classes)
        values[-1] *= scale
        lines.append(",".join([*map(str, values), classes[i % len(classes)]]))
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    return path


def result(folder) -> Result:
    return Result.read(folder / "result.json")


def told(done) -> str:
    """The only line on standard error that is not progress: what was decided in reading the data."""
    (line,) = done.said()
    assert done.code == 0, line
    assert line.startswith("gpunet: ")
    return line


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiments() if name != "toy"])
def test_photos_of_different_sizes(capsys, tmp_path, name):
    folder = photos(tmp_path / "my photos")
    done = run(capsys, "run", name, "-d", folder, "-o", tmp_path / "out", *QUICK[name])
    done.one_line(2, "images of different sizes", "--resize 64")
    assert not (tmp_path / "out").exists()
    done = run(capsys, "run", name, "-d", folder, "-o", tmp_path / "out", "--resize", 12, *QUICK[name])
    line = told(done)
    assert "my photos: images are made 12×12" in line
    assert "6 of 30 images are the test set, every fifth of each class" in line
    found = result(tmp_path / "out")
    assert found.notes["classes"] == {"my photos": ["$x_1$ <b>&", "Café “Crème”", "chien noir"]}
    assert found.notes["data"]["my photos"][0].startswith("images are made 12×12")
    assert [found.class_name(label) for label in (0, 1, 3)] == ["$x_1$ <b>&", "Café “Crème”", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiments() if not experiments()[name].needs.images])
def test_a_table(capsys, tmp_path, name):
    done = run(capsys, "run", name, "-d", table(tmp_path / "t.csv"), "-o", tmp_path / "out", *QUICK[name])
    line = told(done)
    assert "t: the label is column Antwort, the last one; the first row names the columns" in line
    assert "labels ja and nein are numbered 0 and 1 in their order" in line
    assert result(tmp_path / "out").notes["classes"] == {"t": ["ja", "nein"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments())
def test_letters_from_1_to_26(capsys, tmp_path, name):
    rng = np.random.default_rng(0)
    y = np.arange(156) % 26 + 1
    x = np.clip(rng.integers(0, 60, (156, 8, 8)) + 6 * y[:, None, None], 0, 255).astype(np.uint8)
    np.savez(tmp_path / "letters.npz", x_train=x, y_train=y, x_test=x[:52], y_test=y[:52])
    done = run(capsys, "run", name, "-d", tmp_path / "letters.npz", "-o", tmp_path / "out", *QUICK[name])
    if name == "toy":
        done.one_line(2, "letters has 26 classes: toy is for 2")
        return
    assert told(done) == "gpunet: letters: labels 1 to 26 are numbered 0 to 25 in their order"
    assert result(tmp_path / "out").notes["classes"] == {"letters": [str(number) for number in range(1, 27)]}


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments())
def test_what_does_not_suit_is_told_before_anything_is_written(capsys, tmp_path, name):
    needs, out = experiments()[name].needs, tmp_path / "out"
    if needs.images:
        done = run(capsys, "run", name, "-d", table(tmp_path / "t.csv"), "-o", out)
        done.one_line(2, f"t has samples of shape (4,): {name} needs images", "a folder of images")
    if needs.classes:
        done = run(capsys, "run", name, "-d", table(tmp_path / "t.csv", classes=("a", "b", "c")), "-o", out)
        done.one_line(2, f"t has 3 classes: {name} is for 2")
    if needs.features:
        x, y = np.zeros((10, needs.features + 1)), np.arange(10) % 2
        np.savez(tmp_path / "wide.npz", X=x, y=y)
        done = run(capsys, "run", name, "-d", tmp_path / "wide.npz", "-o", out)
        done.one_line(2, f"wide has {needs.features + 1:,} features: {name} is for {needs.features:,} at most")
    if needs.samples:
        x, y = np.zeros((12, 8, 8), np.uint8), np.array(["cat"] * 11 + ["Café"])
        np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        done = run(capsys, "run", name, "-d", tmp_path / "few.npz", "-o", out)
        done.one_line(2, f"few: class Café has 1 training sample: {name} needs {needs.samples} of each class")
    if needs.one_unit:
        wild = table(tmp_path / "t.csv", scale=1000)
        done = run(capsys, "run", name, "-d", wild, "-o", out)
        done.one_line(2, f"t: {name} {needs.one_unit}", "1 of 4 make up 100.0% of the squares", "--stand")
        done = run(capsys, "run", name, "-d", wild, "-o", out, "--standardize", *QUICK[name])
        assert "every feature less its mean, over its deviation" in told(done)
        assert result(out).dataset == "t-standardized"
        return
    assert not out.exists()


@pytest.mark.slow
def test_one_name_of_two_forms_and_names_in_the_figure(capsys, tmp_path, monkeypatch):
    """The class whose matrices fluctuate is named in the picture's title."""
    from gpunet.report import style

    titles = []
    show = style._show_as_written
    monkeypatch.setattr(
        style, "_show_as_written",
        lambda made: (show(made), titles.extend(axes.get_title(loc="left") for axes in made.axes)),
    )  # fmt: skip
    folder = photos(tmp_path / "set", names=("Café Crème", "chien"), count=12)
    done = run(
        capsys, "run", "dmn", "-d", folder, "-o", tmp_path / "out", "--resize", 8, *TINY, "--no-sweeps",
        "--variance", "0.9",
    )  # fmt: skip
    assert done.code == 0
    assert "Fluctuations of ρ, set, class Café Crème" in titles
    assert "fluctuations.png" in files(tmp_path / "out")


def test_options_that_the_data_has_no_use_for(capsys, tmp_path):
    run(capsys, "run", "svd-init", "--quick", "--resize", 8).one_line(2, "digits: resize is 8: only images of a folder")
    run(capsys, "run", "cifar-mlp", "-d", "digits", "--label", "x").one_line(2, "digits: label is 'x': only a table")
    run(capsys, "run", "svd-init", "-d", table(tmp_path / "t.csv"), "--label", "x").one_line(2, "no column 'x'")
    for label, words in (("", "label is empty"), ("9" * 5000, "no column '999")):
        run(capsys, "run", "svd-init", "-d", tmp_path / "t.csv", "--label", label).one_line(2, words)
    run(capsys, "run", "svd-init", "--resize", 0).one_line(2, "--resize")


def test_the_help_keeps_its_asterisks(capsys):
    done = run(capsys, "run", "svd-init", "--help")
    assert all(ending in done.out for ending in ("CLASS/*.png", "*.jpg", "*.webp", "*.csv"))


@pytest.mark.slow
def test_a_document_s_data_that_was_scaled_is_not_its_own(capsys, tmp_path):
    done = run(capsys, "run", "svd-init", "-d", "digits", "--standardize", "-o", tmp_path / "out", *TINY)
    assert done.code == 0
    assert result(tmp_path / "out").dataset == "digits-standardized"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "svd-init"])
def test_sweeps_read_data_as_runs_do(capsys, tmp_path, what):
    path = table(tmp_path / "t.csv")
    param = ("--param", "learning_rate=log:0.01..1", "--trials", 2, "--stages", 1, "--epochs", 2)
    param = param if what == "train" else (*param[:-2], "--param", "epochs=1")
    done = run(capsys, "sweep", what, "-d", path, "--label", "Antwort", "-o", tmp_path / "out", *param)
    assert done.code == 0, done.err
    assert sum("the label is column Antwort, asked for" in line for line in done.said()) == 1
    settings = json.loads((tmp_path / "out" / "result.json").read_text())["settings"]
    assert settings["given"]["reading"] == {"label": "Antwort"}
    if what == "svd-init":
        done = run(capsys, "sweep", what, "-d", table(tmp_path / "w.csv", scale=1000), *param)
        done.one_line(2, "w: svd-init divides each sample by its norm")
