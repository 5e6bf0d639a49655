"""validation_split: a share of the samples that training never sees, the same at every fit."""

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import InputError
from gpunet.testing import StrictBackend

N = 50
X = np.random.default_rng(0).standard_normal((N, 6))
X[:, 0] = np.arange(N)  # the sample's number
Y = np.arange(N) % 3


class Watch(gn.Layer):
    """Keeps the numbers of the samples that come by, in training and else."""

    def __init__(self):
        self.seen = {True: [], False: []}

    def spec(self, input_shape):
        return gn.layers.Spec(input_shape)

    def config(self):
        return {}

    def forward(self, x):
        self.seen[self.training].append(np.asarray(self.ops.to_host(x))[:, 0].copy())
        return x

    def backward(self, dy):
        return dy


class Numbers(gn.Callback):
    def on_fit_begin(self, trainer):
        plan = trainer.plan
        self.parts = [np.asarray(trainer.backend.to_host(p.x))[:, 0].astype(int) for p in (plan.train, plan.validation)]
        self.labels = [np.asarray(trainer.backend.to_host(p.labels)) for p in (plan.train, plan.validation)]


def trainer(*layers, **options):
    return gn.Trainer(gn.Sequential([*layers, gn.Dense(3)]), device=options.pop("device", "cpu"), **options)


def parts(learner, x=X, y=Y, share=0.2, **options):
    seen = Numbers()
    learner.fit(x, y, validation_split=share, callbacks=seen, **options)
    return seen


def test_training_never_sees_what_is_held_out():
    watch = Watch()
    history = trainer(watch).fit(X, Y, epochs=3, batch_size=16, validation_split=0.3)
    held_out, trained = ({*np.concatenate(watch.seen[mode]).astype(int).tolist()} for mode in (False, True))
    last_batch = {*watch.seen[False][-1].astype(int).tolist()}  # which fit looks at once more: it was trained on
    held_out -= last_batch
    assert len(held_out) == 15
    assert not held_out & trained
    assert held_out | trained == set(range(N))
    assert len(history["validation_loss"]) == 3


def test_the_loss_told_is_that_of_what_is_held_out():
    learner = trainer()
    seen = Numbers()
    history = learner.fit(X, Y, epochs=2, validation_split=0.2, callbacks=seen)
    rows = seen.parts[1]
    assert learner.evaluate(X[rows], Y[rows])["loss"] == pytest.approx(history["validation_loss"][-1], rel=1e-6)


def test_the_same_is_held_out_at_every_fit_of_a_seed():
    first = parts(trainer(seed=3))
    assert np.array_equal(first.parts[1], parts(trainer(gn.Dense(4, "relu"), seed=3), epochs=2, shuffle=False).parts[1])
    learner = trainer(seed=3)
    assert all(np.array_equal(first.parts[1], parts(learner).parts[1]) for _ in range(2))
    assert not np.array_equal(first.parts[1], parts(trainer(seed=4)).parts[1])
    assert len(first.parts[1]) == 10
    for numbers, labels in zip(first.parts, first.labels, strict=True):
        assert np.array_equal(np.sort(numbers), numbers), "in the data's order"
        assert np.array_equal(Y[numbers], labels)
    assert sorted(np.concatenate(first.parts).tolist()) == list(range(N))


def test_it_is_as_if_the_two_were_given():
    seen = Numbers()
    one, other = trainer(seed=5), trainer(seed=5)
    by_share = one.fit(X, Y, epochs=3, validation_split=0.3, callbacks=seen)
    train, held_out = seen.parts
    given = other.fit(X[train], Y[train], epochs=3, validation_data=(X[held_out], Y[held_out]))
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        assert by_share[name] == given[name]


@pytest.mark.parametrize("device", ["numpy", StrictBackend()], ids=["numpy", "strict"])
def test_samples_are_parted_too(device):
    learner = trainer(device=device)
    data = learner.samples(X, Y)
    from_samples = parts(learner, data, None)
    assert np.array_equal(from_samples.parts[1], parts(trainer(device="numpy")).parts[1])
    assert len(data) == N, "what was given stays as it is"


def test_bytes_stay_bytes():
    x = (np.arange(N * 4) % 256).astype(np.uint8).reshape(N, 4)
    kinds = []

    class Look(gn.Callback):
        def on_fit_begin(self, trainer):
            kinds.extend(part.x.dtype for part in (trainer.plan.train, trainer.plan.validation))

    trainer().fit(x, Y, validation_split=0.5, callbacks=Look())
    assert kinds == [np.uint8, np.uint8]


def test_a_run_that_is_resumed_holds_out_the_same(tmp_path):
    class Cut(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == 1 and cut:
                raise KeyboardInterrupt

    def run(folder, resume=False):
        learner, seen = trainer(seed=7), Numbers()
        history = learner.fit(
            X, Y, epochs=4, batch_size=8, validation_split=0.2, callbacks=[seen, Cut()], checkpoint=tmp_path / folder,
            checkpoint_every=0.5, resume=resume,
        )  # fmt: skip
        return seen.parts[1], history["validation_loss"], np.asarray(learner.model.parameters["0.weight"]).copy()

    cut = False
    whole = run("whole")
    cut = True
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    cut = False
    for one, other in zip(whole, run("cut", resume=True), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, "0.2", True, float("nan"), [0.2]])
def test_what_is_no_share(share):
    with pytest.raises(InputError, match=r"validation_split cannot be .*: expected a finite number > 0 and < 1"):
        trainer().fit(X, Y, validation_split=share)


def test_mistakes():
    with pytest.raises(InputError, match=r"validation_split=0.001 of 50 samples holds out 0"):
        trainer().fit(X, Y, validation_split=0.001)
    with pytest.raises(InputError, match=r"validation_split=0.999 of 50 samples holds out 50"):
        trainer().fit(X, Y, validation_split=0.999)
    with pytest.raises(InputError, match="both validation_data and validation_split are given: give one"):
        trainer().fit(X, Y, validation_split=0.5, validation_data=(X, Y))
    stop = gn.EarlyStopping(patience=1)
    trainer().fit(X, Y, epochs=3, validation_split=0.2, callbacks=stop)
    assert stop.best is not None
