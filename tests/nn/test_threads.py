"""Threads that share a backend or a model."""

import copy
import os
import pickle
import signal
import threading

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import InputError

X = np.random.default_rng(0).standard_normal((400, 1, 12, 12)).astype("float32")
Y = np.arange(400) % 3


def net(device):
    layers = [
        gn.Conv2D(4, 3, "relu", pool=2), gn.Conv2D(6, 3, "sigmoid"), gn.MaxPool2D(2), gn.Flatten(),
        gn.Dense(9, "relu"), gn.LowRankDense(8, 3, "sigmoid"), gn.Dense(3),
    ]  # fmt: skip
    return gn.Trainer(gn.Sequential(layers), optimizer=gn.Adam(1e-2, l2=1e-3), device=device)


def in_threads(*works):
    """Run them at once; what they return, or raise."""
    found, gate = [None] * len(works), threading.Barrier(len(works))

    def run(place, work):
        gate.wait()
        try:
            found[place] = work()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.mark.parametrize("name", ["numpy", "cpu"])
def test_trainers_that_share_a_backend_train_as_if_alone(name):
    backend = get_backend(name)

    def train(batch):
        def work():
            trainer = net(backend)
            trainer.fit(X, Y, epochs=2, batch_size=batch)
            return {key: np.array(value) for key, value in trainer.model.parameters.items()}

        return work

    works = [train(32), train(32), train(50)]
    together, alone = in_threads(*works), [work() for work in works]
    for one, other in zip(together, alone, strict=True):
        assert not isinstance(one, Exception), one
        for key in other:
            np.testing.assert_array_equal(one[key], other[key])


def test_the_engine_shares_a_backend_too():
    backend, rng = get_backend("numpy"), np.random.default_rng(1)
    matrices = [rng.standard_normal((300, 40)) for _ in range(3)]
    found = in_threads(*[lambda a=a: gn.svd(a, 5, device=backend).s for a in matrices])
    for a, s in zip(matrices, found, strict=True):
        np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False)[:5], rtol=1e-9)


def test_one_model_answers_several_threads():
    trainer = net("cpu")
    trainer.fit(X, Y)
    want = [trainer.predict(X[n:]) for n in range(4)]
    for _ in range(5):
        found = in_threads(*[lambda n=n: trainer.predict(X[n:]) for n in range(4)])
        for one, other in zip(found, want, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_model_in_training_refuses_other_threads():
    started, done = threading.Event(), threading.Event()

    class Wait(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            started.set()
            done.wait(30)

    trainer, alone = net("numpy"), net("numpy")
    second = gn.Trainer(trainer.model, device="numpy")
    worker = threading.Thread(target=lambda: trainer.fit(X, Y, epochs=2, callbacks=[Wait()]))
    worker.start()
    try:
        assert started.wait(30)
        for work in (
            lambda: trainer.predict(X), lambda: trainer.evaluate(X, Y), lambda: trainer.fit(X, Y),
            lambda: second.fit(X, Y),
        ):  # fmt: skip
            with pytest.raises(InputError, match="another thread"):
                work()
    finally:
        done.set()
        worker.join()
    alone.fit(X, Y, epochs=2)
    for key, value in alone.model.parameters.items():
        np.testing.assert_array_equal(trainer.model.parameters[key], value)
    trainer.predict(X)


def test_trainers_of_an_unbuilt_model_build_it_once():
    for _ in range(10):
        trainer = net("numpy")
        found = in_threads(*[lambda t=trainer: t.outputs(X[:8]) for _ in range(4)])
        for each in found[1:]:
            np.testing.assert_array_equal(each, found[0])


def test_recordings_belong_to_the_thread_that_made_them():
    """On a GPU each thread has a stream and scratch memory of its own, which a recording bakes in."""
    from gpunet.testing import StrictBackend

    def dense(graphs):
        model = gn.Sequential([gn.Dense(8, "relu"), gn.Dense(3)])
        return gn.Trainer(model, optimizer=gn.Adam(1e-2), device=StrictBackend(), graphs=graphs)

    x, replaying, plain = X.reshape(len(X), -1), dense("auto"), dense("off")
    data = replaying.samples(x, Y)
    replaying.fit(data, batch_size=100)
    before = list(replaying.graphs._kinds.values())
    assert before[0].replays
    found = in_threads(lambda: replaying.fit(data, batch_size=100) and list(replaying.graphs._kinds.values()))
    assert found[0]
    assert not any(kind is old for kind in found[0] for old in before)
    plain.fit(x, Y, batch_size=100, epochs=2)
    for key, value in plain.model.parameters.items():
        np.testing.assert_array_equal(replaying.model.parameters[key], value)


WHAT = [
    "trainable",
    "replace",
    "bind",
    "set_batch_size",
    "build",
    "forward",
    "copy",
    "layer",
    "pickle",
    "save",
    "export",
    "upload_order",
]


@pytest.mark.parametrize("what", WHAT)
def test_a_model_that_trains_is_neither_changed_nor_copied_by_another_thread(tmp_path, what):
    trainer, found = net("numpy"), []
    trainer.prepare(X.shape[1:])

    class Meanwhile(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            model = trainer.model
            model.set_batch_size(10)
            works = {
                "trainable": lambda: setattr(model.layers[4], "trainable", False),
                "replace": lambda: model.replace("7", gn.Dense(9, "relu")),
                "bind": lambda: model.bind(4000),
                "set_batch_size": lambda: model.set_batch_size(5),
                "build": lambda: model.build(X.shape[1:], get_backend("numpy")),
                "forward": lambda: model.forward(np.ones((10, 1, 12, 12), "float32")),
                "copy": lambda: copy.deepcopy(trainer),
                "layer": lambda: copy.copy(model.layers[0]),
                "pickle": lambda: pickle.dumps(model),
                "save": lambda: gn.save(model, tmp_path / "model.safetensors"),
                "export": trainer.export,
                "upload_order": lambda: trainer.upload_order([0]),
            }
            found.extend(in_threads(works[what]))

    alone = net("numpy")
    alone.fit(X, Y, epochs=2)
    trainer.fit(X, Y, epochs=2, callbacks=[Meanwhile()])
    assert len(found) == 2
    for each in found:
        assert isinstance(each, InputError), each
        assert "being trained" in str(each)
    for name, value in alone.model.parameters.items():
        np.testing.assert_array_equal(trainer.model.parameters[name], value)


def test_a_callback_serves_one_fit_at_a_time():
    shared, gate = gn.ExponentialDecay(0.5), threading.Barrier(2)

    class Wait(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            gate.wait(60)

    def train():
        trainer = net("numpy")
        try:
            trainer.fit(X, Y, epochs=1, callbacks=[shared, Wait()])
        except InputError:
            gate.wait(60)
            raise
        return trainer.optimizer.learning_rate

    found = in_threads(train, train)
    refused = [each for each in found if isinstance(each, InputError)]
    assert [str(each) for each in refused] == ["this ExponentialDecay serves another fit: give each fit its own"]
    assert 1e-2 in found
    net("numpy").fit(X, Y, callbacks=[shared])  # and then the next
    with pytest.raises(InputError, match="same object twice"):
        net("numpy").fit(X, Y, callbacks=[gn.EarlyStopping("train_loss")] * 2)
    with pytest.raises(gn.errors.DivergedError):
        gn.Trainer(gn.Sequential([gn.Flatten(), gn.Dense(3)]), optimizer=gn.SGD(1e300), device="numpy").fit(
            X, Y, callbacks=[shared]
        )
    net("numpy").fit(X, Y, callbacks=[shared])


def in_the_child(work):
    """End the forked process: no test framework's way out of here."""
    signal.alarm(20)
    try:
        work()
        os._exit(7)
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_forked_in_a_callback_has_the_model_for_itself():
    codes = []

    class Forks(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            child = os.fork()
            if not child:
                in_the_child(lambda: trainer.predict(X[:5]))
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    net("numpy").fit(X[:40], Y[:40], callbacks=[Forks()])
    assert codes == [7]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.parametrize("what", ["gram", "model", "a model that is trained"])
def test_a_forked_process_does_not_wait_for_a_thread_that_it_does_not_have(what):
    trainer, gram, held, end = net("numpy"), gn.StreamingGram(), threading.Event(), threading.Event()
    trainer.prepare(X.shape[1:])
    x = np.random.default_rng(0).standard_normal((50, 4))

    class Fit:
        pass

    fit = Fit()

    def hold():
        with gram._lock, trainer.model.alone(fit if what == "a model that is trained" else None):
            held.set()
            end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = os.fork()
    if not child:
        works = {"gram": lambda: gram.update(x), "model": lambda: trainer.predict(X[:5])}
        in_the_child(works.get(what, lambda: trainer.fit(X[:5], Y[:5])))
    end.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
