"""Training on a GPU: recorded steps are eager ones to the bit, and both are the CPU's up to rounding."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.bench.gpu import nodes
from gpunet.progress import Progress

OPTIMISERS = {
    "sgd": lambda: gn.SGD(0.1),
    "momentum": lambda: gn.SGD(0.05, momentum=0.9),
    "adam": lambda: gn.Adam(3e-3),
    "adam, l2": lambda: gn.Adam(3e-3, l2=1e-4),
}
NETS = {
    "dense": lambda: [gn.Dense(32, "relu"), gn.Dense(16, "sigmoid"), gn.Dense(10)],
    "factored": lambda: [gn.Dense(32, "relu"), gn.LowRankDense(32, 4, "relu"), gn.Dense(10)],
    "frozen below": lambda: [gn.Dense(32, "relu", trainable=False), gn.Dense(16, "relu"), gn.Dense(10)],
    "convolution": lambda: [
        gn.Reshape((1, 8, 8)), gn.Conv2D(4, 3, "relu", pool=2), gn.Conv2D(6, 3, "relu", padding="same"),
        gn.MaxPool2D(3), gn.Flatten(), gn.Dense(10),
    ],
    "averages": lambda: [
        gn.Reshape((1, 8, 8)), gn.Conv2D(6, 2, "relu", pool=3, pooling="average", pool_stride=2, trainable=False),
        gn.Conv2D(4, 1, "tanh", pool=2, pooling="average", pool_stride=1), gn.AvgPool2D(), gn.Flatten(), gn.Dense(10),
    ],
}  # fmt: skip
FORKING = {
    "wide": lambda: [
        gn.Dense(33, "relu"), gn.Dense(40, "sigmoid"), gn.LowRankDense(34, 20, "relu"), gn.Dense(24),
        gn.Activation("relu"), gn.Dense(10),
    ],
    "merged": lambda: [gn.Dense(40, "relu"), gn.LowRankDense(36, 34, "sigmoid"), gn.Dense(20, "relu"), gn.Dense(10)],
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return gn.datasets.load("digits")


def trained(device, digits, net="dense", optimiser="adam", samples=330, epochs=2, graphs="auto", batch=64, **options):
    """A trainer after some epochs, the last batch of each with a few samples only, and its history."""
    trainer = gn.Trainer(
        gn.Sequential((NETS | FORKING)[net]()), optimizer=OPTIMISERS[optimiser](), device=device, seed=3, graphs=graphs
    )
    history = trainer.fit(
        digits.x_train[:samples], digits.y_train[:samples], epochs=epochs, batch_size=batch,
        validation_data=(digits.x_test[:50], digits.y_test[:50]), **options,
    )  # fmt: skip
    return trainer, history


def few(gpu):
    """Work that the pretend GPU does in a second, where every thread of a convolution has its turn on the CPU."""
    return {} if gpu.real else {"samples": 27, "batch": 8}


def weights(trainer):
    return trainer.backend.to_host(trainer.model.flat[0]).copy()


@pytest.mark.parametrize(
    ("net", "optimiser"), [("dense", optimiser) for optimiser in OPTIMISERS] + [(net, "adam") for net in [*NETS][1:]]
)
def test_replay_is_bit_identical_to_eager(gpu, digits, net, optimiser):
    work = few(gpu) if net in ("convolution", "averages") else {}
    recorded, history = trained(gpu.backend(), digits, net, optimiser, **work)
    eager, expected = trained(gpu.backend(), digits, net, optimiser, graphs="off", **work)
    assert recorded.graphs.reason == "", "steps were not recorded"
    assert eager.graphs.reason
    np.testing.assert_array_equal(weights(recorded), weights(eager))
    for metric in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert history[metric] == expected[metric]


def test_the_same_run_twice_gives_the_same_bits(gpu, digits):
    first, second = (trained(gpu.backend(), digits, "convolution", **few(gpu))[0] for _ in range(2))
    np.testing.assert_array_equal(weights(first), weights(second))


@pytest.mark.parametrize("net", NETS)
def test_initial_weights_are_the_cpus_to_the_bit(gpu, digits, net):
    both = []
    for device in (gpu.backend(), get_backend("numpy")):
        trainer = gn.Trainer(gn.Sequential(NETS[net]()), device=device, seed=11)
        trainer.prepare((64,))
        both.append(weights(trainer))
    assert np.ptp(both[0]) > 0
    np.testing.assert_array_equal(*both)


def test_batches_are_the_cpus(gpu, digits, monkeypatch):
    drawn: dict[str, list[np.ndarray]] = {}
    upload_order = gn.Trainer._upload_order

    def spying(trainer, order):
        placed = upload_order(trainer, order)
        drawn.setdefault(trainer.backend.name, []).append(np.array(trainer.backend.to_host(placed)))
        return placed

    monkeypatch.setattr(gn.Trainer, "_upload_order", spying)
    for device in (gpu.backend(), get_backend("numpy")):
        trained(device, digits, epochs=3)
    assert len(drawn["cpu"]) == 3
    np.testing.assert_array_equal(drawn[gpu.backend().name], drawn["cpu"])
    assert (drawn["cpu"][0] != drawn["cpu"][1]).any()


class Curve(gn.Callback):
    """The mean loss so far, before every tenth step."""

    def __init__(self):
        self.losses = []

    def steps(self, total):
        return range(10, total, 10)

    def on_step(self, trainer, step):
        self.losses.append(trainer.tally.means()[0])


@pytest.mark.parametrize("net", ["dense", "factored", "convolution"])
def test_the_loss_curve_over_an_epoch_is_the_cpus(gpu, digits, net):
    curves = []
    work = {"samples": 1400} | ({"samples": 100, "batch": 8} if net == "convolution" and not gpu.real else {})
    for device in (gpu.backend(), get_backend("numpy")):
        curve = Curve()
        _, history = trained(device, digits, net, epochs=1, callbacks=[curve], **work)
        curves.append([*curve.losses, *history["train_loss"], *history["validation_loss"]])
    assert len(curves[0]) >= 3
    assert curves[0][0] != curves[0][1], "the loss does not move"
    np.testing.assert_allclose(curves[0], curves[1], rtol=0, atol=1e-3)


def test_float64_agrees_to_rounding(gpu, digits):
    x, y = digits.x_train[:200], digits.y_train[:200]
    outputs = []
    for device in (gpu.backend(), get_backend("numpy")):
        trainer = gn.Trainer(gn.Sequential(NETS["dense"]()), device=device, dtype="float64")
        trainer.fit(x, y, epochs=2, batch_size=64)
        outputs.append(trainer.outputs(x))
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-10)


class Interrupted(Progress):
    """Ctrl-C in the third epoch."""

    epochs = 0

    def advance(self, parts=1, note=""):
        self.epochs += parts > 0
        if self.epochs > 2:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("graphs", ["auto", "off"])
def test_an_interrupted_run_goes_on_to_the_same_bits(gpu, digits, tmp_path, graphs):
    whole, history = trained(gpu.backend(), digits, epochs=4, graphs=graphs)
    with pytest.raises(KeyboardInterrupt):
        trained(gpu.backend(), digits, epochs=4, graphs=graphs, checkpoint=tmp_path, checkpoint_every=0.5,
                progress=Interrupted())  # fmt: skip
    again, resumed = trained(
        gpu.backend(), digits, epochs=4, graphs=graphs, checkpoint=tmp_path, checkpoint_every=0.5, resume=True
    )
    np.testing.assert_array_equal(weights(again), weights(whole))
    assert resumed["train_loss"] == history["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["restart", "carry-both"])
def test_factorise_in_mid_training(gpu, digits, state):
    """A new layout in mid-training: the old recordings are dropped, and the cut is the CPU's."""
    outcomes = {}
    for name, device, graphs in (
        ("gpu", gpu.backend(), "auto"), ("gpu, eager", gpu.backend(), "off"), ("cpu", get_backend("numpy"), "auto"),
    ):  # fmt: skip
        cut = gn.Factorise(0.4, gn.BreakEven(0.5), state=state, policy="always", merge=False)
        trainer, history = trained(device, digits, "dense", epochs=4, graphs=graphs, callbacks=[cut])
        assert cut.conversions
        outcomes[name] = history["train_loss"], history["validation_accuracy"], weights(trainer)
        assert any(isinstance(layer, gn.LowRankDense) for layer in trainer.model.layers)
    np.testing.assert_array_equal(outcomes["gpu"][2], outcomes["gpu, eager"][2])
    np.testing.assert_allclose(outcomes["gpu"][0], outcomes["cpu"][0], rtol=0, atol=1e-3)


def test_saved_on_one_device_and_loaded_on_the_other(gpu, digits, tmp_path):
    trainer, _ = trained(gpu.backend(), digits, "factored")
    gn.save(trainer.model, tmp_path / "model.safetensors")
    x = digits.x_test[:50]
    for device in ("numpy", gpu.backend()):
        model = gn.load(tmp_path / "model.safetensors", device=device)
        outputs = gn.Trainer(model, device=model.backend).outputs(x)
        np.testing.assert_allclose(outputs, trainer.outputs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_gradient_check(gpu, net):
    rng = np.random.default_rng(0)
    small = {
        "dense": [gn.Dense(7, "relu"), gn.Dense(6, "sigmoid"), gn.Dense(4)],
        "factored": [gn.LowRankDense(7, 2, "relu"), gn.Dense(4)],
        "frozen below": [gn.Dense(7, "relu", trainable=False), gn.Dense(5, "relu"), gn.Dense(4)],
        "convolution": [
            gn.Reshape((1, 4, 4)), gn.Conv2D(3, 3, "relu", padding="same", pool=2), gn.Flatten(), gn.Dense(4),
        ],
        "averages": [
            gn.Reshape((1, 4, 4)), gn.Conv2D(3, 2, "tanh", pool=2, pooling="average", pool_stride=1), gn.AvgPool2D(),
            gn.Flatten(), gn.Dense(4),
        ],
    }[net]  # fmt: skip
    model = gn.Sequential(small)
    backend = gpu.backend()
    model.build((16,), backend, dtype="float64", seed=1)
    params = model.flat[0]
    backend.copy(np.array(backend.to_host(params)) + 0.1 * rng.normal(size=len(params)), params)  # away from corners
    x, labels = rng.normal(size=(6, 16)), rng.integers(0, 4, 6)
    assert gn.gradient_check(model, "softmax_cross_entropy", x, labels, device=backend).relative_error < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("net", ["dense", "wide", "merged", "frozen below", "convolution"])
def test_forked_steps_are_the_bits_of_a_single_branch(gpu, digits, net, monkeypatch):
    """Also where the branch of the weights' gradients runs as late as its joins allow."""
    work = few(gpu) if net == "convolution" else {"samples": 200, "batch": 64}  # of which "merged" is worth merging
    one, history = trained(gpu.backend(), digits, net, graphs="off", **work)
    monkeypatch.setenv("GPUNET_FORK", "on")
    dots, record = [], CupyBackend.record

    def noted(self, work):
        recording = record(self, work)
        dots.append(recording.dot())
        return recording

    monkeypatch.setattr(CupyBackend, "record", noted)
    for late in (False,) if gpu.real else (False, True):
        backend = gpu.backend()
        if not gpu.real:
            backend.cp.machine.late = late
        forked, again = trained(backend, digits, net, **work)
        assert forked.graphs.reason == ""
        assert again["train_loss"] == history["train_loss"]
        np.testing.assert_array_equal(weights(forked), weights(one))
    assert dots
    assert all(branched(dot) for dot in dots) is (net in ("dense", "wide", "merged"))  # the others have few outputs


def branched(dot):
    """Whether something in a graph comes before two others."""
    starts = [line.split("->")[0].strip() for line in dot.splitlines() if "->" in line]
    return len(set(starts)) < len(starts)


def test_several_steps_are_one_launch_with_the_bits_of_single_ones(gpu, digits):
    x, y = digits.x_train[:130], digits.y_train[:130]

    def one_by_one(device):
        trainer = gn.Trainer(gn.Sequential(NETS["dense"]()), device=device, seed=3)
        data = trainer.samples(x, y)
        trainer._workspace(16)
        for epoch in range(3):
            order = trainer._upload_order(np.random.default_rng(epoch).permutation(130))
            trainer.tally.reset()
            with trainer.backend.session():
                for start in range(0, 130, 16):
                    trainer.step(data, order, min(16, 130 - start))
        return trainer

    def many(device):
        trainer = gn.Trainer(gn.Sequential(NETS["dense"]()), device=device, seed=3)
        data, taken = trainer.samples(x, y), []
        trainer._workspace(16)
        for epoch in range(3):
            order = trainer._upload_order(np.random.default_rng(epoch).permutation(130))
            trainer.tally.reset()
            step, done = trainer.stepper(), 0
            with trainer.backend.session():
                while done < 9:
                    taken.append(step(data, order, 16 if done < 8 else 2, 8 - done))
                    done += taken[-1]
        return trainer, data, taken

    single, (several, data, taken) = one_by_one(gpu.backend()), many(gpu.backend())
    assert taken == [1, *[1] * 7, 1, 8, 1, 8, 1]
    assert sorted(count for _, count, _ in several.graphs.recordings) == [1, 1, 8]
    del data
    assert several.graphs.recordings == [], "they go with the data that they are of"
    np.testing.assert_array_equal(weights(several), weights(single))
    np.testing.assert_array_equal(*(t.backend.to_host(t.tally.totals) for t in (several, single)))


def test_nodes_of_a_recorded_step(gpu):
    """What the docs list, and 12 at most, as recorded for the net of the benchmarks."""
    trainer = gn.Trainer(
        gn.Sequential([gn.Dense(512, "relu"), gn.Dense(256, "relu"), gn.Dense(10)]), optimizer="adam",
        device=gpu.backend(),
    )  # fmt: skip
    if not gpu.real:
        trainer.backend.cp.cublaslt.relu_keeps_nan = False  # as is likely
    data = trainer.samples(np.zeros((64 * 12, 784), "uint8"), np.arange(64 * 12) % 10)
    trainer.prepare((784,))
    trainer._workspace(64)
    order, step = trainer.upload_order(np.arange(64 * 12)), trainer.stepper()
    with trainer.backend.session():
        for _ in range(3):
            trainer.tally.reset()
            step(data, order, 64, 6)
    ((_, count, recording),) = [each for each in trainer.graphs.recordings if each[1] > 1]
    found = nodes(recording.dot())["nodes"]
    if gpu.real:  # cublasLt may add a kernel or a fill to a product that it splits
        assert found <= (12 + 5) * count
    else:
        assert found == 12 * count


@pytest.mark.parametrize(("ended", "recorded"), [(1, True), (2, True), (3, False)])
def test_a_recording_that_another_thread_has_ended_is_tried_again(gpu, digits, monkeypatch, ended, recorded):
    capture, left = CupyBackend._capture, [ended]

    def broken(self, stream, work):
        def work_beside_anothers():
            if left[0]:
                left[0] -= 1
                other = threading.Thread(target=on_the_legacy_stream, args=(self,))
                other.start()
                other.join()
            work()

        return capture(self, stream, work_beside_anothers)

    def on_the_legacy_stream(backend):
        with backend.cp.cuda.Device(backend.index), pytest.raises(RuntimeError, match=r"(?i)stream_?capture"):
            backend.cp.zeros(3)

    right, _ = trained(gpu.backend(), digits, graphs="off")
    monkeypatch.setattr(CupyBackend, "_capture", broken)
    with nullcontext() if recorded else pytest.warns(UserWarning, match=r"(?i)stream_?capture_?invalidated"):
        trainer, _ = trained(gpu.backend(), digits)
    assert bool(trainer.graphs.reason) is not recorded
    np.testing.assert_array_equal(weights(trainer), weights(right))


def test_a_share_is_held_out_and_the_model_predicts_on_the_device(gpu, digits):
    """The same samples as on the CPU, of arrays and of Samples that lie on the GPU; nothing shown reads the device."""
    samples = 330 if gpu.real else 90
    x, y = digits.x_train[:samples], digits.y_train[:samples]
    found = {}
    for device in ("cpu", gpu.backend()):
        trainer = gn.Trainer(gn.Sequential([gn.Dense(10)], scale=1 / 255), device=device, seed=3)
        for name, data in (("arrays", (x, y)), ("samples", (trainer.samples(x, y), None))):
            history = trainer.fit(*data, epochs=1, validation_split=0.2)
            found[trainer.backend.name, name] = history["validation_loss"] + history["train_loss"]
        assert np.array_equal(trainer.model.predict(x), trainer.predict(x))
        assert np.array_equal(trainer.model.predict(trainer.samples(x), batch_size=7), trainer.predict(x))
        found[trainer.backend.name, "outputs"] = trainer.model.outputs(x, batch_size=50)
        assert repr(trainer.samples(x, y)).endswith(f"on {trainer.backend.name}>")
        assert repr(trainer).count("Dense(10)") == 1
        repr(trainer.model.parameters)
    for name in ("arrays", "samples", "outputs"):
        np.testing.assert_allclose(found[gpu.backend().name, name], found["cpu", name], rtol=1e-3, atol=1e-4)


def test_a_decomposition_of_the_device_shows_itself_and_comes_apart(gpu, digits):
    xp = gpu.backend().xp
    found = gn.svd(xp.asarray(digits.x_train[:40].astype("float32")), 3)
    u, s, vt = found
    assert (u.shape, s.shape, vt.shape) == ((40, 3), (3,), (3, 64))
    assert repr(found).startswith("<SVD: u (40, 3), s (3,), vt (3, 64), σ from ")
    assert "route" in found._repr_html_()
    assert "none was missed" in repr(found.certificate)
