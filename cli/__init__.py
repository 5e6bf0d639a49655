"""The command line: options and printing only, nothing is computed here."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

INTERRUPTED = 130  # the exit code that shells give Ctrl-C


def main() -> None:
    """Entry point of `gpunet`. A mistake of the user is one line and exit code 2, a failure while running 1."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    sys.exit(execute([a for a in arguments if a != "--debug"], debug))


def execute(arguments: list[str], debug: bool = False) -> int:
    """Run one command line; returns the exit code."""
    from gpunet.addresses import cleaned
    from gpunet.errors import GpunetError, InputError

    try:
        from gpunet.cli.app import app  # here: Ctrl-C may come while Typer is being imported

        with _warnings_in_one_line():
            code = app(args=arguments, prog_name="gpunet", standalone_mode=False)
        if code == INTERRUPTED:  # Typer turns Ctrl-C into this, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left behind", INTERRUPTED)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, InputError):
            return _fail(str(error), 2)
        if isinstance(error, GpunetError):
            return _fail(str(error), 1)
        if hasattr(error, "exit_code"):  # Typer's own: a bad option, an abort
            message = error.format_message() if hasattr(error, "format_message") else "interrupted"
            if message.startswith("No such command") and arguments[:1] == ["run"]:
                from gpunet.experiments.registry import EXPERIMENTS

                message += f" Experiments: {', '.join(EXPERIMENTS)}."
            return _fail(cleaned(message), INTERRUPTED if type(error).__name__ == "Abort" else int(error.exit_code))
        if isinstance(error, MemoryError):
            return _fail(f"out of memory: {error}", 1)
        told = cleaned(str(error))
        return _fail(f"unexpected {type(error).__name__}: {told} (run again with --debug for the traceback)", 1)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """What the library warns of is a line for the user, not a place in our code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        yield


def _say(message: str) -> None:
    print(f"gpunet: {' '.join(message.split())}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    if message.split():  # empty after a command group alone, which has printed its help
        _say(message)
    return code
