"""`gpunet reproduce` with a small paper's runs in place of ours, as a process: python driver.py [OPTION …]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def small_only() -> None:
    """A small paper is all there is, also where somebody edits the code while this runs, and its page is short."""
    import pytest

    from gpunet.reproduce import plan
    from tests.reproduce.small import short_page, use_page, use_small

    for_good = pytest.MonkeyPatch()
    use_small(for_good)
    use_page(for_good, short_page)
    for_good.setattr(plan, "code", lambda package: "the same")


if __name__ == "__main__":
    from gpunet.cli import execute

    small_only()
    sys.exit(execute(["reproduce", "--quick", *sys.argv[1:]]))
