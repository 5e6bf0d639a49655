"""Group start-up: a fresh process until `gpunet --help` is printed, or gpunet imported, beside imports of others."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from conftest import contests

from gpunet.bench.entrants import Entrant

HELP = "from gpunet.cli import main; main()"
COMMANDS = {  # who: role, code, arguments
    "import numpy": ("floor", "import numpy", []),
    "gpunet --help": ("ours", HELP, ["--help"]),
    "import gpunet": ("ours", "import gpunet", []),
    "import torch": ("rival", "import torch", []),
    "import sklearn": ("rival", "import sklearn", []),
    "import jax": ("rival", "import jax", []),
}
ENTRANTS = [Entrant(who, role) for who, (role, *_) in COMMANDS.items()]


@pytest.mark.benchmark(group="start-up")
@pytest.mark.parametrize(("case", "entrant"), contests(["fresh process"], ENTRANTS, "fresh process"))
def test_start_up(race, case, entrant):
    _, code, arguments = COMMANDS[entrant.who]
    package = code.split()[1].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    said = []

    def work():
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        said[:] = [done.stdout]

    def judge():
        assert ("Usage" in said[0]) == (code is HELP), said[0]
        return {}

    race(entrant, case, work, judge=judge)
