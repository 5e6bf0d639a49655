"""A worker in a process of its own, started by `workers` as a file; it finds gpunet where who starts it has found it.

Its orders come as one line of JSON on standard input, so that a password is in no list of processes; when standard
input ends, who started it is gone or wants it to stop. Why it ended early goes to standard output as one line of JSON;
what the function prints goes to standard error.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any, TextIO

STOPPED = 130  # exit code


def main() -> int:
    """Work until nothing is left; the exit code. An interruption says nothing here: who started this process does."""
    try:
        return _obeyed()
    except KeyboardInterrupt:
        return STOPPED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _obeyed() -> int:
    line = sys.stdin.readline()
    if not line.endswith("\n"):  # who started it was killed before it could say what is to be done
        return STOPPED
    orders = json.loads(line)
    sys.path[:] = orders.pop("path")
    _say_nothing_of_interruptions()
    told = _own_output()
    threading.Thread(target=_stop_with_the_starter, daemon=True).start()
    try:
        from gpunet.progress import warnings_in_one_line

        with warnings_in_one_line():
            _work(**orders)
    except Exception as error:
        told.write(json.dumps(_described(error, orders["storage"])))
        told.close()
        return 1
    return 0


def _say_nothing_of_interruptions() -> None:
    from gpunet.interrupts import Unraisable

    sys.unraisablehook = unraisable = Unraisable()

    def stop(number: int, frame: FrameType | None) -> None:
        unraisable.interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # none that ignores it
        signal.signal(signal.SIGINT, stop)


def _own_output() -> TextIO:
    """Standard output for ourselves; what is printed goes to standard error, and is lost where that cannot be."""
    from gpunet.streams import SPELT_OR_ESCAPED, Raw, open_closed, stream

    open_closed()
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr = stream(sys.stderr, Raw(2, "w", closefd=False), SPELT_OR_ESCAPED)
    return told


def _work(storage: str, worker: str, keep_going: bool) -> None:
    from gpunet.addresses import public
    from gpunet.sweep.plan import prepare
    from gpunet.sweep.storage import opened, understood
    from gpunet.sweep.study import SweepStudy
    from gpunet.sweep.workers import one_thread, work

    with opened(storage, new=False) as held:
        study = SweepStudy.join(held, f"the storage '{public(storage)}'")
        study.worker = worker
        function = prepare(study.spec.function, study.spec.settings)
        with one_thread(), understood(study.where):
            work(study, function, keep_going, lambda table: None)


def _described(error: Exception, url: str) -> dict[str, Any]:
    from gpunet.addresses import cleaned
    from gpunet.errors import GpunetError, InputError

    if isinstance(error, GpunetError):
        return {"input": isinstance(error, InputError), "message": str(error)}
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = cleaned(f"{type(error).__name__}: {error}", url)
    return {"input": False, "message": f"{said} ({place.filename}:{place.lineno})"}


def _stop_with_the_starter() -> None:
    from gpunet.sweep.workers import PATIENCE

    sys.stdin.read()
    _thread.interrupt_main()
    time.sleep(PATIENCE)
    os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())
