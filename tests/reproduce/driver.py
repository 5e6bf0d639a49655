"""`gpunet reproduce` with the small runs in place of the plan, as a process: python driver.py [OPTION …]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

if __name__ == "__main__":
    from gpunet.cli import execute
    from gpunet.reproduce import asked, plan
    from tests.reproduce.small import TINY

    plan.QUICK, asked.code = TINY, lambda: "the same"  # also where somebody edits the code while the test runs
    sys.exit(execute(["reproduce", "--quick", *sys.argv[1:]]))
