"""The command line: options and printing only, nothing is computed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from gpunet.cli import process
from gpunet.interrupts import cleaning_up

ASKED = "_GPUNET_COMPLETE"  # a shell sets it, to ask what it can complete


def main() -> None:
    """Entry point of `gpunet`. A mistake of the user is one line and exit code 2, a failure while running 1."""
    process.leave_when_told()
    if os.environ.get(ASKED):
        sys.exit(_complete())
    arguments = sys.argv[1:]
    helps = not {"--help", "-h"}.isdisjoint(arguments)
    streams = process.Streams(json="--json" in arguments and not helps)
    try:
        code = execute(arguments, process.stop_when_told)
        if lost := streams.lost():
            code = code or _fail(lost, 1)
    except KeyboardInterrupt:  # when the command had ended
        code = _interrupted()
    streams.end(code)


def _complete() -> int:
    """Tell a shell what may stand where its cursor is, and nothing else, whatever happens; returns the exit code."""
    import warnings

    warnings.simplefilter("ignore")
    try:
        from gpunet.cli.app import app

        app(args=[], prog_name="gpunet", complete_var=ASKED)
    except SystemExit as told:  # Typer's way out; fish reads the code, 1 where there is nothing
        return told.code if isinstance(told.code, int) else 1
    except Exception:  # of words that cannot be read, or of a library: a prompt is no place to tell
        return 1
    return 0


_COMPLETION = {"--show-completion", "--install-completion"}


def execute(arguments: list[str], on_begin: Callable[[], None] = lambda: None) -> int:
    """Run one command line; returns the exit code. `on_begin` is called when all is read and the command begins."""
    if arguments[:1] in (["--version"], ["-V"]):  # before all that takes time to import
        print(process.version())
        return 0
    from gpunet.errors import ON_CPU, GpunetError, InputError

    process.arguments = [word for word in arguments if word != "--debug"]
    try:
        from gpunet.cli.app import app  # here: Ctrl-C may come while Typer is being imported
        from gpunet.progress import hush, warnings_in_one_line

        hush(False)
        with warnings_in_one_line():
            on_begin()
            scripts = not _COMPLETION.isdisjoint(arguments[:1])
            code = app(args=arguments, prog_name="gpunet" if scripts else process.program(), standalone_mode=False)
        if code == process.INTERRUPTED:  # Typer turns Ctrl-C into this, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as left:
        if not _COMPLETION.isdisjoint(arguments[:1]):  # Typer leaves so when it has printed or installed a script
            return int(left.code or 0)
        # Or a function of somebody's own; or Typer, where a pipe or a connection broke.
        return _fail(f"ended early: {left.__context__ or f'SystemExit {left}'}", 1)
    except Exception as error:
        if "--debug" in arguments:
            raise
        if cleaning_up() and not hasattr(error, "exit_code"):  # of something that is half torn down
            return _interrupted()
        if isinstance(error, InputError):
            return _fail(str(error).replace(ON_CPU, "--device cpu"), 2)
        if isinstance(error, GpunetError):
            return _fail(str(error).replace(ON_CPU, "--device cpu"), 1)
        from gpunet.addresses import cleaned
        from gpunet.extras import told as missing

        if line := missing(error):
            return _fail(line, 2)
        if hasattr(error, "exit_code"):  # Typer's own: a bad option, an abort
            from gpunet.cli.help import in_our_words

            message = in_our_words(error.format_message()) if hasattr(error, "format_message") else "interrupted"
            if message.startswith("No such command"):
                if arguments[:1] == ["run"]:
                    from gpunet.experiments import experiments

                    message += f" Experiments: {', '.join(experiments())}."
                else:
                    from gpunet.cli.app import elsewhere

                    message += elsewhere(error)
            stopped = type(error).__name__ == "Abort" or error.exit_code == process.INTERRUPTED
            return _fail(cleaned(message), process.interrupted()[0] if stopped else int(error.exit_code))
        if isinstance(error, MemoryError):
            return _fail(f"out of memory: {error}", 1)
        told = cleaned(str(error))
        return _fail(f"unexpected {type(error).__name__}: {told} (run again with --debug for the traceback)", 1)


def _interrupted() -> int:
    code, line = process.interrupted()
    return _fail(line, code)


def _fail(message: str, code: int) -> int:
    from gpunet.progress import tell

    if message.split():  # empty after a command group alone, which has printed its help
        tell(message)
    return code
