"""The examples in the documentation run, word for word."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
from pathlib import Path

import pytest

from gpunet.testing import StrictBackend

ROOT = Path(__file__).parents[1]


def modules_with_examples():
    """Names of the modules whose docstrings hold examples; cli/ and datasets/ are installed under gpunet."""
    for folder, prefix in ((ROOT / "gpunet", ""), (ROOT / "cli", "gpunet."), (ROOT / "datasets", "gpunet.")):
        for path in sorted(folder.rglob("*.py")):
            if ">>> " in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield prefix + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert failures == 0


def test_the_readmes_five_lines():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # our own text, not input
    assert names["history"]["validation_accuracy"][-1] > 0.9
    assert len(names["labels"]) == len(names["data"].x_test)


def test_mnist_by_hand(capsys):
    """At small size, on a backend that refuses what a GPU would: host arrays, other dtypes, writes to what is read."""
    example = ROOT / "examples" / "mnist_by_hand.py"
    assert len(example.read_text().splitlines()) < 100
    accuracy = runpy.run_path(str(example))["train"]("digits", hidden=32, epochs=20, rate=3e-3, device=StrictBackend())
    assert accuracy > 0.9
    assert capsys.readouterr().out.count("epoch") == 20
