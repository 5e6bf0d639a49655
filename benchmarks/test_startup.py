"""Group start-up: a fresh process until `gpunet --help` is printed, or gpunet imported, beside imports of others."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from gpunet.bench.harness import Contender, Work

COMMANDS = {  # who: role, code, arguments
    "import numpy": ("floor", "import numpy", []),
    "gpunet --help": ("ours", "from gpunet.cli import main; main()", ["--help"]),
    "import gpunet": ("ours", "import gpunet", []),
    "import torch": ("rival", "import torch", []),
    "import sklearn": ("rival", "import sklearn", []),
    "import jax": ("rival", "import jax", []),
}


@pytest.mark.smallest
@pytest.mark.benchmark(group="start-up")
@pytest.mark.parametrize("case", ["fresh process"])
@pytest.mark.parametrize("who", COMMANDS)
def test_start_up(timed, case, who):
    role, code, arguments = COMMANDS[who]
    package, said = code.split()[1].partition(".")[0], []

    def run(pieces):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        said[:] = [done.stdout]

    missing = "" if importlib.util.find_spec(package) else f"{package} is not installed"
    timed(who, Contender(lambda: Work(run), role, missing), case)
    assert ("Usage" in said[0]) == bool(arguments), said[0]
