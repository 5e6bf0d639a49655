"""The public names that are called, found by looking, and for each a call that is right.

A new public name is a new target by itself; where its parameters have names that no table here knows,
`test_every_target_has_a_call_that_is_right` says which.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.linalg import StreamingClassGram
from gpunet.nn.losses import Loss
from gpunet.nn.samples import Samples
from tests.hostile.pool import X

Y = np.arange(60) % 3
IMAGES = np.linspace(0, 1, 60 * 36, dtype="float32").reshape(60, 1, 6, 6)
INSIDE = {"Array", "Layout", "Range", "Migration", "Backend", "Mapping"}  # annotations of what only the library makes
OF_LAYERS = {"config"}  # the others are a model's to call, as callbacks' are the trainer's
SET = (gn.Layer, gn.Optimizer, gn.Callback, Loss, gn.Sequential, gn.Trainer, gn.StreamingGram, StreamingClassGram)
WORKING = {
    "built",
    "capacity",
    "migrations",
    "training",
    "history",
    "seconds",
    "stopped",
    "conversions",
}  # ours to write
BASES = (gn.Layer, gn.Optimizer, gn.Callback, Loss)
HELD = object()  # the right value of an attribute: what it holds
NEEDED = {
    "lora.extract.rank",
    "lora.resize.rank",
    "lora.init.method",
    "lora.init.data",
    "Trainer.fit.y",
    "Trainer.evaluate.y",
    "class_pca.components",
    "compress.rank",
}  # though they have a default
REFUSED = {  # a right call, which can come to nothing here
    "datasets.load_cifar10_batches": "not in",
    **{f"History.{name}": "read, not set" for name in ("update", "pop", "popitem", "clear", "setdefault")},
    **({} if find_spec("torch") else dict.fromkeys(("from_torch", "to_torch"), r"pip install .gpunet\[torch\]")),
}
Maker = Callable[[], Any]


@dataclass(frozen=True)
class Target:
    """A function, a constructor, or a method of a fresh object; `parameters` with whether they have a default."""

    name: str
    function: Callable[..., Any]
    parameters: dict[str, bool]
    owner: type | None = None  # whose method it is


def public(module: types.ModuleType) -> list[str]:
    """The public functions and classes of a module: those of `__all__`, or those that it defines."""
    named = getattr(module, "__all__", None)
    if named is not None:
        return list(named)
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    return [n for n, v in own.items() if not n.startswith("_") and (inspect.isfunction(v) or inspect.isclass(v))]


def objects() -> Iterator[tuple[str, Any]]:
    """Everything public and callable, exceptions aside."""
    for name in sorted(gn.__all__, key=lambda each: isinstance(getattr(gn, each), types.ModuleType)):
        found = getattr(gn, name)  # gn.svd is called that, and not gn.linalg.svd
        if isinstance(found, types.ModuleType):
            yield from ((f"{name}.{each}", getattr(found, each)) for each in public(found))
        else:
            yield name, found
    yield "Samples", Samples


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods that a user may call: no hooks, nothing of bases, nothing that is handed the library's own."""
    if kind in BASES or issubclass(kind, gn.Callback | Loss) or kind.__module__.startswith("gpunet.datasets"):
        return
    for name, method in inspect.getmembers(kind):
        if (
            name.startswith("_")
            or not callable(method)
            or not str(getattr(method, "__module__", "")).startswith("gpunet")
        ):
            continue
        words = {
            word
            for p in inspect.signature(method).parameters.values()
            for word in re.findall(r"\w+", str(p.annotation))
        }
        if issubclass(kind, gn.Layer):
            shown = name in OF_LAYERS
        else:
            shown = not words & (
                INSIDE - {"Array", "Backend"} if kind in (gn.Sequential, gn.Trainer, Samples) else INSIDE
            )
        if shown:
            yield name, method


def settable(thing: Any) -> set[str]:
    """Public attributes of a new object that can be set: what lies there, properties, and descriptors that check."""
    kinds = {n: inspect.getattr_static(type(thing), n) for n in dir(type(thing)) if not n.startswith("_")}
    checked = [n for n, v in kinds.items() if hasattr(type(v), "__set__") and getattr(v, "fset", True)]
    return {n for n in [*vars(thing), *checked] if not n.startswith("_") and hasattr(thing, n)} - WORKING


@cache
def settings() -> list[Target]:
    """Setting an attribute of a public object, which is used afterwards: a new one, and one that is in use."""
    found = []
    kinds = {kind: name for name, kind in reversed(list(objects())) if inspect.isclass(kind) and issubclass(kind, SET)}
    for kind, name in kinds.items():
        if kind in BASES or inspect.isabstract(kind):
            continue
        new = settable(unused(kind)[0])
        parameters = getattr(in_use(kind)[0], "_views", {})
        for suffix, scene, names in (("=", unused, new), ("= in use", in_use, {*new, *parameters})):
            for attribute in sorted(names):

                def function(value: Any, scene: Any = scene, kind: type = kind, attribute: str = attribute) -> None:
                    thing, use = scene(kind)
                    setattr(thing, attribute, getattr(thing, attribute) if value is HELD else value)
                    use()

                found.append(Target(f"{name}.{attribute}{suffix}", function, {"value": False}))
    return found


def targets() -> dict[str, Target]:
    """All of them by name."""
    found: dict[str, Target] = {}
    seen: set[int] = set()
    for name, value in objects():
        if id(value) in seen or not callable(value) or inspect.isabstract(value):
            continue
        if inspect.isclass(value) and issubclass(value, BaseException):
            continue
        seen.add(id(value))
        found[name] = Target(name, value, parameters_of(value))
        if inspect.isclass(value):
            for method, function in methods(value):
                own = parameters_of(function)
                own.pop("self", None)
                bound = inspect.ismethod(function)
                found[f"{name}.{method}"] = Target(f"{name}.{method}", function, own, None if bound else value)
    return found | {target.name: target for target in settings()}


def parameters_of(function: Callable[..., Any]) -> dict[str, bool]:
    given = inspect.signature(function).parameters.values()
    return {p.name: p.default is not p.empty for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def call(target: Target, values: dict[str, Any], ready: bool = True) -> Any:
    """The call, on a fresh object where it is a method: one that is ready for it, or as its constructor leaves it."""
    if target.owner is None:
        return target.function(**values)
    fresh = made(target.owner, target.name.rpartition(".")[2]) if ready else right(targets_by_class()[target.owner])
    return target.function(fresh, **values)


# -- objects and values that are right ------------------------------------------------------------------------------


def backend() -> Any:
    return gn.get_backend("cpu")


def model(built: bool = True) -> Any:
    found = gn.Sequential([gn.Dense(4, "relu"), gn.Dense(3)])
    if built:
        found.build((5,), backend())
        found.bind(60)
        found.forward(X.astype("float32"))
    return found


def trainer() -> Any:
    found = gn.Trainer(model(built=False), device="cpu")
    found.prepare((5,))
    found._workspace(60)
    return found


def samples() -> Any:
    return Samples.of(backend(), X, Y, 3)


def sums() -> Any:
    return gn.StreamingGram().update(X)


def class_sums() -> Any:
    return StreamingClassGram().update(X, Y)


def optimizer(kind: type) -> Any:
    found = kind(0.1)
    found.attach(backend(), np.ones(5, "float32"), np.ones(5, "float32"), 0)
    return found


def unused(kind: type) -> tuple[Any, Maker]:
    """A new object of that class, and a way to use it."""
    thing = right(targets_by_class()[kind])
    if isinstance(thing, gn.Layer):
        return thing, lambda: fitted(of_layer(thing))
    if isinstance(thing, gn.Sequential):
        return thing, lambda: fitted(thing)
    if isinstance(thing, gn.Trainer):
        return thing, lambda: fit(thing)
    if isinstance(thing, gn.Callback):
        return thing, lambda: fit(trainer(), thing)
    if isinstance(thing, gn.Optimizer):
        return thing, lambda: fitted(model(), optimizer=thing)
    if isinstance(thing, Loss):
        return thing, lambda: fitted(model_of(thing), loss=thing)
    return thing, lambda: summed(thing)


def in_use(kind: type) -> tuple[Any, Maker]:
    """The same of one that has been used; a loss is a trainer's own then, and a layer a model's."""
    thing, use = unused(kind)
    last = use()
    if isinstance(thing, Loss):
        return last.loss, lambda: fit(last)
    if isinstance(thing, gn.Layer | gn.Sequential | gn.Optimizer):
        return thing, lambda: fit(last)
    return thing, use


def of_layer(layer: Any) -> Any:
    flat = [] if isinstance(layer, gn.Conv2D | gn.MaxPool2D | gn.AvgPool2D | gn.Flatten) else [gn.Flatten()]
    return gn.Sequential([*flat, layer, gn.Flatten(), gn.Dense(3)])


def model_of(loss: Any) -> Any:
    return gn.Sequential([gn.Dense(4, "relu"), gn.Dense(3, "sigmoid" if loss.activation == "sigmoid" else None)])


def fitted(of: Any, **options: Any) -> Any:
    return fit(gn.Trainer(of, **options, device="cpu"))


def fit(trainer: Any, *callbacks: Any) -> Any:
    images = any(isinstance(layer, gn.Conv2D | gn.MaxPool2D | gn.AvgPool2D) for layer in trainer.model.layers)
    x = IMAGES if images else X
    trainer.fit(x, Y, epochs=2, batch_size=30, validation_data=(x, Y), callbacks=callbacks)
    trainer.predict(x)
    trainer.model.config()
    return trainer


def summed(sums: Any) -> None:
    labels = [Y] if isinstance(sums, StreamingClassGram) else []
    sums.update(X, *labels).merge(type(sums)().update(X, *labels)).components(2)


def pca() -> Any:
    return gn.class_pca(X, Y, 2)


@cache
def targets_by_class() -> dict[type, Target]:
    made = (kind for _, kind in objects() if inspect.isclass(kind) and not issubclass(kind, BaseException))
    return {kind: Target(kind.__name__, kind, parameters_of(kind)) for kind in made}


def built(layer: gn.Layer) -> gn.Layer:
    """The layer with weights."""
    gn.Sequential([layer]).build((5,), backend())
    return layer


def made(kind: type, method: str) -> Any:
    """A fresh object of that class, ready for the method."""
    if issubclass(kind, gn.Optimizer):
        return optimizer(kind)
    known: dict[type, Maker] = {
        gn.Sequential: model,
        gn.Trainer: trainer,
        Samples: samples,
        gn.StreamingGram: sums,
        StreamingClassGram: class_sums,
        gn.PCA: lambda: gn.PCA(2).partial_fit(X),
        gn.ClassPCA: lambda: gn.ClassPCA(2).fit(X, Y),
        gn.Classifier: lambda: gn.Classifier((4,), epochs=2).fit(X, Y),
        gn.Regressor: lambda: gn.Regressor((4,), epochs=2).fit(X, Y),
        gn.lora.Adapter: adapter,
        gn.lora.Pair: lambda: adapter().pairs["a"],
    }
    return known[kind]() if kind in known else right(targets_by_class()[kind])


def right(target: Target) -> Any:
    """The call with all that it needs, and nothing wrong."""
    return call(target, {name: value(target, name) for name in target.parameters if needed(target, name)})


def needed(target: Target, name: str) -> bool:
    """Whether the call must say it."""
    return not target.parameters[name] or f"{target.name}.{name}" in NEEDED


def module() -> Any:
    if find_spec("torch") is None:
        return None
    import torch

    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))


def saved() -> Any:
    gn.save(model(), "model.safetensors")
    return "model.safetensors"


def weights(size: float = 0.0) -> Any:
    return {"a.weight": np.eye(4, 5, dtype="float32") + size * X[:4, :5].astype("float32")}


def adapter() -> Any:
    return gn.lora.extract(weights(), weights(0.1), 2)


def adapter_folder() -> Any:
    adapter().save("adapter")
    return "adapter"


def entry() -> Any:
    return gn.datasets.entry("digits")


VALUES: dict[str, Maker] = {
    "model": model,
    "module": module,
    "loss": lambda: "softmax_cross_entropy",
    "optimizer": lambda: gn.Adam(),
    "device": lambda: "cpu",
    "dtype": lambda: "float32",
    "seed": lambda: 3,
    "graphs": lambda: "auto",
    "precision": lambda: "float32",
    "x": lambda: X.copy(),
    "X": lambda: X.copy(),
    "y": Y.copy,
    "labels": Y.copy,
    "epochs": lambda: 1,
    "batch_size": lambda: 16,
    "validation_data": lambda: (X, Y),
    "sample_weight": lambda: np.arange(len(X)) + 0.5,
    "validation_split": lambda: 0.25,
    "shuffle": lambda: True,
    "callbacks": lambda: [gn.DivergenceGuard()],
    "progress": lambda: False,
    "checkpoint": lambda: "run",
    "checkpoint_every": lambda: 1,
    "resume": lambda: False,
    "order": lambda: np.arange(60),
    "input_shape": lambda: (5,),
    "what": lambda: "data",
    "train": samples,
    "n": lambda: 60,
    "reason": lambda: "enough",
    "layers": lambda: [gn.Dense(3)],
    "z": lambda: np.zeros((60, 3), "float32"),
    "dz": lambda: np.zeros((60, 3), "float32"),
    "batch": lambda: X.copy(),
    "backend": backend,
    "config": lambda: model().config(),
    "name": lambda: "0",
    "layer": lambda: gn.Dense(4, "relu"),
    "state": lambda: "restart",
    "pretrain": lambda: 0.2,
    "rank": lambda: 2,
    "split": lambda: "left",
    "policy": lambda: "count",
    "merge": lambda: True,
    "factor": lambda: 0.5,
    "every": lambda: 2,
    "low": lambda: 0.1,
    "high": lambda: 0.5,
    "half": lambda: 3,
    "halve": lambda: True,
    "least": lambda: 0.0,
    "metric": lambda: "train_loss",
    "patience": lambda: 2,
    "restore_best": lambda: True,
    "times": lambda: 2.0,
    "step": lambda: 1e-4,
    "units": lambda: 3,
    "activation": lambda: "relu",
    "weight": lambda: "zeros",
    "bias": lambda: "zeros",
    "trainable": lambda: True,
    "trained": lambda: True,
    "filters": lambda: 2,
    "kernel": lambda: 3,
    "pool": lambda: 2,
    "padding": lambda: "same",
    "pooling": lambda: "average",
    "pool_stride": lambda: 1,
    "left": lambda: "zeros",
    "right": lambda: "zeros",
    "size": lambda: 2,
    "shape": lambda: (3, 5),
    "learning_rate": lambda: 0.1,
    "momentum": lambda: 0.9,
    "l2": lambda: 0.1,
    "weight_decay": lambda: 0.1,
    "beta1": lambda: 0.9,
    "beta2": lambda: 0.9,
    "epsilon": lambda: 1e-8,
    "reduction": lambda: "sum",
    "path": saved,
    "a": lambda: X.copy(),
    "k": lambda: 2,
    "method": lambda: "auto",
    "compute": lambda: "both",
    "tol": lambda: 1e-3,
    "components": lambda: 2,
    "n_components": lambda: 2,
    "hidden_layers": lambda: (4,),
    "init": lambda: "class-pca",
    "standardize": lambda: True,
    "class_weight": lambda: "balanced",
    "warm_start": lambda: True,
    "random_state": lambda: 3,
    "variance": lambda: 0.9,
    "center": lambda: True,
    "certify": lambda: True,
    "fraction": lambda: 0.5,
    "threshold": lambda: 0.9,
    "weights": lambda: pca().explained_variance_ratio,
    "alpha": lambda: 0.5,
    "share": lambda: 0.9,
    "other": sums,
    "correlation": lambda: 0.9,
    "most": lambda: 3,
    "place": lambda: 1,
    "vectors": lambda: X[:3],
    "outputs": lambda: 3,
    "rng": lambda: np.random.default_rng(0),
    "std": lambda: 0.1,
    "drawing": lambda: "zeros",
    "draw": lambda: gn.init.zeros,
    "text": lambda: "text",
    "value": lambda: 3,
    "index": lambda: 0,
    "folder": lambda: "no-folder",
    "data_dir": lambda: "data",
    "label": lambda: None,
    "resize": lambda: None,
    "name_or_path": lambda: "digits",
    "mirrors": lambda: ["http://127.0.0.1:9/"],
    "timeout": lambda: 0.1,
    "names": lambda: ["x"],
    "check": lambda: True,
    "every_class": lambda: True,
    "dataset": lambda: gn.datasets.load("digits"),
    "classes": lambda: 3,
    "scale": lambda: 1.0,
    "budget": lambda: 0.5,
    "max_drop": lambda: 0.5,
    "speed": lambda: 1.01,
    "evaluate": lambda: lambda model: 1.0,
    "tune": lambda: lambda model: None,
    "copy": lambda: True,
    "missing": lambda: ["a"],
    "override": lambda: "data",
    "decay": lambda: True,
    "default": lambda: None,
    "output": lambda: (3,),
    "parameters": dict,
    "thresholds": lambda: None,
    "source": lambda: X.copy(),
    "executor": lambda: concurrent.futures.ThreadPoolExecutor(1),
    "in_flight": lambda: 2,
    "reproducible": lambda: True,
    "base": weights,
    "tuned": lambda: weights(0.1),
    "adapter": adapter,
    "energy": lambda: 0.9,
    "modules": lambda: ["a"],
    "fan_in_fan_out": lambda: False,
    "data": lambda: {"a": X[:, :5].copy()},
    "rho": lambda: 2.0,
    "whiten": lambda: False,
    "pairs": lambda: adapter().pairs,
    "A": lambda: adapter().pairs["a"].A,
    "B": lambda: adapter().pairs["a"].B,
    "scaling": lambda: 1.0,
}
OWN: dict[str, Maker] = {  # where a name means something else
    "Samples.of.weights": lambda: np.arange(len(X)) + 0.5,
    "Samples.of.outputs": lambda: 3,
    "Adapter.config": lambda: adapter().config,
    "lora.Adapter.config": lambda: adapter().config,
    "lora.init.method": lambda: "eva",
    "lora.Adapter.delta.module": lambda: "a",
    "lora.load.folder": adapter_folder,
    "lora.merge.path": lambda: "merged.safetensors",
    "lora.residual.path": lambda: "rest.safetensors",
    "errors.first_line.error": lambda: RuntimeError("what failed\nand where"),
    "Trainer.graphs=.value": lambda: "off",
    "Trainer.graphs= in use.value": lambda: "off",
    "gram.batch": lambda: 16,
    "Classifier.partial_fit.classes": lambda: [0, 1, 2],
    "PCA.inverse_transform.X": lambda: X[:, :2].copy(),
    "Trainer.step.order": lambda: np.arange(60),
    "Sequential.bind.batch": lambda: 20,
    "Sequential.set_batch_size.n": lambda: 20,
    "Sequential.forward.x": lambda: X.astype("float32"),
    "compress.data": lambda: X.astype("float32"),
    "compress.layers": lambda: ["0"],
    "compress.count": lambda: "parameters",
    "compress.rank": lambda: 1,
    "compress.batch_size": lambda: 30,
    "factorise.layer": lambda: built(gn.Dense(4)),
    "merge.layer": lambda: built(gn.LowRankDense(4, 2)),
    "deduplicate.components": pca,
    "linalg.StreamingClassGram.merge.other": class_sums,
    "Reshape.shape": lambda: (5,),
    "Factorise.layers": lambda: ["0"],
    "EarlyStopping.metric": lambda: "validation_loss",
    "Activation.activation": lambda: "relu",
    "MaxPool2D.size": lambda: 2,
    "AvgPool2D.size": lambda: 2,
    "AvgPool2D.stride": lambda: 1,
    "AvgPool2D.spec.input_shape": lambda: (1, 6, 6),
    "datasets.entry.name": lambda: "digits",
    "datasets.status.name": lambda: "digits",
    "datasets.dataset_dir.name": lambda: "mnist",
    "datasets.fetch.name": lambda: "digits",
    "optim.resolve.optimizer": lambda: "adam",
    "losses.resolve.loss": lambda: "squared_error",
    "Conv2D.spec.input_shape": lambda: (1, 6, 6),
    "MaxPool2D.spec.input_shape": lambda: (1, 6, 6),
    "gradient_check.x": lambda: X[:4],
    "gradient_check.labels": lambda: Y[:4],
    "datasets.Entry.located.folder": lambda: __import__("pathlib").Path("x"),
    "Conv2D.bias": lambda: "zeros",
    "datasets.RemoteFile.locate.folder": lambda: __import__("pathlib").Path("x"),
    "datasets.load_cifar10_batches.names": lambda: ("data_batch_1",),
    "experiments.experiment.name": lambda: "toy",
}
FREE = {
    "datasets.Archive",
    "datasets.Dataset",
    "datasets.Entry",
    "datasets.RemoteFile",
    "datasets.Status",
    "linalg.PCA",
    "linalg.SVD",
    "linalg.ClassPCA",
    "linalg.Certificate",
    "lora.Adapter",
    "lora.Pair",
    "optim.Range",
    "layers.Parameter",
    "layers.Spec",
    "Samples",
    "History",
}


def value(target: Target, name: str) -> Any:
    """A right value of a parameter; records that only hold what they are given take anything."""
    own = OWN.get(f"{target.name}.{name}")
    if own is None and "=" in target.name:
        return HELD
    if own is None and target.name in FREE and name not in VALUES:
        return None
    return (own or VALUES[name])()
