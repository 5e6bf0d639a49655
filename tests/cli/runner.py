"""Running the command line: in this process, or as the installed script."""

from __future__ import annotations

import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunet.cli import execute
from gpunet.experiments import experiments

from ..experiments.schema import is_png, parse

SCRIPT = Path(sysconfig.get_path("scripts")) / "gpunet"
PROGRESS = tuple(f"{name} " for name in experiments())
TINY = ("--epochs", "1", "--seeds", "1", "--device", "numpy")


@dataclass
class Done:
    code: int
    out: str
    err: str

    def said(self) -> list[str]:
        """Lines on standard error that are not progress."""
        return [line for line in self.err.splitlines() if not line.startswith(PROGRESS)]

    def one_line(self, code: int, *words: str) -> str:
        """A mistake's only trace: the exit code and one line on standard error."""
        (line,) = self.said()
        assert (self.code, self.out) == (code, ""), (self.code, line)
        assert line.startswith("gpunet: ")
        assert "--debug" not in line  # an error that nobody foresaw
        for word in words:
            assert word in line, line
        return line


def run(capsys, *arguments: object) -> Done:
    """One command line in this process; warnings are errors here, so that none reaches a user."""
    capsys.readouterr()
    code = execute([str(a) for a in arguments])
    return Done(code, *capsys.readouterr())


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def script(*arguments: object, **kwargs) -> Done:
    """One command line in a process of its own."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False, **kwargs)
    return Done(done.returncode, done.stdout, done.stderr)


def start(*arguments: object) -> subprocess.Popen[str]:
    """As `script`, still running; Ctrl-C reaches it even where the tests run in the background."""
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def files(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too; nothing where it does not exist."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def check_folder(folder: Path, figures: Iterable[str]) -> dict[str, Any]:
    """What a run left: these figures, whole, and a result.json that holds to the schema."""
    assert files(folder) == sorted([*figures, "result.json"])
    for name in figures:
        assert is_png((folder / name).read_bytes()), name
    return parse((folder / "result.json").read_text())
