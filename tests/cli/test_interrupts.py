"""Ctrl-C and worse: whatever happens, no file in the out folder is half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from ..experiments.made import read_result
from ..experiments.schema import is_png
from .runner import command, files, start


def begun(own, out, *options) -> subprocess.Popen[str]:
    """A run that goes on for long, stopped at a point where it certainly trains."""
    process = start("run", "svd-init", "-d", own, "-o", out, "--device", "numpy", *options)
    assert process.stderr
    assert process.stderr.readline().startswith("svd-init 1/19")
    return process


def ended(process) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.slow
def test_ctrl_c(own, tmp_path):
    process = begun(own, tmp_path / "out", "--epochs", 1000, "--seeds", 1)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    said = [line for line in err.splitlines() if not line.startswith("svd-init ")]
    assert (code, out, len(said)) == (130, "", 1), err
    assert said[0].startswith("gpunet: interrupted")
    assert files(tmp_path / "out") == []


def check_whatever_is_there(folder) -> None:
    for name in files(folder):
        content = (folder / name).read_bytes()
        if name.endswith(".png"):
            assert is_png(content), name
        elif name == "result.json":
            read_result(content.decode())
        else:  # what a kill may leave: a neighbour's name shows that it is not the file
            assert name.startswith(".")
            assert name.endswith(".part")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "first file", "last figure"])
def test_a_kill_leaves_whole_files_or_none(own, tmp_path, moment):
    out = tmp_path / "out"
    process = begun(own, out, "--epochs", 60, "--seeds", 1)
    wait = {"training": 0, "first file": 1, "last figure": 4}[moment]
    limit = time.monotonic() + 40
    while len(files(out)) < wait and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.0005)
    process.kill()
    ended(process)
    assert len(files(out)) >= wait
    check_whatever_is_there(out)


@pytest.mark.slow
def test_a_kill_keeps_the_result_of_the_run_before(own, tmp_path):
    out = tmp_path / "out"
    subprocess.run(command("run", "svd-init", "-d", own, "-o", out, "--epochs", 1, "--seeds", 1, "--device", "numpy"),
                   check=True, capture_output=True, timeout=60)  # fmt: skip
    before = (out / "result.json").read_bytes()
    process = begun(own, out, "--epochs", 100, "--seeds", 1)
    process.kill()
    ended(process)
    assert (out / "result.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "svd-init", "--help"], ["data", "list", "--no-check"], ["info", "--json"]],
)
def test_a_reader_who_has_seen_enough(arguments):
    """`gpunet … | head -1`: the pipe is closed before anything is written; nobody wants to read about it."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command(*arguments), stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


@pytest.mark.slow
def test_json_to_a_reader_who_has_seen_enough(own, tmp_path):
    read, write = os.pipe()
    os.close(read)
    options = ("-o", tmp_path / "out", "--json", "--device", "numpy", "--epochs", 1, "--seeds", 1)
    try:
        done = subprocess.run(command("run", "svd-init", "-d", own, *options), stdout=write, stderr=subprocess.PIPE,
                              text=True, timeout=60, check=False)  # fmt: skip
    finally:
        os.close(write)
    assert [line for line in done.stderr.splitlines() if not line.startswith("svd-init ")] == []
    assert json.loads((tmp_path / "out" / "result.json").read_text())
