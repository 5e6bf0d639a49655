"""The examples in the documentation run, word for word."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

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


README = (ROOT / "README.md").read_text()
TORCH, PLAIN = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_readmes_network_is_a_tenth_and_as_good(capsys):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'gpunet[torch]'")
    names: dict[str, object] = {}
    exec(compile(TORCH, "README.md", "exec"), names)  # our own text, not input
    told = names["small"].compression
    before, after = told["parameters"]
    assert after < 0.12 * before
    before, after = told["metric"]
    assert after > before - 0.02
    (shown,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    assert without_numbers(capsys.readouterr().out) == without_numbers(shown)


def without_numbers(text):
    """What is the same on another machine, whose clock and last bits differ."""
    return re.sub(r"[\d.,]+", "#", re.sub(r" +", " ", text)).strip()


def test_the_readmes_estimators_and_networks():
    names: dict[str, object] = {}
    exec(compile(PLAIN, "README.md", "exec"), names)  # our own text, not input
    assert names["history"]["validation_accuracy"][-1] > 0.9
    assert names["net"].score(names["data"].x_test, names["data"].y_test) > 0.8
    assert names["svd"].certificate.complete
    assert len(names["labels"]) == len(names["data"].x_test)
