"""What type checkers see of gpunet: mypy and pyright, both strict, on a user's script with planted mistakes."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpunet as gn

ROOT = Path(__file__).parents[1]
USER = ROOT / "tests" / "typed" / "user.py"


def needs(tool):
    return pytest.mark.skipif(
        importlib.util.find_spec(tool) is None, reason=f"{tool} is not installed: pip install {tool}"
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """gpunet as it lies in site-packages, where cli/ and datasets/ are within it."""
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gpunet", folder / "gpunet", ignore=ignored)
    for beside in ("cli", "datasets"):
        shutil.copytree(ROOT / beside, folder / "gpunet" / beside, ignore=ignored)
    return folder


def run(*words, cwd):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=500
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(installed, script, *options):
    """(line, message) of what mypy says."""
    (installed / "mypy.ini").write_text(f"[mypy]\nmypy_path = {installed}\nfollow_imports = silent\n")
    told = run("mypy", "--config-file=mypy.ini", *options, script, cwd=installed)
    return [(int(line), said) for line, said in re.findall(rf"{script.name}:(\d+): (.*)", told)]


def pyright(installed, script):
    """(line, message) of what pyright says; a line that is an expression alone is a mistake to it for that, too."""
    settings = {
        "include": [script.name], "typeCheckingMode": "strict", "reportUnusedExpression": False,
        "extraPaths": [str(installed)],
    }  # fmt: skip
    (installed / "pyrightconfig.json").write_text(json.dumps(settings))
    shutil.copy(script, installed / script.name)
    told = json.loads(run("pyright", "--pythonpath", sys.executable, "--outputjson", cwd=installed))
    return [(said["range"]["start"]["line"] + 1, said["message"]) for said in told["generalDiagnostics"]]


def compare(found):
    lines = USER.read_text().splitlines()
    planted = {number for number, line in enumerate(lines, 1) if line.endswith("# E")}
    assert len(planted) > 30
    assert [lines[number - 1] for number in sorted(planted - {number for number, _ in found})] == []
    assert [(lines[number - 1], said) for number, said in found if number not in planted] == []


@pytest.mark.slow
@needs("mypy")
def test_mypy_finds_what_is_wrong_and_nothing_else(installed):
    compare([(number, said) for number, said in mypy(installed, USER, "--strict") if said.startswith("error")])


@pytest.mark.slow
@needs("pyright")
def test_pyright_finds_what_is_wrong_and_nothing_else(installed):
    compare(pyright(installed, USER))


@pytest.mark.slow
@needs("mypy")
def test_every_public_name_has_a_type(installed):
    names = [name for name in gn.__all__ if not isinstance(getattr(gn, name), type(gn))]
    script = installed / "names.py"
    script.write_text("import gpunet as gn\n" + "".join(f"reveal_type(gn.{name})\n" for name in names))
    told = {names[line - 2]: said for line, said in mypy(installed, script)}
    assert [name for name in names if "Revealed type" not in told[name] or 'is "Any"' in told[name]] == []


def test_the_stub_names_what_is_there():
    """A name that the stub gives twice, or that is not where it says, would be seen by nobody but users."""
    stub = ast.parse((ROOT / "gpunet" / "__init__.pyi").read_text())
    names = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(names) == sorted(set(names)) == sorted(gn.__all__)
    assert [name for name in names if getattr(gn, name, None) is None] == []
