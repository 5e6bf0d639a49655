"""`gpunet compress`: a checkpoint comes out smaller, with its plan and a page; mistakes are one line."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gpunet as gn
from gpunet import extras

from .runner import run, start


def checkpoint(path="model.safetensors", layers=3, size=60):
    rng = np.random.default_rng(0)
    falls = np.geomspace(1, 1e-3, size)
    made = {}
    for i in range(layers):
        u, v = (np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2))
        made |= {f"layers.{i}.fc.weight": ((u * falls) @ v).astype("f4"), f"layers.{i}.fc.bias": np.ones(size, "f4")}
    save_file(made | {"embed.weight": np.ones((9, size), "f4")}, path, metadata={"format": "pt"})
    return made


def compress(capsys, *arguments):
    done = run(capsys, "compress", *arguments)
    assert done.code == 0, done.err
    return done


def refused(capsys, *words, code=2, arguments=("model.safetensors", "-o", "small.safetensors")):
    before = sorted(Path().rglob("*"))
    done = run(capsys, "compress", *arguments)
    said = [line for line in done.err.splitlines() if line.startswith("gpunet: ")]
    assert (done.code, done.out, len(said)) == (code, "", 1), done.err
    assert "--debug" not in said[0]
    for word in words:
        assert word in said[0]
    assert sorted(Path().rglob("*")) == before


def test_a_checkpoint_comes_out_smaller(capsys):
    was = checkpoint()
    done = compress(capsys, "model.safetensors", "--out", "small.safetensors", "--budget", "30%")
    assert sorted(os.listdir()) == ["model.safetensors", "small.html", "small.json", "small.safetensors"]
    now, plan = load_file("small.safetensors"), json.loads(Path("small.json").read_text())
    numbers = sum(array.size for name, array in now.items() if ".fc." in name and "bias" not in name)
    assert numbers <= 3 * 3 * 360
    for each in plan["layers"][1:]:
        one, two = (now[f"{each['name']}.{i}.weight"].astype("f8") for i in (0, 1))
        w = was[f"{each['name']}.weight"]
        assert np.linalg.norm(w - two @ one) <= each["weight_error"] * np.linalg.norm(w)
    for words in ("layers.0.fc", "60×60", "embedding by its name", "Parameters 11,520 →", "File ",
                  "Written: small.safetensors, small.json, small.html"):  # fmt: skip
        assert words in done.out
    assert "layers.2.fc" in Path("small.html").read_text()


@pytest.mark.filterwarnings("default")
def test_a_page_that_cannot_be_drawn_is_not_that_of_an_earlier_run(capsys, monkeypatch):
    checkpoint()
    compress(capsys, "model.safetensors", "-o", "small.safetensors", "--budget", "60%")
    before = Path("small.html").read_text()
    refused(capsys, "all weights stay whole", arguments=("model.safetensors", "-o", "small.safetensors", "--budget=1"))
    assert Path("small.html").read_text() == before, "nor is there anything that it does not show"
    monkeypatch.setattr(extras, "lacking", lambda *modules: [each for each in modules if each == "matplotlib"])
    done = compress(capsys, "model.safetensors", "-o", "small.safetensors", "--budget", "30%")
    assert "small.html could not be drawn" in done.err
    assert "Written: small.safetensors, small.json\n" in done.out
    assert sorted(os.listdir()) == ["model.safetensors", "small.json", "small.safetensors"]


def test_json_is_the_plan(capsys):
    checkpoint()
    done = compress(capsys, "model.safetensors", "-o", "small.safetensors", "--rank", "4", "--json")
    assert json.loads(done.out) == json.loads(Path("small.json").read_text())
    assert [each["rank"] for each in json.loads(done.out)["layers"]] == [None, 4, 4, 4]


@pytest.mark.parametrize("rule", ["7", "energy=0.9", "break-even=0.5", "dimension=0.2", "stable", "gavish-donoho"])
def test_rules(capsys, rule):
    checkpoint()
    compress(capsys, "model.safetensors", "-o", "small.safetensors", "--rank", rule, "--layers", "layers.1.*")
    assert [bool(each["rank"]) for each in json.loads(Path("small.json").read_text())["layers"]] == [
        0,
        0,
        1,
        0,
    ]  # the embedding first


def test_mistakes_are_one_line(capsys):
    checkpoint()
    usual = ("model.safetensors", "-o", "small.safetensors")
    refused(capsys, "Missing option", "--out", arguments=("model.safetensors",))
    for budget in ("0", "130%", "-1", "much", "nan", "", "%"):
        refused(capsys, "--budget is", "such as 30% or 0.3", arguments=(*usual, f"--budget={budget}"))
    for rank in ("0", "2.5", "energy", "energy=2", "energy=x", "full", "stable=1", "", "-3"):
        refused(capsys, "--rank is", "expected a whole number", arguments=(*usual, f"--rank={rank}"))
    refused(capsys, "both given", arguments=(*usual, "--rank", "3", "--budget", "0.3"))
    refused(capsys, "fit no weight", "layers.0.fc.weight", arguments=(*usual, "--layers", "layer.0.fc.weight"))
    refused(capsys, "what is read", arguments=("model.safetensors", "-o", "./model.safetensors"))
    refused(capsys, "there is no file 'absent'", arguments=("absent", "-o", "small.safetensors"))
    refused(capsys, "it is empty", arguments=("model.safetensors", "-o", ""))
    refused(capsys, "it is empty", arguments=("", "-o", "small.safetensors"))
    refused(capsys, "all weights stay whole", arguments=(*usual, "--budget", "100%"))
    refused(capsys, "address", arguments=("https://you:secret@host/m.safetensors", "-o", "small.safetensors"))
    Path("model.bin").write_bytes(pickle.dumps(1))
    refused(capsys, "pickle", "save_file", arguments=("model.bin", "-o", "small.safetensors"))
    Path("model.bin").rename("p.safetensors")
    refused(capsys, "pickle", "'p-converted.safetensors')", arguments=("p.safetensors", "-o", "small.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_half_written(number):
    checkpoint(layers=40, size=300)
    process = start("compress", "model.safetensors", "-o", "small.safetensors")
    until = time.monotonic() + 60
    while not list(Path().glob(".small*.part")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    if process.returncode:  # else it was done before
        assert process.returncode == 128 + number, err
        assert out == ""
        assert err.splitlines()[-1].startswith("gpunet: interrupted")
        assert os.listdir() == ["model.safetensors"]


@pytest.mark.slow
def test_what_a_killed_process_leaves_is_removed_by_the_next(capsys):
    checkpoint(layers=40, size=300)
    process = start("compress", "model.safetensors", "-o", "small.safetensors")
    until = time.monotonic() + 60
    while not list(Path().glob(".small*.part")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not Path("small.safetensors").exists() or Path("small.json").exists()
    compress(capsys, "model.safetensors", "-o", "small.safetensors")
    assert sorted(os.listdir()) == ["model.safetensors", "small.html", "small.json", "small.safetensors"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with a net trained on digits, and the digits."""
    folder = tmp_path_factory.mktemp("stored")
    digits = gn.datasets.load("digits")
    model = gn.Sequential([gn.Dense(64, "relu"), gn.Dense(10)])
    gn.Trainer(model, optimizer=gn.Adam(1e-2), device="cpu").fit(digits.x_train, digits.y_train, epochs=8)
    gn.save(model, folder / "net.safetensors")
    x, y = digits.x_test.reshape(-1, 8, 8), digits.y_test
    np.savez(folder / "digits.npz", x_train=digits.x_train, y_train=digits.y_train, x_test=x, y_test=y)
    np.savez(folder / "plain.npz", x=digits.x_train)
    np.savez(folder / "none.npz", x=np.float32(3))
    np.savez(folder / "odd.npz", pixels=digits.x_train)
    return folder


@pytest.mark.slow
def test_a_model_of_ours_is_run(capsys, stored):
    digits = str(stored / "digits.npz")
    done = compress(
        capsys, str(stored / "net.safetensors"), "-o", "small.safetensors", "--max-drop", "5%", "--data", digits,
        "--evaluate", digits, "--layers", "0",
    )  # fmt: skip
    data = gn.datasets.load("digits")
    plan = json.loads(Path("small.json").read_text())
    small = gn.load("small.safetensors", device="cpu")
    assert plan["chosen"] == plan["layers"][0]["parameters"]
    assert "of the chosen weights 4,096 → " in done.out
    found = gn.Trainer(small, device="cpu").evaluate(data.x_test, data.y_test)["accuracy"]
    assert plan["metric"][1] == pytest.approx(found)
    assert found >= plan["metric"][0] - 0.05
    assert small.layer("0").rank == plan["layers"][0]["rank"]
    for words in (
        "outputs off by",
        "metric 9",
        "batch-1000 time",
        "Written: small.safetensors, small.json, small.html",
    ):
        assert words in done.out
    compress(capsys, str(stored / "net.safetensors"), "-o", "tuned.safetensors", "--data", digits, "--tune", "1")
    assert json.loads(Path("tuned.json").read_text())["tuned"]
    own = (str(stored / "net.safetensors"), "--max-drop", "0", "--evaluate", digits, "-o", "whole.safetensors")
    refused(
        capsys, "max_drop=0 cannot be shown on 355 samples", arguments=own
    )  # of few samples nobody can say that none is lost
    compress(capsys, str(stored / "net.safetensors"), "-o", "by-rule.safetensors", "--rank", "energy=0.8")
    assert json.loads(Path("by-rule.json").read_text())["promise"] == {"rank": "Energy(share=0.8)"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-drop", "5%"], ["max_drop needs a metric"]),
        (["--speed", "2"], ["speed is measured on a batch, and there is none"]),
        (["--speed", "2", "--budget", "3%"], ["--budget and --speed are both given"]),
        (["--max-drop", "x", "--data", "plain.npz"], ["--max-drop is 'x'"]),
        (["--data", "none.npz"], ["x is one number"]),
        (["--budget", "100%"], ["all weights stay whole"]),
        (["--max-drop", "-1%"], ["a share in [0, 1]"]),
        (["--budget", "0"], ["a share in (0, 1]"]),
        (["--data", "odd.npz"], ["the file has the arrays 'pixels'", "x_train"]),
        (["--data", "gone.npz"], ["gone.npz"]),
        (["--data", "net.safetensors"], ["not a sound .npz file"]),
        (["--data", "plain.npz", "--evaluate", "plain.npz"], ["no y: expected the labels"]),
        (["--data", "plain.npz", "--tune", "2"], ["needs labels"]),
        (["--layers", "7"], ["no layer is called '7'"]),
        (["--count", "bytes"], ["count is 'bytes'"]),
    ],
)
def test_what_cannot_be_of_a_model_of_ours_is_a_line(capsys, stored, options, words, monkeypatch):
    monkeypatch.chdir(stored)
    refused(capsys, *words, arguments=("net.safetensors", "-o", "small.safetensors", *options))


@pytest.mark.parametrize("option", [["--data", "x.npz"], ["--speed", "2"], ["--max-drop", "1%"], ["--tune", "2"]])
def test_weights_alone_cannot_be_run(capsys, option):
    checkpoint()
    refused(capsys, option[0], "holds weights alone", arguments=("model.safetensors", "-o", "a.safetensors", *option))


@pytest.mark.slow
def test_an_onnx_graph_is_run(capsys, stored):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    net, data = gn.load(stored / "net.safetensors", device="cpu"), gn.datasets.load("digits")
    w = {name: np.array(p) for name, p in net.parameters.items()}
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        make.make_node("Gemm", ["x", "w0", "b0"], ["h"], "first", transB=1), make.make_node("Relu", ["h"], ["a"]),
        make.make_node("Gemm", ["a", "w1", "b1"], ["y"], "last", transB=1),
    ]  # fmt: skip
    tensors = {"w0": w["0.weight"], "b0": w["0.bias"], "w1": w["2.weight"], "b1": w["2.bias"]}
    graph = make.make_graph(
        nodes, "net", [make.make_tensor_value_info("x", kind, ["n", 64])],
        [make.make_tensor_value_info("y", kind, ["n", 10])],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8), "net.onnx")
    np.savez("train.npz", x=data.x_train.astype("f4") / 255)
    np.savez("test.npz", x=data.x_test.astype("f4") / 255, y=data.y_test)
    compress(capsys, "net.onnx", "-o", "small.onnx", "--budget", "40%", "--data", "train.npz", "--evaluate", "test.npz")
    digits = str(stored / "digits.npz")
    ours = ("-o", "small.safetensors", "--budget", "40%", "--data", digits, "--evaluate", digits)
    plan = json.loads(Path("small.json").read_text())
    compress(capsys, str(stored / "net.safetensors"), *ours)
    other = json.loads(Path("small.json").read_text())
    assert [each["rank"] for each in plan["layers"]] == [each["rank"] for each in other["layers"]]
    assert plan["metric"] == pytest.approx(other["metric"], abs=0.01)
    assert [node.name for node in onnx.load("small.onnx").graph.node][:2] == ["first.0", "first.1"]
