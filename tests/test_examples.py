"""The examples in the documentation run, word for word."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import gpunet
import gpunet.datasets

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("module", [gpunet, gpunet.datasets], ids=lambda m: m.__name__)
def test_docstrings(module):
    failures, tried = doctest.testmod(module)
    assert tried
    assert failures == 0


def test_the_readmes_five_lines():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # our own text, not input
    assert names["history"]["validation_accuracy"][-1] > 0.9
    assert len(names["labels"]) == len(names["data"].x_test)
