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


def test_what_the_readme_does_without_pytorch():
    *_, plain = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(plain, "README.md", "exec"), names)  # our own text, not input
    assert names["history"]["validation_accuracy"][-1] > 0.9
    assert names["net"].score(names["data"].x_test, names["data"].y_test) > 0.8
    assert names["svd"].certificate.complete
    assert len(names["labels"]) == len(names["data"].x_test)
