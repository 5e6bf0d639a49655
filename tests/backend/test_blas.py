"""BLAS threads by the size of the work: how many, what is set back, and whose bits they leave alone."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import gpunet as gn
from gpunet.backend import blas, get_backend
from gpunet.backend.blas import (
    ALONE,
    APART,
    LONG,
    PER_THREAD,
    apart,
    definite_below,
    interruptible,
    leading_eigh,
    limited,
    multiply,
    product,
    solve_factored,
    sturdy_svd,
    thread_rule,
    threads,
)
from gpunet.interrupts import Unraisable

pytestmark = pytest.mark.skipif(blas._calls() is None, reason="NumPy's products are not OpenBLAS's")


@pytest.fixture(autouse=True)
def four():
    with threadpool_limits(4, user_api="blas"):
        yield
        assert now() == 4


def now():
    return blas._calls()[0]()


def factors(rng, size, dtype="float32"):
    """a (32, k), b (k, 500) and room for a b, of about `size` multiplications."""
    k = -(-size // 16_000)
    return rng.standard_normal((32, k)).astype(dtype), rng.standard_normal((k, 500)).astype(dtype)


@pytest.mark.parametrize(
    ("size", "most", "want"),
    [
        (0, 4, 4), (ALONE, 4, 4), (ALONE + 1, 4, 1), (2 * PER_THREAD - 1, 4, 1), (2 * PER_THREAD, 4, 2),
        (3 * PER_THREAD, 4, 3), (100 * PER_THREAD, 4, 4), (100 * PER_THREAD, 3, 3), (PER_THREAD, 1, 1),
        (100 * PER_THREAD, 1, 1),
    ],
)  # fmt: skip
def test_as_few_as_pay_and_no_more_than_there_are(size, most, want):
    with threadpool_limits(most, user_api="blas"):
        assert limited(size, now) == want
        assert now() == most


def test_products_follow_the_same_rule(monkeypatch):
    found = []
    monkeypatch.setattr(blas, "matmul", lambda *_: found.append(now()))
    for size in (ALONE, ALONE + 1, 2 * PER_THREAD - 1, 2 * PER_THREAD, 9 * PER_THREAD):
        multiply(size, None, None, None)
    assert found == [4, 1, 1, 2, 4]


def test_work_within_work_has_no_more_than_that_around_it():
    def inner():
        return limited(ALONE + 1, now), now(), limited(100 * PER_THREAD, now)

    assert limited(2 * PER_THREAD, inner) == (1, 2, 2)


def test_failures_set_back_what_was_there():
    with pytest.raises(ZeroDivisionError):
        limited(PER_THREAD, lambda: 1 / 0)
    assert now() == 4
    with pytest.raises(KeyboardInterrupt):
        limited(PER_THREAD, signal.raise_signal, signal.SIGINT)
    assert now() == 4


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")
def test_an_interruption_at_any_moment_sets_back_what_was_there(rng):
    a, b = factors(rng, ALONE + 1)
    out, came = np.empty((32, 500), "float32"), 0

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-4 + turn * 1e-6)
                for _ in range(100_000):
                    multiply(ALONE + 1, a, b, out)
            except KeyboardInterrupt:
                came += 1
            assert now() == 4
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came == 300
    found = []
    other = threading.Thread(target=lambda: found.append(limited(PER_THREAD, now)), daemon=True)
    other.start()
    other.join(20)
    assert found == [1], "another thread waits for its turn"


def test_blocks_are_taken_by_as_many_threads_as_there_are():
    """A barrier that four must reach: they are there at once, and each of them multiplies alone."""
    together, found = threading.Barrier(4), []

    def work(block):
        if block < 4:
            together.wait(20)
        own = []
        apart(APART + 1, range(2), own.append)  # within it: one after the other
        found.append((block, now(), limited(100 * PER_THREAD, now), own))

    apart(APART + 1, range(40), work)
    assert sorted(found) == [(block, 1, 1, [0, 1]) for block in range(40)]
    assert now() == 4


@pytest.mark.parametrize(("size", "blocks"), [(APART, range(5)), (APART + 1, range(1)), (APART + 1, ())])
def test_what_is_too_little_to_share_is_done_by_who_calls(size, blocks):
    found = []
    apart(size, blocks, lambda block: found.append((block, now(), threading.current_thread())))
    assert found == [(block, 4, threading.current_thread()) for block in blocks]


def test_there_are_no_more_threads_than_asked_for():
    found = []
    apart(APART + 1, range(9), lambda block: found.append((now(), threading.current_thread())), most=1)
    assert found == [(1, threading.current_thread())] * 9


def test_blocks_see_the_errstate_of_who_calls():
    together, found = threading.Barrier(4), []
    with np.errstate(divide="raise"):
        apart(APART + 1, range(4), lambda block: (together.wait(20), found.append(np.geterr()["divide"])))
    assert found == ["raise"] * 4


def test_who_waits_for_a_turn_has_it_after_the_blocks_that_were_begun():
    """The rest is done one after the other, by one thread, as before."""
    begun, found, taken = threading.Event(), [], []
    other = threading.Thread(target=lambda: (begun.wait(20), found.append((limited(PER_THREAD, now), len(taken)))))
    other.start()

    def work(block):
        taken.append((block, now(), limited(100 * PER_THREAD, now)))
        begun.set()
        if not found:
            time.sleep(0.02)

    apart(APART + 1, range(1000), work)
    other.join(20)
    ((threads_, done),) = found
    assert threads_ == 1
    assert done < 500
    assert sorted(block for block, *_ in taken) == [*range(1000)]
    assert {own for *_, own in taken} == {1}
    assert (blas._waiting, now()) == (set(), 4)


@pytest.mark.parametrize("who", ["caller", "other"])
def test_what_a_block_raises_ends_the_others_after_theirs(who):
    caller, before, taken, failed = threading.current_thread(), threading.active_count(), [], threading.Event()

    def work(block):
        taken.append(block)
        if (threading.current_thread() is caller) == (who == "caller"):
            failed.set()
            raise ZeroDivisionError
        assert failed.wait(20)
        time.sleep(0.02)

    with pytest.raises(ZeroDivisionError):
        apart(APART + 1, range(1000), work)
    assert len(taken) < 500, "four, and what the others began until they were told"
    assert (now(), threading.active_count()) == (4, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")
def test_an_interruption_of_blocks_at_any_moment_leaves_nothing_running(monkeypatch):
    """One that Python loses, in a callback, comes again, as the command line's does."""
    monkeypatch.setattr(sys, "unraisablehook", Unraisable())
    came, alive = 0, threading.active_count()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(2))
    try:
        for turn in range(200):
            running = []

            def work(block, running=running):
                running.append(block)
                time.sleep(1e-5)
                running.remove(block)

            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + turn * 2e-6, 1)
                for _ in range(100_000):
                    apart(APART + 1, range(8), work)
            except KeyboardInterrupt:
                came += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert (now(), blas._alone.get(), threading.active_count(), len(running) <= 1) == (4, False, alive, True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGALRM, before[1])
    assert came == 200


@pytest.mark.slow
def test_averaged_maps_have_the_same_bits_on_any_number_of_threads(rng):
    x, weight = (rng.standard_normal(shape).astype("float32") for shape in ((9, 3, 32, 32), (520, 3, 6, 6)))
    backend, found = get_backend("cpu"), []
    assert len(x) * weight.size * 27**2 > APART
    for most in (1, 2, 4):
        out = np.empty((9, 520, 2, 2), "float32")
        with threadpool_limits(most, user_api="blas"):
            backend.conv2d_avgpool(x, weight, None, "relu", 0, 14, 13, out)
        found.append(out)
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_python_threads_have_the_bits_of_one_alone(rng, dtype):
    works = [(size, *factors(rng, size, dtype)) for size in (ALONE // 2, 10**6, 7 * 10**6, 10**7)]

    def product(size, a, b):
        out = np.empty((len(a), b.shape[1]), dtype)
        multiply(size, a, b, out)
        return out

    alone, wrong = [product(*work) for work in works], []

    def run(first):
        for turn in range(10):
            i = (first + turn) % len(works)
            if not np.array_equal(product(*works[i]), alone[i]):
                wrong.append(i)

    running = [threading.Thread(target=run, args=(first,)) for first in range(3)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert wrong == []


def test_products_wait_for_work_with_fewer_threads(rng):
    """Whose number a large one would have: its bits would depend on what other Python threads do."""
    a, b = factors(rng, 10**7)
    alone, found, held, end, done = np.empty((32, 500), "float32"), np.empty((32, 500), "float32"), *events(3)
    multiply(10**7, a, b, alone)

    def large():
        multiply(10**7, a, b, found)
        done.set()

    holder = threading.Thread(target=limited, args=(10**6, lambda: (held.set(), end.wait(60))))
    holder.start()
    held.wait(60)
    other = threading.Thread(target=large)
    other.start()
    early = done.wait(0.2)
    end.set()
    holder.join(60)
    other.join(60)
    assert not early
    np.testing.assert_array_equal(found, alone)


def events(count):
    return [threading.Event() for _ in range(count)]


def images(rng, dtype):
    return rng.standard_normal((96, 3, 16, 16)).astype(dtype), rng.integers(0, 5, 96)


NETS = {
    "dense": lambda: [gn.Flatten(), gn.Dense(100, "relu"), gn.Dense(64, "sigmoid"), gn.Dense(5)],
    "low rank": lambda: [gn.Flatten(), gn.LowRankDense(200, 40, "relu"), gn.Dense(5)],
    "conv": lambda: [gn.Conv2D(8, 3, "relu", pool=2), gn.Conv2D(24, 3, "relu"), gn.Flatten(), gn.Dense(5)],
}


@pytest.mark.slow
@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", NETS)
def test_small_nets_have_the_same_bits_on_any_number_of_threads(rng, net, dtype, device):
    """OpenBLAS would share products such as the first of "dense", 48 × 768 × 100, and round them differently."""
    x, y = images(rng, dtype)

    def trained(most):
        with threadpool_limits(most, user_api="blas"):
            trainer = gn.Trainer(gn.Sequential(NETS[net]()), optimizer=gn.Adam(1e-3), device=device, dtype=dtype)
            trainer.fit(x, y, batch_size=48, epochs=2)
            return {name: np.array(value) for name, value in trainer.model.parameters.items()}

    one, many = trained(1), trained(4)
    for name, value in one.items():
        np.testing.assert_array_equal(value, many[name])


def test_small_decompositions_have_the_same_bits_on_any_number_of_threads(rng):
    x, y = rng.standard_normal((300, 90)), np.arange(300) % 2

    def found(most):
        with threadpool_limits(most, user_api="blas"):
            grams = gn.StreamingGram(center=True).update(x)
            return (
                gn.svd(x, 9).u,
                gn.svd(x[:100, :80]).vt,
                gn.class_pca(x, y, variance=0.9).components,
                grams.components(5).components,
            )

    for one, many in zip(found(1), found(4), strict=True):
        np.testing.assert_array_equal(one, many)


def test_how_many_there_are_is_told_whatever_others_are_at():
    held, told = threading.Event(), []
    worker = threading.Thread(target=limited, args=(PER_THREAD, lambda: (held.set(), told.append(now()))))
    worker.start()
    held.wait(60)
    assert threads() == 4
    worker.join()
    assert told == [1]
    assert thread_rule() == ("one for each 2,000,000 multiplications of a product, at most 4")
    with threadpool_limits(1, user_api="blas"):
        assert (threads(), thread_rule()) == (1, "1")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_process_has_all_threads_and_its_turn(rng):
    a, b = factors(rng, 10**6)
    end = threading.Event()

    def work():
        out = np.empty((32, 500), "float32")
        while not end.is_set():
            multiply(10**6, a, b, out)

    worker = threading.Thread(target=work)
    worker.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if not child:  # no test framework's way out of here
            signal.alarm(20)
            os._exit(7 if now() == 4 and limited(PER_THREAD, now) == 1 else 8)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    end.set()
    worker.join(60)
    assert codes == [7] * 20


FORKED = """
import ctypes, functools, os, signal, sys, threading
from gpunet.backend import blas
assert "logging" not in sys.modules, "its own hooks would hear the signal first"
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(before=functools.partial(ctypes.CDLL(None).kill, os.getpid(), signal.SIGINT))
try:
    if not os.fork():
        os._exit(0)
except KeyboardInterrupt:
    print("heard")
os.wait()
got = []
other = threading.Thread(target=lambda: got.append(blas._turn.acquire(blocking=False)))
other.start()
other.join()
print(got, blas._waiting)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_ctrl_c_while_a_process_is_forked_is_heard_and_holds_no_turn():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n") == ["heard", "[True] set()", ""], done.stderr
    assert not done.stderr


WAITING = """
import os, signal, sys, threading
from gpunet.backend import blas
lost, held, end = [], threading.Event(), threading.Event()
sys.unraisablehook = lambda found: lost.append(found.exc_type.__name__)

def interrupt(number, frame):
    threading.Timer(0.2, end.set).start()
    raise KeyboardInterrupt

def hold():
    with blas._turn:
        held.set()
        end.wait(30)

signal.signal(signal.SIGALRM, interrupt)
threading.Thread(target=hold).start()
held.wait(30)
signal.setitimer(signal.ITIMER_REAL, 0.2)
child = os.fork()
got = []
other = threading.Thread(target=lambda: got.append(blas._turn.acquire(timeout=20)))
other.start()
other.join()
if not child:
    os._exit(7 if got == [True] else 1)
print(got, blas._waiting, os.waitstatus_to_exitcode(os.wait()[1]), lost[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_ctrl_c_while_a_fork_waits_for_its_turn_leaves_it_to_nobody():
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[True] set() 7 KeyboardInterrupt\n", done.stderr


def test_other_libraries_are_left_alone(rng, monkeypatch):
    monkeypatch.setattr(blas, "_calls", lambda: None)
    a, b = factors(rng, 10**6)
    out = np.empty((32, 500), "float32")
    multiply(10**6, a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
    assert limited(PER_THREAD, lambda: "work") == "work"
    assert thread_rule() == "4"


# -- LAPACK beside the main thread -----------------------------------------------------------------------------------

LONG_CALLS = {
    "gesdd": "gn.svd(a, method='full')",
    "syevd": "gn.svd(a, method='gram')",
    "syevr": "gn.svd(a, 400, method='gram', compute='right')",
    "gesvd": "def fail(*_, **__): raise np.linalg.LinAlgError\nnp.linalg.svd = fail; gn.svd(a, method='full')",
    "product": "blas.product(np.concatenate([a] * 4), np.concatenate([a] * 4, axis=1))",
    "ridge": "from gpunet.spectral.ridge import Moments\nMoments(3500, 2).update(a, np.arange(3500) % 2).solve(1.0)",
    "tiled": "from gpunet.spectral.ridge import TiledMoments\n"
    "TiledMoments(14000, 2).update(np.concatenate([a] * 4, axis=1), np.arange(3500) % 2)",
}
ALONE_AT_WORK = """
import sys, threading
import numpy as np, gpunet as gn
from gpunet.backend import blas
a = np.random.default_rng(0).standard_normal((3500, 3500))
start = threading.Thread.start
threading.Thread.start = lambda self: (start(self), print("begun", flush=True))
"""


def interrupted(code, after=0.3):
    """(seconds from Ctrl-C to the end, the exit code, what it said) of a process that is in LAPACK for a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE_AT_WORK + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(after)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    return time.monotonic() - began, process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_comes_while_lapack_computes(name):
    seconds, code, said = interrupted(LONG_CALLS[name])
    assert (code, said.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert seconds < 5  # half of one on a quiet machine


@pytest.mark.slow
def test_ctrl_c_of_a_command_is_one_line():
    seconds, code, said = interrupted(
        "import gpunet.cli, gpunet.cli.app\n"
        "gpunet.cli.app.app = lambda **how: gn.svd(a, method='full')\n"
        "sys.argv = ['gpunet', 'run']\ngpunet.cli.main()"
    )
    assert (code, said) == (130, "gpunet: interrupted; nothing half-written was left behind\n")
    assert seconds < 5


@pytest.mark.slow
def test_who_goes_on_after_ctrl_c_ends_as_always(tmp_path):
    """OpenBLAS, asked to end beside a call, waited for ever; what is to be done at the end is done."""
    seconds, code, said = interrupted(
        "import atexit\natexit.register(print, 'last', file=sys.stderr)\n"
        f"file = open({str(tmp_path / 'kept')!r}, 'w')\nfile.write('kept')\n"
        "try: gn.svd(a, method='full')\nexcept KeyboardInterrupt: a @ a[:, :500]\n"
        "threading.Thread.start = start\n"  # which else holds this module, and its file, as long as a thread is there
        "print('first', file=sys.stderr)\nsys.exit(3)"
    )
    assert (code, said) == (3, "first\nlast\n")
    assert (tmp_path / "kept").read_text() == "kept"
    assert seconds < 10


def test_what_a_signal_raises_comes_through_whatever_it_is():
    class AlarmError(RuntimeError):
        pass

    def ring(*_):
        raise AlarmError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    ends, calls = threading.Event(), []
    try:
        with pytest.raises(AlarmError):
            interruptible(LONG, lambda: calls.append(ends.wait(20)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        ends.set()
    assert len(calls) <= 1


def test_a_long_call_is_another_thread_and_nothing_else(rng):
    main, wanted = threading.get_ident(), rng.standard_normal(3)
    assert interruptible(LONG - 1, threading.get_ident) == main
    assert interruptible(LONG, threading.get_ident) != main
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        interruptible(LONG, np.divide, wanted, 0)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        interruptible(LONG, np.linalg.cholesky, -np.eye(3))
    other = []
    thread = threading.Thread(target=lambda: other.append(interruptible(LONG, threading.get_ident)))
    thread.start()
    thread.join(20)
    assert other == [thread.ident]  # which no signal reaches


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(1, 1), (40, 40), (200, 25), (300, 1)])
def test_syevr_is_scipys(n, k, rng):
    from scipy.linalg import eigh

    a = np.cov(rng.standard_normal((n, 2 * n))).reshape(n, n)
    before = a.copy()
    ours, theirs = leading_eigh(a, k), eigh(a, subset_by_index=(n - k, n - 1), driver="evr")
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(a, before)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 3), (200, 70), (70, 200), (64, 64)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gesvd_is_scipys(shape, order, rng):
    from scipy.linalg import svd

    a = np.asarray(rng.standard_normal(shape), order=order)
    a[:, -1] = 0
    before, theirs = a.copy(), svd(a, full_matrices=False, lapack_driver="gesvd")
    u, s, vt = sturdy_svd(a)
    assert [each.shape for each in (u, s, vt)] == [each.shape for each in theirs]
    np.testing.assert_allclose(s, theirs[1], atol=1e-13)
    np.testing.assert_allclose(u * s @ vt, a, atol=1e-12)
    for each in (u.T @ u, vt @ vt.T):
        np.testing.assert_allclose(each, np.eye(len(s)), atol=1e-12)
    np.testing.assert_array_equal(a, before)
    with pytest.raises(np.linalg.LinAlgError, match="gesvd did not converge"):
        sturdy_svd(np.full((4, 3), np.nan))


@pytest.fixture
def of(monkeypatch):
    """Whose LAPACK is called: that of NumPy's wheel, SciPy's where NumPy has another library, or none."""

    def choose(whose):
        monkeypatch.setattr(blas, "_lapack", blas._lapack.__wrapped__)
        if whose != "numpy":
            monkeypatch.setattr(blas, "_bundled", lambda: None)
        if whose == "none":
            monkeypatch.setitem(sys.modules, "scipy.linalg.cython_lapack", None)
        return blas._lapack("dsyevr", 21)

    return choose


@pytest.mark.parametrize(("whose", "bits"), [("numpy", 64), ("scipy", 32), ("none", 0)])
def test_whoever_is_asked_gives_the_same(whose, bits, of, monkeypatch, rng):
    known = of(whose)
    assert (0 if known is None else 8 * ctypes.sizeof(known[1])) == bits
    monkeypatch.setattr(blas, "IN_PLACE", 64)
    a = np.cov(rng.standard_normal((120, 300)))
    w, z = leading_eigh(a, 4)
    np.testing.assert_allclose(w, np.linalg.eigvalsh(a)[-4:], rtol=1e-12)
    np.testing.assert_allclose(a @ z, z * w, atol=1e-12)
    np.testing.assert_allclose(z.T @ z, np.eye(4), atol=1e-12)
    before = a.copy()
    assert (definite_below(a, w[-1] * (1 + 1e-9)), definite_below(a, w[-1] * (1 - 1e-9))) == (True, False)
    np.testing.assert_array_equal(a, before)
    a = a[:50, :50] + np.eye(50)
    right = rng.standard_normal((50, 3))
    np.testing.assert_allclose(a @ solve_factored(np.linalg.cholesky(a), right), right, atol=1e-11)
    if bits:
        np.testing.assert_allclose(sturdy_svd(a)[1], np.linalg.svd(a)[1], rtol=1e-12)
    else:
        with pytest.raises(np.linalg.LinAlgError, match=r"pip install 'gpunet\[fast\]'"):
            sturdy_svd(a)


def test_numpys_own_library_is_told_as_threadpoolctl_tells_it(monkeypatch):
    (own,) = blas.pools()
    monkeypatch.setattr(blas, "_bundled", lambda: None)
    (theirs,) = blas.pools()
    assert own == {name: theirs[name] for name in own}
    monkeypatch.setattr(blas, "_calls", blas._calls.__wrapped__)
    assert [call() for call in blas._calls()[:1]] == [4]  # the same library, found by threadpoolctl
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert (blas.pools(), blas._calls(), threads(), thread_rule()) == ([], None, None, None)


def test_one_thread_is_what_a_worker_has():
    code = "from gpunet.backend import blas; blas.one_thread(); print(blas.threads())"
    for hidden in ("", "import sys; sys.modules['threadpoolctl'] = None; "):
        done = subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, check=True)
        assert done.stdout == "1\n"


def test_without_scipy_next_to_nothing_is_multiplied_as_it_stands(monkeypatch, rng):
    a, b = np.zeros((2, 400, 30))
    a[5, 3], b[5, 7], b[9, 9] = 2, 3, 1
    with_it = blas.inner_of(blas.compressed(a), blas.compressed(b))
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    assert blas.compressed(a) is a
    np.testing.assert_array_equal(blas.inner_of(blas.compressed(a), blas.compressed(b)), with_it)


@pytest.mark.parametrize("size", [4, 400])
def test_a_product_is_numpys_wherever_it_runs(size, monkeypatch, rng):
    a, b = rng.standard_normal((size, 7)), rng.standard_normal((7, size)).T
    wanted, out, begun = a.T @ b, np.empty((7, 7)), []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (begun.append(self), start(self)))
    monkeypatch.setattr(blas, "LONG", 1000)
    np.testing.assert_array_equal(product(a.T, b), wanted)
    assert product(a.T, b, out) is out
    np.testing.assert_array_equal(out, wanted)
    assert len(begun) == (2 if size == 400 else 0)
