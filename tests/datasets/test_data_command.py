from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gpunet.cli.data import app
from gpunet.datasets import catalog, disk
from gpunet.errors import DataError, FetchError, RunError


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_list(tiny, serve):
    done = run("list")
    assert done.exit_code == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert rows["name"].split() == ["name", "state", "size", "where"]
    assert "missing" in rows["mnist"]
    assert "55.0 MB" in rows["mnist"]
    for name in ("digits", "xor", "linear", "xor-easy"):
        assert rows[name].split() == [name, "embedded", "-", "-"]
    assert rows["cifar10"].split()[1:4] == ["missing", "184.4", "MB"]
    assert rows["cats"].split()[1:4] == ["missing", "3.2", "MB"]
    assert str(tiny.folder) in rows["tiny"]


def test_what_comes_with_a_package_that_is_missing_is_told(tiny, monkeypatch):
    monkeypatch.setattr(disk, "lacking", lambda *modules: [*modules])
    monkeypatch.setattr(catalog, "lacking", lambda *modules: [*modules])
    done = run("list", "--no-check")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert rows["digits"].startswith("not installed")
    assert rows["xor"].startswith("embedded")
    how = "it comes with scikit-learn, which is not installed: pip install 'gpunet[data]'"
    assert f"digits: nothing to fetch, {how}" in run("fetch", "digits").stdout
    assert str(run("path", "digits").exception) == f"digits has no folder: {how}"
    assert run("verify", "digits").exit_code == 0


def test_list_says_whether_it_checked(tiny, serve):
    run("fetch", "tiny", "--mirror", serve(tiny.packed).url)

    def state(*arguments: str) -> str:
        found = json.loads(run("list", "--json", *arguments).stdout)["datasets"]
        return next(each["state"] for each in found if each["name"] == "tiny")

    assert state() == "verified"
    assert state("--no-check") == "present"
    tiny.b.unlink()
    assert state() == "incomplete"
    tiny.a.write_bytes(b"x")
    assert state() == "damaged"


def test_fetch_and_verify(tiny, serve):
    done = run("fetch", "tiny", "digits", "--mirror", serve({}).url, "--mirror", serve(tiny.packed).url)
    assert done.exit_code == 0
    assert f"tiny: complete and verified in {tiny.folder}" in done.stdout
    assert "digits: nothing to fetch, it comes with scikit-learn" in done.stdout
    done = run("verify", "tiny")
    assert done.exit_code == 0
    assert done.stdout.count("verified") == 2


def test_fetch_that_fails(tiny, serve):
    assert isinstance(run("fetch", "tiny", "--mirror", serve({}).url).exception, FetchError)
    assert isinstance(run("fetch", "tiny", "--mirror", "here").exception, DataError)
    assert isinstance(run("fetch", "nonsense").exception, DataError)


def test_unknown_names_stop_before_anything_is_fetched(tiny, serve):
    mirror = serve(tiny.packed)
    assert isinstance(run("fetch", "tiny", "nonsense", "--mirror", mirror.url).exception, DataError)
    assert mirror.requests == []


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_verify_finds_damage(tiny, serve, form):
    run("fetch", "tiny", "--mirror", serve(tiny.packed).url)
    tiny.a.write_bytes(tiny.packed["a-images.gz"][:-9])
    done = run("verify", *form)
    assert isinstance(done.exception, RunError)
    assert "tiny is damaged" in str(done.exception)
    assert "gpunet data fetch tiny" in str(done.exception)
    if form:
        found = {each["name"]: each for each in json.loads(done.stdout)["datasets"]}
        assert [file["state"] for file in found["tiny"]["files"]] == ["damaged", "verified"]
        assert "truncated" in found["tiny"]["files"][0]["detail"]
    else:
        assert "damaged" in done.stdout


def test_verify_of_what_is_missing(tiny):
    assert run("verify").exit_code == 0
    assert "mnist is missing" in str(run("verify", "mnist").exception)
    assert isinstance(run("verify", "nonsense").exception, DataError)


def test_path(tiny):
    assert run("path").stdout.strip() == str(tiny.folder.parent)
    assert run("path", "tiny").stdout.strip() == str(tiny.folder)
    assert run("path", "cifar100").stdout.strip() == str(tiny.folder.parent / "cifar100")
    assert isinstance(run("path", "digits").exception, DataError)


@pytest.mark.parametrize("command", ["list", "fetch", "verify", "path"])
def test_help(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert len(done.stdout) > 200
