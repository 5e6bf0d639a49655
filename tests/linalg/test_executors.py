"""Sums by other processes: the same bits whoever computes, and one clear error where nobody is left."""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing
import os
import signal
import struct
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet as gn
from gpunet.decompose import Settings, executor_of
from gpunet.errors import InputError, RunError
from gpunet.linalg import executors
from gpunet.linalg.executors import Tree, results
from gpunet.progress import Progress

ROWS, FEATURES = 6000, 20
BATCH = 100  # 60 of them, and about 20 leaves


def numbers(dtype):
    rng = np.random.default_rng(3)
    if dtype == "uint8":
        return rng.integers(0, 256, (ROWS, FEATURES), dtype="uint8")
    return (rng.normal(size=(ROWS, FEATURES)) * np.geomspace(1, 30, FEATURES) + 5).astype(dtype)


@pytest.fixture
def path(tmp_path):
    def write(dtype):
        np.save(tmp_path / f"{dtype}.npy", numbers(dtype))
        return tmp_path / f"{dtype}.npy"

    return write


def same_sums(found, expected):
    if hasattr(expected, "classes"):
        assert sorted(found.classes) == sorted(expected.classes)
        return all(same_sums(found.classes[c], expected.classes[c]) for c in expected.classes)
    assert found.count == expected.count
    return np.array_equal(found.gram(), expected.gram()) and np.array_equal(found.mean, expected.mean)


class At(Progress):
    """Calls something when so many leaves are done."""

    def __init__(self, when, what):
        self.left, self.what = when, what

    def advance(self, parts=1, note=""):
        self.left -= 1
        if self.left == 0:
            self.what()


# -- any executor -----------------------------------------------------------------------------------------------------


def pool_of_two():
    return cf.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes():
    with pool_of_two() as pool:
        yield pool


@pytest.fixture(params=["threads", "processes"])
def executor(request):
    if request.param == "processes":
        yield request.getfixturevalue("processes")
        return
    with cf.ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labelled", [False, True])
def test_reproducible_sums_have_the_same_bits_for_any_batch(executor, path, dtype, labelled):
    x, labels = numbers(dtype), np.arange(ROWS) % 3 if labelled else None
    kind = gn.linalg.StreamingClassGram if labelled else gn.StreamingGram
    once = kind(reproducible=True).update(x, *([labels] if labelled else []))
    for batch in (BATCH, 1000):
        found = gn.gram(path(dtype), labels, batch=batch, executor=executor, reproducible=True)
        assert same_sums(found, once)
        a, b = found.components(3), once.components(3)
        assert np.array_equal(a.components, b.components)
    order = np.random.default_rng(0).permutation(ROWS)
    assert same_sums(gn.gram(x[order], labels if labels is None else labels[order], reproducible=True), once)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("labelled", [False, True])
def test_executors_give_the_bits_of_one_process(executor, path, dtype, labelled):
    labels = np.arange(ROWS) % 3 if labelled else None
    alone = gn.gram(path(dtype), labels, batch=BATCH)
    for source in (path(dtype), numbers(dtype)):
        assert same_sums(gn.gram(source, labels, batch=BATCH, executor=executor), alone)
        assert same_sums(gn.gram(source, labels, batch=BATCH, executor=executor, in_flight=1), alone)
    if dtype == "uint8":
        x = numbers(dtype)
        once = gn.StreamingGram().update(x) if labels is None else gn.linalg.StreamingClassGram().update(x, labels)
        assert same_sums(alone, once)


def test_batches_of_an_iterable_are_summed_by_an_executor(executor):
    x, labels = numbers("float32"), np.arange(ROWS) % 3
    pieces = [(x[start : start + 37], labels[start : start + 37]) for start in range(0, ROWS, 37)]
    assert same_sums(gn.gram(iter(pieces), executor=executor), gn.gram(pieces))
    halves = gn.gram((each for each, _ in pieces), executor=executor)
    assert same_sums(halves, gn.gram(each for each, _ in pieces))


def test_components_of_an_executors_sums(processes, path):
    found = gn.gram(path("float32"), center=True, executor=processes).components(3)
    np.testing.assert_allclose(
        abs(found.components), abs(gn.gram(path("float32"), center=True).components(3).components)
    )


def test_mistakes_come_back_from_workers(executor, tmp_path):
    x = numbers("float32")
    x[4321, 7] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InputError, match=r"x\.npy holds nan at \[4321, 7\]"):
        gn.gram(tmp_path / "x.npy", executor=executor, batch=BATCH)
    assert executor.submit(int, 3).result() == 3, "the executor is its owner's"


class Counting(cf.Executor):
    """Runs what it is given when somebody waits for it; counts."""

    def __init__(self):
        self.pool, self.begun, self.most, self.taken = cf.ThreadPoolExecutor(1), [], 0, 0

    def submit(self, function, /, *args, **kwargs):
        future = self.pool.submit(function, *args, **kwargs)
        self.begun.append(future)
        return future


def test_an_executor_that_returns_no_future_is_told(path):
    class Nothing(cf.Executor):
        def submit(self, function, /, *args, **kwargs):
            return None

    with pytest.raises(InputError, match=r"executor\.submit returned None: expected a concurrent\.futures\.Future"):
        gn.gram(path("uint8"), executor=Nothing())


def test_so_many_are_in_flight_and_no_more():
    counting = Counting()
    for number, found in enumerate(results(counting, ((int, str(n)) for n in range(20)), 4)):
        assert found == number
        assert len(counting.begun) <= number + 4
    counting.pool.shutdown()


def test_an_interruption_cancels_what_is_pending(path):
    counting = Counting()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gn.gram(path("uint8"), executor=counting, batch=BATCH, in_flight=8, progress=At(3, interrupted))
    counting.pool.shutdown()
    assert sum(future.cancelled() for future in counting.begun) >= len(counting.begun) - 5
    assert len(counting.begun) < 15


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40))
def test_the_tree_keeps_order_and_pairs_neighbours(numbers):
    class Sums(list):
        def merge(self, other):
            return Sums([*self, *other]) if len(self) == len(other) or len(self) > len(other) else None

    tree = Tree()
    for each in numbers:
        tree.add(Sums([each]))
        assert len(tree._waiting) <= len(numbers).bit_length()
    assert list(tree.total(Sums())) == numbers


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_pool_that_lost_a_process_says_so(path):
    with pool_of_two() as pool:
        pid = pool.submit(os.getpid).result()
        killed = At(2, lambda: os.kill(pid, signal.SIGKILL))
        with pytest.raises(
            RunError,
            match=r"workers, or what leads them, were lost, BrokenProcessPool: .*expected them to live.*run this",
        ):
            gn.gram(path("float64"), executor=pool, batch=20, in_flight=2, progress=killed)
        with pytest.raises(RunError, match="were lost"):
            gn.gram(path("float64"), executor=pool)


def half_a_result(begun, end):
    """A worker's task: it begins to write a result, as one that is killed in the middle of it has, and then ends."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals["result_queue"]._writer.fileno(), struct.pack("!i", 1000) + b"the first of 1000 bytes")
    begun.touch()
    if end:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@pytest.mark.skipif(sys.platform == "win32", reason="its pipes are written otherwise")
def test_a_process_that_is_lost_in_the_middle_of_a_result_is_told(tmp_path, monkeypatch):
    """The pool's thread waited for the rest of it, for ever, and so did we."""
    monkeypatch.setattr(executors, "UNSEEN", 0.1)
    with pool_of_two() as pool, pytest.raises(RunError, match="were lost, BrokenProcessPool"):
        list(results(pool, [(half_a_result, tmp_path / "begun", True), (time.sleep, 60)], 2))


@pytest.mark.skipif(sys.platform == "win32", reason="its pipes are written otherwise")
def test_an_end_in_the_middle_of_a_result_waits_for_nobody(tmp_path):
    """Ctrl-C ends processes wherever they are; a command that met one in the middle of a result hung."""

    def interrupted():
        with executor_of(Settings(workers=2)) as pool:
            futures = [pool.submit(half_a_result, tmp_path / "begun", False), pool.submit(time.sleep, 60)]
            while not (tmp_path / "begun").exists():
                assert not cf.wait(futures, timeout=0.1).done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a terminal are no signals there")
def test_a_process_that_has_just_begun_is_deaf_to_ctrl_c(capfd):
    """It ended with a traceback for as long as it was importing."""
    with executor_of(Settings(workers=2)) as pool:
        future = pool.submit(os.getpid)
        (pid,) = pool._processes
        os.kill(pid, signal.SIGINT)
        assert future.result(timeout=30) == pid
    assert capfd.readouterr() == ("", "")


def test_an_executor_that_was_shut_down_says_so(path):
    pool = cf.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(
        RunError,
        match="workers, or what leads them, were lost, RuntimeError: cannot schedule new futures after shutdown",
    ):
        gn.gram(path("uint8"), executor=pool)


# -- Dask -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes on this machine, as those of a cluster are started; one that is killed comes back."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'gpunet[dask]'")
    import dask
    from distributed import LocalCluster

    never = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause", "terminate")}
    with dask.config.set({**never, "distributed.comm.timeouts.connect": "10s"}), LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1", silence_logs=50
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
def client(cluster):
    from distributed import Client

    cluster.scale(2)
    with Client(cluster, timeout=20) as made:
        made.wait_for_workers(2, timeout=60)
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("labelled", [False, True])
def test_dask_gives_the_bits_of_one_process(client, path, dtype, labelled):
    labels = np.arange(ROWS) % 3 if labelled else None
    alone = gn.gram(path(dtype), labels, batch=BATCH)
    with client.get_executor() as executor:
        for source in (path(dtype), numbers(dtype)):
            assert same_sums(gn.gram(source, labels, batch=BATCH, executor=executor), alone)


@pytest.mark.slow
def test_dask_arrays_are_read_by_dasks_workers(client, path):
    array = pytest.importorskip("dask.array").from_array(numbers("float32"), chunks=(700, 8))
    with client.get_executor() as executor:
        assert same_sums(gn.gram(array, batch=BATCH, executor=executor), gn.gram(numbers("float32"), batch=BATCH))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "exactly"), [("uint8", False), ("float32", False), ("float32", True)])
def test_the_same_bits_when_a_worker_is_killed_in_the_middle(client, path, dtype, exactly):
    alone = gn.gram(path(dtype), batch=BATCH, reproducible=exactly)
    if exactly or dtype == "uint8":
        assert same_sums(alone, gn.StreamingGram(reproducible=exactly).update(numbers(dtype)))
    pid = next(iter(client.run(os.getpid).values()))
    killed = At(3, lambda: os.kill(pid, signal.SIGKILL))
    options = {"batch": BATCH, "reproducible": exactly, "progress": killed, "in_flight": 4}
    with client.get_executor() as executor:
        assert same_sums(gn.gram(path(dtype), executor=executor, **options), alone)
    assert killed.left <= 0
    assert pid not in client.run(os.getpid).values()


@pytest.mark.slow
def test_mistakes_come_back_from_dasks_workers(client, tmp_path):
    x = numbers("float32")
    x[17, 3] = np.inf
    np.save(tmp_path / "x.npy", x)
    with client.get_executor() as executor, pytest.raises(InputError, match=r"x\.npy holds inf at \[17, 3\]"):
        gn.gram(tmp_path / "x.npy", executor=executor, batch=BATCH)
    with pytest.raises(InputError, match=r"executor is .*of a Dask client it is client\.get_executor\(\)"):
        gn.gram(tmp_path / "x.npy", executor=client)


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_told(client):
    with (
        client.get_executor() as executor,
        pytest.raises(RunError, match="workers, or what leads them, were lost, KilledWorker"),
    ):
        list(results(executor, [(die,)], None))


@pytest.mark.slow
def test_a_cluster_that_has_lost_all_workers_is_told(cluster, client, path, monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", 2.0)
    began = time.monotonic()
    gone = At(3, lambda: threading.Thread(target=cluster.scale, args=(0,)).start())
    with (
        client.get_executor() as executor,
        pytest.raises(RunError, match="Dask cluster has had no worker, or no scheduler, for 2 s: expected at least"),
    ):
        list(results(executor, ((time.sleep, 0.2 + n * 1e-6) for n in Ticking(range(1000), gone)), 4))
    assert time.monotonic() - began < 60


class Ticking:
    def __init__(self, items, progress):
        self.items, self.progress = items, progress

    def __iter__(self):
        for each in self.items:
            self.progress.advance()
            yield each
