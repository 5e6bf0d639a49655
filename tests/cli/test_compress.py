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
    for words in ("layers.0.fc", "60×60", "embedding by its name", "Parameters 11,520 →", "File 0.0 → 0.0 MB",
                  "Written: small.safetensors, small.json, small.html"):  # fmt: skip
        assert words in done.out
    assert "layers.2.fc" in Path("small.html").read_text()


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
    refused(capsys, "address", arguments=("https://you:secret@host/m.safetensors", "-o", "small.safetensors"))
    Path("model.bin").write_bytes(pickle.dumps(1))
    refused(capsys, "pickle", "save_file", arguments=("model.bin", "-o", "small.safetensors"))


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
