"""Which algorithm a product takes: the fastest by the clock, and then always that one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from gpunet.backend import cublaslt_choice as choice
from gpunet.backend.cublaslt import CublasLt
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.errors import CaptureError, InputError, RunError

from ..conftest import need_gpu
from .pretend import pretend

ROOT = Path(__file__).parents[2]
ALGORITHMS = {1: 1 << 40, 2: 0, 3: 0, 4: 1 << 20, 5: 0}  # the first wants more workspace than there is


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """What a new process knows."""

    def renew():
        monkeypatch.setattr(choice, "_chosen", {})
        monkeypatch.setattr(choice, "_closed", set())

    renew()
    return renew


@pytest.fixture
def cp():
    return machine({})


def machine(milliseconds):
    cp = pretend()
    cp.cublaslt.algorithms, cp.cublaslt.milliseconds = ALGORITHMS, milliseconds
    return cp


def tuned(cp, folder, **options):
    """What multiplies on that machine, by its clock; and a product of 64×32 and 32×16."""
    lt = CublasLt(cp, clock=cp.cublaslt.clock, folder=folder, **options)
    a, b, out = (cp.zeros(shape, "float32") for shape in ((64, 32), (32, 16), (64, 16)))
    return lt, lambda **more: lt.matmul(a, b, out, **more)


def taken(cp, folder, **options):
    """(the algorithm of a product, how many products were run to find it)."""
    _, product = tuned(cp, folder, **options)
    product()
    return cp.cublaslt.used[-1][0], len(cp.cublaslt.used) - 1


# -- the search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milliseconds", "right"),
    [
        ({2: 1.0, 3: 0.9, 4: 0.5, 5: 0.7}, 4),
        ({2: 1.0, 3: 0.96}, 2),  # 4 % faster is not clearly faster
        ({2: 1.0, 3: 0.94}, 3),
        ({1: 0.1, 2: 1.0, 3: 2.0}, 2),  # the workspace does not suffice for the first
        ({2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0}, 2),
    ],
)
def test_the_fastest_is_taken_where_it_is_clearly_faster(tmp_path, milliseconds, right):
    cp = machine(milliseconds)
    assert taken(cp, tmp_path)[0] == right
    assert 1 not in [number for number, _ in cp.cublaslt.used]
    assert cp.cublaslt.elapsed - cp.cublaslt.milliseconds[right] < choice.BUDGET


@pytest.mark.parametrize("status", [14, 15])
def test_a_candidate_that_fails_is_left_out(tmp_path, status):
    cp = machine({2: 1.0, 3: 0.1, 4: 0.5, 5: 0.9})
    cp.cublaslt.broken = {3: status}
    assert taken(cp, tmp_path)[0] == 4
    cp = machine({})
    cp.cublaslt.broken = {2: status}
    assert taken(cp, tmp_path / "first")[0] == 3  # whatever it takes: the first cannot be had


def test_where_none_works_the_products_own_error_is_seen(tmp_path):
    cp = machine({})
    cp.cublaslt.broken = dict.fromkeys(ALGORITHMS, 13)
    with pytest.raises(RunError, match="EXECUTION_FAILED"):
        taken(cp, tmp_path)


@pytest.mark.parametrize("milliseconds", [0.002, 0.2, 2.0, 6.0, 12.0, 20.0, 500.0])
def test_a_choice_takes_a_bounded_time(milliseconds):
    spent = []

    def clock(run, times):
        run()
        spent.append(milliseconds * times)
        return milliseconds

    best, times = choice.fastest([lambda: None] * 16, clock)
    assert best == 0
    assert times[0] == milliseconds
    assert sum(spent) <= max(choice.BUDGET, 2 * milliseconds)
    if milliseconds < 0.5:
        assert None not in times
        assert sum(spent) >= 16 * (2 + choice.ROUNDS) * milliseconds


@pytest.mark.parametrize("loading", [5.0, 100.0])
def test_the_time_that_loading_takes_is_nobodys(loading):
    """CUDA loads a kernel's code as it is launched for the first time."""
    loaded, asked = set(), []

    def clock(run, times):
        run()
        extra = 0.0 if asked[-1] in loaded else loading
        loaded.add(asked[-1])
        return {3: 0.2}.get(asked[-1], 0.5) + extra / times

    best, times = choice.fastest([lambda place=place: asked.append(place) for place in range(12)], clock)
    assert best == 3
    assert times == [0.2 if place == 3 else 0.5 for place in range(12)]


def test_a_device_that_wakes_up_slowly_favours_nobody():
    """Clocks rise while the candidates are tried one after the other: the first looks slow, and is not."""
    asked = []

    def clock(run, times):
        run()
        return (3.0 if len(asked) < 8 else 1.0) * (1.0 if asked[-1] == 0 else 1.02) / 100

    runs = [lambda place=place: asked.append(place) for place in range(12)]
    best, times = choice.fastest(runs, clock)
    assert best == 0
    assert times[0] == pytest.approx(0.01)


def test_the_clock_of_the_device_measures_launches_back_to_back():
    """On a stream whose host takes 8 µs to launch anything, and whose device takes 2 µs for a product."""
    now = types.SimpleNamespace(host=0.0, device=0.0)

    def issue(seconds):
        now.host += 8e-6
        now.device = max(now.device, now.host) + seconds

    def record():
        now.host += 1e-6
        now.device = max(now.device, now.host)
        return types.SimpleNamespace(at=now.device, synchronize=lambda: setattr(now, "host", max(now.host, now.device)))

    stream = types.SimpleNamespace(record=record)
    cuda = types.SimpleNamespace(
        get_current_stream=lambda: stream, get_elapsed_time=lambda start, end: 1e3 * (end.at - start.at)
    )
    spare = types.SimpleNamespace(fill=lambda value: issue(20e-6))
    clock = choice.device_clock(types.SimpleNamespace(cuda=cuda))(spare)
    assert clock(lambda: issue(2e-6), 8) == pytest.approx(2e-3, rel=0.1)
    assert clock(lambda: issue(5e-3), 3) == pytest.approx(5.0, rel=0.01)
    assert choice.device_clock(pretend()) is None  # its events tell no time


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_choice_is_kept_in_the_process_and_on_disk(tmp_path, process):
    assert taken(machine({2: 1.0, 5: 0.5}), tmp_path)[0] == 5
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["algorithm"] == 4  # counted from 0 in the heuristic's order
    assert kept["milliseconds"] == [None, 1.0, 1.0, 1.0, 0.5]
    assert kept["kind"]["shapes"] == [[64, 32], [32, 16], [64, 16]]
    other = {2: 0.1}  # what a clock would say now
    assert taken(machine(other), tmp_path) == (5, 0)
    process()
    assert taken(machine(other), tmp_path) == (5, 0)
    process()
    file.unlink()
    assert taken(machine(other), tmp_path)[0] == 2


def test_another_process_takes_it_up(tmp_path):
    assert taken(machine({2: 1.0, 5: 0.5}), tmp_path)[0] == 5
    script = (
        "import pathlib, sys; from tests.cuda.test_cublaslt_choice import machine, taken; "
        "print(*taken(machine({}), pathlib.Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["5", "0"]


@pytest.mark.parametrize(
    "change",
    [
        {"cublasLtGetVersion": 130200}, {"driverGetVersion": 13010}, {"name": b"Another GPU"},
        {"multiProcessorCount": 132},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_choice_is_one_machines(tmp_path, change):
    assert taken(machine({2: 1.0, 5: 0.5}), tmp_path)[0] == 5
    cp = machine({2: 1.0, 3: 0.5})
    ((name, value),) = change.items()
    properties = cp.cuda.runtime.getDeviceProperties(0)
    if name in properties:
        cp.cuda.runtime.getDeviceProperties = lambda index: properties | {name: value}
    else:
        setattr(cp.cuda.runtime if hasattr(cp.cuda.runtime, name) else cp.cublaslt, name, lambda: value)
    assert taken(cp, tmp_path)[0] == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_a_choice_is_one_kind_of_products(tmp_path):
    cp = machine({2: 1.0, 5: 0.5})
    lt, product = tuned(cp, tmp_path)
    product()
    buffer, bias = cp.zeros(2049, "float32"), cp.zeros(20, "float32")
    x, w, out = (cp.zeros(shape, "float32") for shape in ((64, 32), (32, 16), (64, 16)))
    wide = [each.astype("float64") for each in (x, w, out)]
    half = [each.astype("uint16") for each in (x, w, out)]
    others = [
        lambda: lt.matmul(buffer[1:].reshape(64, 32), w, out),
        lambda: lt.matmul(x, cp.zeros((16, 32), "float32"), out, transpose_b=True),
        lambda: lt.matmul(*wide),
        lambda: lt.matmul(*half[:2], out),
        lambda: lt.matmul(*half),
        lambda: product(bias=bias[:16]),
        lambda: product(bias=bias[:16], relu=True),
        lambda: product(bias=bias[4:]),  # 16 bytes further: aligned to 16 instead of 256
        lambda: tuned(cp, tmp_path, tf32=True)[1](),
        lambda: tuned(cp, tmp_path, workspace_bytes=8 << 20)[1](),
    ]
    for count, other in enumerate(others, start=2):
        other()
        assert cp.cublaslt.used[-1][0] == 5
        assert len(list(tmp_path.iterdir())) == count
    searched = len(cp.cublaslt.used)
    tuned(cp, tmp_path, tf32=True)[0].matmul(*wide)  # TF32 is nothing to float64
    product(branch=1)
    product(tf32=True)  # asked for by a product or in the environment: the same kind
    assert len(cp.cublaslt.used) == searched + 3


DAMAGED = {
    "empty": lambda kept: "",
    "cut": lambda kept: json.dumps(kept)[:-9],
    "no JSON": lambda kept: "algorithm: 4",
    "a list": lambda kept: "[4]",
    "no number": lambda kept: json.dumps(kept | {"algorithm": "4"}),
    "True": lambda kept: json.dumps(kept | {"algorithm": True}),
    "too high": lambda kept: json.dumps(kept | {"algorithm": 16}),
    "negative": lambda kept: json.dumps(kept | {"algorithm": -1}),
    "not usable": lambda kept: json.dumps(kept | {"algorithm": 0}),
    "foreign": lambda kept: json.dumps(kept | {"kind": kept["kind"] | {"device": "Another GPU"}}),
    "long": lambda kept: json.dumps(kept) + " " * choice.LONGEST,
    "deep": lambda kept: "[" * choice.LONGEST,
    "twice": lambda kept: json.dumps(kept)[:-1] + ', "algorithm": 4}',
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_or_foreign_file_is_rewritten(tmp_path, process, what):
    assert taken(machine({2: 1.0, 5: 0.5}), tmp_path)[0] == 5
    (file,) = tmp_path.iterdir()
    file.write_text(DAMAGED[what](json.loads(file.read_text())))
    process()
    assert taken(machine({2: 1.0, 3: 0.5}), tmp_path)[0] == 3
    process()
    assert taken(machine({}), tmp_path) == (3, 0)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def no_folder(folder, monkeypatch):
    folder.parent.mkdir()
    folder.write_text("a file in the folder's place")


def read_only(folder, monkeypatch):
    folder.mkdir(parents=True)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gpunet.files._created", refuse)  # as root nothing is refused


def no_links(folder, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("closed", [no_folder, read_only, no_links])
def test_where_nothing_can_be_kept_the_heuristics_first_is_taken(tmp_path, monkeypatch, closed):
    folder = tmp_path / "cache" / "cublaslt"
    closed(folder, monkeypatch)
    cp = machine({2: 1.0, 5: 0.5})
    _, product = tuned(cp, folder)
    product()
    assert cp.cublaslt.used[-1][0] == 2
    searched = len(cp.cublaslt.used)
    product(bias=cp.zeros(16, "float32"))  # of another kind: nothing is timed any more
    assert [number for number, _ in cp.cublaslt.used[searched:]] == [2]
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_link_or_a_pipe_in_the_files_place_is_not_followed(tmp_path, process):
    assert taken(machine({2: 1.0, 5: 0.5}), tmp_path)[0] == 5
    (file,) = tmp_path.iterdir()
    for stand in (lambda: file.symlink_to(tmp_path / "elsewhere"), lambda: os.mkfifo(file)):
        file.unlink()
        stand()
        process()
        assert taken(machine({2: 1.0, 5: 0.5}), tmp_path) == (2, 0)
        assert not (tmp_path / "elsewhere").exists()


def test_the_first_of_two_processes_decides(tmp_path, process):
    """Both find nothing and time; the slower one sees when it writes that it was not the first, and follows."""
    cp, other = machine({2: 1.0, 5: 0.5}), machine({2: 1.0, 3: 0.5})

    def clock(spare):
        process()
        assert taken(other, tmp_path)[0] == 3
        process()
        return cp.cublaslt.clock(spare)

    a, b, out = (cp.zeros(shape, "float32") for shape in ((64, 32), (32, 16), (64, 16)))
    CublasLt(cp, clock=clock, folder=tmp_path).matmul(a, b, out)
    assert cp.cublaslt.used[-1][0] == 3


@pytest.mark.slow
def test_many_processes_agree(tmp_path):
    script = (
        "import pathlib, sys; from tests.cuda.test_cublaslt_choice import machine, taken; sys.stdin.readline(); "
        "print(taken(machine({int(sys.argv[2]): 0.5}), pathlib.Path(sys.argv[1]))[0])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(number)], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in (3, 4, 5)
    ]  # fmt: skip
    for each in started:
        each.stdin.write("\n")
        each.stdin.flush()
    said = {each.communicate(timeout=120)[0].strip() for each in started}
    assert len(said) == 1
    assert said <= {"3", "4", "5"}


def test_threads_share_a_choice_that_is_made_once(tmp_path):
    searches, found = [], []
    both = threading.Barrier(2, timeout=60)

    def work(milliseconds):
        cp = machine(milliseconds)

        def clock(spare):
            searches.append(cp)
            return cp.cublaslt.clock(spare)

        a, b, out = (cp.zeros(shape, "float32") for shape in ((64, 32), (32, 16), (64, 16)))
        lt = CublasLt(cp, clock=clock, folder=tmp_path)
        both.wait()
        lt.matmul(a, b, out)
        found.append(cp.cublaslt.used[-1][0])

    threads = [threading.Thread(target=work, args=({2: 1.0, fast: 0.5},)) for fast in (3, 5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(searches) == 1
    assert len(set(found)) == 1
    assert len(found) == 2


# -- when nothing is timed ---------------------------------------------------------------------------------------------


def test_nothing_is_timed_while_a_stream_captures(tmp_path, cp):
    _, product = tuned(cp, tmp_path)
    stream = cp.cuda.Stream()
    with stream:
        stream.begin_capture()
        with pytest.raises(CaptureError, match="run the step once before"):
            product()
        stream.end_capture()
    assert cp.cublaslt.used == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("word", "right"), [("off", 2), ("auto", 5), ("", 5)])
def test_the_environment_switches_it_off(tmp_path, monkeypatch, word, right):
    monkeypatch.setenv("GPUNET_TUNING", word)
    assert taken(machine({2: 1.0, 5: 0.5}), tmp_path)[0] == right
    assert bool(list(tmp_path.iterdir())) is (right == 5)


def test_another_word_in_the_environment_is_a_mistake(cp, monkeypatch):
    monkeypatch.setenv("GPUNET_TUNING", "on")
    with pytest.raises(InputError, match="GPUNET_TUNING is 'on': expected one of auto, off"):
        CublasLt(cp)


def test_small_products_and_the_check_are_not_timed(tmp_path, cp):
    lt, _ = tuned(cp, tmp_path)
    lt.check("float32")
    small = cp.zeros((16, 16), "float32")
    lt.matmul(small, small, cp.zeros((16, 16), "float32"))
    assert len(cp.cublaslt.used) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, appauthor: str(tmp_path / name))
    assert choice.cache_folder() == tmp_path / "gpunet" / "cublaslt"


def test_a_checkout_beside_which_platformdirs_is_missing_has_one_too(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert choice.cache_folder() == tmp_path / "gpunet" / "cublaslt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choice.cache_folder() == tmp_path / ".cache" / "gpunet" / "cublaslt"


# -- what a product is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [True, False])
def test_bias_relu_and_nan_are_as_they_were(tmp_path, rng, keeps):
    cp = machine({2: 1.0, 5: 0.5})
    cp.cublaslt.relu_keeps_nan = keeps
    lt = CublasLt(cp, clock=cp.cublaslt.clock, folder=tmp_path)
    host = [rng.normal(size=shape).astype("float32") for shape in ((64, 32), (32, 16), (16,))]
    host[0][3] = np.nan
    a, b, bias = map(cp.asarray, host)
    other = cp.asarray(host[2] + 1)
    out = cp.empty((64, 16), "float32")
    for each in (bias, other, None):
        lt.matmul(a, b, out, bias=each, relu=True)
        right = host[0].astype(float) @ host[1] + (0 if each is None else cp.asnumpy(each))
        np.testing.assert_allclose(cp.asnumpy(out), np.maximum(right, 0), rtol=1e-4, atol=1e-4)
        assert cp.cublaslt.used[-1][0] == 5
    cp.machine.check_guards()


# -- on a GPU, and on the pretend one with events that tell a time -----------------------------------------------------


@pytest.fixture(params=["pretend", pytest.param("real", marks=pytest.mark.gpu)])
def timed(request, monkeypatch):
    """The module cupy, with events that tell how long products take."""
    monkeypatch.delenv("GPUNET_TUNING", raising=False)
    if request.param == "real":
        need_gpu()
        import cupy

        return cupy
    cp = machine({2: 0.02, 5: 0.005})

    def record(stream, event=None):
        return types.SimpleNamespace(at=cp.cublaslt.elapsed, synchronize=lambda: None)

    monkeypatch.setattr(cp.machine.Stream, "record", record)
    cp.cuda.get_elapsed_time = lambda start, end: end.at - start.at
    return cp


def test_by_the_devices_clock(tmp_path, process, timed, rng):
    backend = CupyBackend(module=timed)
    host = [rng.normal(size=shape).astype("float32") for shape in ((64, 200), (100, 200), (100,))]
    found = []
    for _ in range(2):
        process()
        with backend.session():
            lt = CublasLt(timed, folder=tmp_path)
            a, b, bias = map(timed.asarray, host)
            out = timed.empty((64, 100), "float32")
            lt.matmul(a, b, out, transpose_b=True, bias=bias)
            found.append(timed.asnumpy(out))
    np.testing.assert_array_equal(*found)
    right = host[0].astype(float) @ host[1].T + host[2]
    np.testing.assert_allclose(found[0], right, atol=2e-6 * np.sqrt(200) * np.abs(right).max())
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    chosen = kept["milliseconds"][kept["algorithm"]]
    assert 5e-4 < chosen < 5
    assert chosen <= min(time for time in kept["milliseconds"] if time is not None) / choice.CLEARLY
