"""A few of the kills of `tests.hostile.kills`, which is run with twenty of each."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.kills import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells whose child a process is"),
]


@pytest.mark.parametrize(
    ("what", "name"), [("run", "TERM"), ("reproduce", "KILL"), ("sweep", "INT"), ("fit", "HUP"), ("fetch", "KILL")]
)
def test_nothing_is_lost_or_left_over(what, name, capsys):
    code = main(["--count", "2", "--what", what, "--signals", name])
    assert code == 0, capsys.readouterr().out
