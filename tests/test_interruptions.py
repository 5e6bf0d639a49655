"""Ctrl-C wherever Python looks for it: what is set for a while is set back, and no lock is left held."""

import contextlib
import dis
import gc
import inspect
import logging
import multiprocessing.context
import os
import signal
import sys
import threading
import time
import types

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import gpunet as gn
from gpunet import decompose
from gpunet.backend import blas, cusolver, onednn
from gpunet.interrupts import Unraisable, undivided
from gpunet.progress import Progress
from gpunet.report import drawing

pytestmark = pytest.mark.usefixtures("ctrl_c")
OURS = os.path.dirname(gn.__file__), contextlib.__file__
START = threading.Thread.start.__code__


class Pressed:
    """A profile function: Ctrl-C as soon as the n-th call of our code has returned, or of contextlib's or `also`'s.

    Python looks for signals there, and the call is what raises. A `with` looks for none when it calls `__enter__`.
    """

    def __init__(self, n, also=()):
        self.n, self.moments, self.where, self._files = n, 0, "", (*OURS, *also)

    def __call__(self, frame, event, arg):
        caller = frame if event == "c_return" else frame.f_back if event == "return" else None
        if caller is None or not (caller.f_code.co_filename.startswith(self._files) or caller.f_code is START):
            return
        if event == "return" and (
            frame.f_code.co_flags & inspect.CO_GENERATOR or not opcode(caller).startswith("CALL")
        ):
            return
        self.moments += 1
        if self.moments == self.n:
            self.where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            if hasattr(signal, "pthread_sigmask") and signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []):
                os.kill(os.getpid(), signal.SIGINT)  # another thread gets it, and this one is told
                time.sleep(0.01)
            else:
                signal.raise_signal(signal.SIGINT)

    def __enter__(self):
        self._before = sys.getprofile()
        sys.setprofile(self)

    def __exit__(self, *_):
        sys.setprofile(self._before)


def opcode(frame):
    """What the frame does now."""
    code, at = frame.f_code.co_code, frame.f_lasti
    while dis.opname[code[at]] == "CACHE":
        at -= 2
    return dis.opname[code[at]]


def free(lock):
    """Whether another thread gets it."""
    found = []
    other = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False) and not lock.release()))
    other.start()
    other.join()
    return found == [True]


def blocks(_):
    need_openblas()
    return lambda: blas.apart(blas.APART + 1, range(3), lambda block: None), lambda: (
        blas._calls()[0](), blas._alone.get(), set(blas._waiting), free(blas._turn),
    )  # fmt: skip


def work_with_fewer_threads(_):
    need_openblas()
    return lambda: blas.limited(blas.PER_THREAD, int), lambda: (
        blas._calls()[0](), set(blas._waiting), free(blas._turn),
    )  # fmt: skip


def onednns_threads(_):
    count = [4]
    library = types.SimpleNamespace(
        omp_get_max_threads=lambda: count[0], omp_set_num_threads=lambda n: count.__setitem__(0, n)
    )
    found = object.__new__(onednn.OneDnn)
    found._library = library
    return lambda: within(found._threads(1)), lambda: [*count]


def products_in_float32(monkeypatch):
    core, kind = types.ModuleType("cupy._core"), {"float32": 7}
    cupy = types.ModuleType("cupy")
    cupy._core, core._routines_linalg = core, types.SimpleNamespace(COMPUTE_TYPE_DEFAULT=0)
    core.get_compute_type, core.set_compute_type = kind.__getitem__, kind.__setitem__
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupy._core", core)
    return lambda: within(cusolver.full_float32(cupy)), lambda: (
        {**kind}, [*cusolver._inside], free(cusolver._turns),
    )  # fmt: skip


def figures_elsewhere(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://of_a_notebook")
    return lambda: within(drawing.collected()), lambda: (drawing.CANVAS.get(), os.environ.get("MPLBACKEND"))


def a_model_that_is_looked_at(_):
    model = gn.Sequential([gn.Dense(3), gn.Dropout(0.5), gn.Dense(2)])
    model.train()
    model.layers[1].training = False
    return lambda: within(model.evaluating()), lambda: (
        model.training, [layer.training for layer in model.layers], free(model._lock), model.fitting,
    )  # fmt: skip


def a_model_that_is_trained(_):
    class Fit:
        pass

    model = gn.Sequential([gn.Dense(3)])
    fit = Fit()
    return lambda: within(model.alone(fit)), lambda: (free(model._lock), model.fitting)


def a_fit(monkeypatch):
    """Its begin and its end; on any of its lines see tests/nn/test_interrupted.py."""

    class Bar(Progress):
        opened = 0

        def start(self, what, total):
            Bar.opened = 1

        def close(self):
            Bar.opened = 0

    class Stop(gn.Callback):
        pass

    monkeypatch.setattr("gpunet.nn.trainer.progress_of", lambda _: Bar())
    monkeypatch.setattr(gn.Trainer, "_run", lambda self, saver, callbacks, bar, own: bar.start("training", 1))
    trainer, callback = gn.Trainer(gn.Sequential([gn.Dense(3)]), device="numpy"), Stop()
    x, y = np.ones((4, 2), "float32"), np.arange(4) % 3
    return lambda: trainer.fit(x, y, callbacks=[callback], progress=True), lambda: (
        Bar.opened, hasattr(trainer, "plan"), trainer.model.training, free(trainer.model._lock), trainer.model.fitting,
    )  # fmt: skip


def an_estimator_that_fails(_):
    found = gn.Classifier(epochs=1)

    def work():
        with contextlib.suppress(ZeroDivisionError), found._whole():
            found.epochs = 1 / 0

    return work, lambda: vars(found).copy()


def a_recording(_):
    from tests.conftest import stand_in

    backend = gn.backend.cupy_backend.CupyBackend(module=stand_in())
    return lambda: backend.record(backend.join), lambda: (
        gc.isenabled(), backend._recording, backend._stream().is_capturing(),
    )  # fmt: skip


def a_cluster(monkeypatch):
    pytest.importorskip("distributed", exc_type=ImportError)
    client = types.SimpleNamespace(get_executor=lambda: None, close=lambda timeout: None)
    monkeypatch.setattr(decompose, "_client", lambda address: client)
    return lambda: within(decompose._cluster("tcp://here:8786")), lambda: logging.root.manager.disable


def a_process_that_is_started(monkeypatch):
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("signals cannot be blocked here")
    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", lambda self: None)

    def work():
        ended = threading.Event()
        other = threading.Thread(target=ended.wait)
        with undivided() as signals:
            other.start()
            try:
                with signals.heard():
                    decompose.Spawned.Process(target=int).start()
            finally:
                ended.set()
                other.join()

    return work, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])


def a_trial_that_beats(_):
    pytest.importorskip("optuna", exc_type=ImportError)
    from gpunet.sweep.study import SweepStudy

    storage = types.SimpleNamespace(set_trial_user_attr=lambda *_: None, remove_session=lambda: None)
    study = types.SimpleNamespace(storage=storage)

    def running():
        for each in threading.enumerate():
            if each.name.endswith("(beat)"):
                each.join(1)
        return threading.active_count()

    return lambda: within(SweepStudy.beating(study, types.SimpleNamespace(_trial_id=0))), running


def a_module_of_pytorch(_):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from gpunet.compression.pytorch import Torch

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))
    module[1].training = False
    network, batch = Torch(module), torch.ones(2, 4)

    def look():
        network.watching(["0", "2"], lambda *_: None, batch)
        network.watching_weights(batch)
        network.check(module, ["0", "2"], batch)
        network.layer("0", None, batch)

    def state():
        return [
            (type(each), each.training, len(each._forward_hooks), len(each._forward_pre_hooks))
            for each in module.modules()
        ]

    return look, state, (torch.nn.modules.module.__file__,)


def a_module_that_is_taken_over(_):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from gpunet.compression.convert import _Recorder, _telling

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    return lambda: within(_telling(module, _Recorder)), lambda: [
        (len(each._forward_hooks), len(each._forward_pre_hooks)) for each in module.modules()
    ]


def inputs_of_a_base(_):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from gpunet.compression.lora import methods

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    return lambda: methods._listened(module, [torch.ones(2, 4)], ["0", "1"]), lambda: [
        (each.training, len(each._forward_pre_hooks)) for each in module.modules()
    ]


def need_openblas():
    if blas._calls() is None:
        pytest.skip("NumPy's products are not OpenBLAS's")


def within(context):
    with context:
        pass


CASES = [
    blocks, work_with_fewer_threads, onednns_threads, products_in_float32, figures_elsewhere, a_model_that_is_looked_at,
    a_model_that_is_trained, a_fit, an_estimator_that_fails, a_recording, a_cluster, a_process_that_is_started,
    a_trial_that_beats, a_module_of_pytorch, a_module_that_is_taken_over, inputs_of_a_base,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_ctrl_c_at_any_moment_leaves_everything_as_it_was(case, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", Unraisable())  # a callback of weakref's loses it
    work, state, *also = case(monkeypatch)
    with threadpool_limits(4, user_api="blas"):
        before = state()
        work()  # some of it runs once in a process
        assert state() == before
        counter, left = Pressed(0, *also), []
        with counter:
            work()
        assert counter.moments > 3
        for n in range(1, counter.moments + 1):
            press, kept = Pressed(n, *also), None
            try:
                with press:
                    work()
            except KeyboardInterrupt as error:
                kept = error  # as a notebook does, and with it all that the frames hold
            assert press.where
            if (now := state()) != before:
                left.append((press.where, type(kept), now))
                before = now
        assert left == []
