"""gpunet: SVD-shaped neural networks on NumPy and CuPy.

>>> import gpunet as gn
>>> model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(10)])
>>> trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="cpu", seed=0)
>>> data = gn.datasets.load("digits")
>>> history = trainer.fit(data.x_train, data.y_train, epochs=20, batch_size=32)
>>> trainer.evaluate(data.x_test, data.y_test)["accuracy"] > 0.9
True
"""

from __future__ import annotations

import importlib
import os

TYPE_CHECKING = False  # as typing's, which takes longer to import than all that the command line needs to hear Ctrl-C
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

# In a checkout cli/ and datasets/ lie beside this folder, and are gpunet.cli and gpunet.datasets as when installed.
_BESIDE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if os.path.isfile(os.path.join(_BESIDE, "datasets", "entries.py")):
    __path__.append(_BESIDE)

# Names are imported when first used, so that `gpunet --help` need not load NumPy.
_HOMES = {
    "Sequential": "model", "Trainer": "train", "History": "plan", "Callback": "callbacks", "Factorise": "factorise",
    "ExponentialDecay": "schedules", "StepDecay": "schedules", "CyclicalRate": "schedules", "CosineDecay": "schedules",
    "EarlyStopping": "stopping", "DivergenceGuard": "stopping", "gradient_check": "gradcheck",
    "Dense": "layers", "Conv2D": "layers", "MaxPool2D": "layers", "Flatten": "layers", "Reshape": "layers",
    "LowRankDense": "layers", "Activation": "layers", "Layer": "layers",
    "SGD": "optim", "Adam": "optim", "Optimizer": "optim",
    "SoftmaxCrossEntropy": "losses", "BinaryCrossEntropy": "losses", "SquaredError": "losses",
    "get_backend": "backend", "save": "serialize", "load": "serialize", "load_weights": "serialize",
    "svd": "linalg", "class_pca": "linalg", "deduplicate": "linalg", "StreamingGram": "linalg",
    "FixedRank": "linalg", "DimensionFraction": "linalg", "BreakEven": "linalg", "Energy": "linalg",
    "StableRank": "linalg", "GavishDonoho": "linalg",
}  # fmt: skip
_MODULES = ("backend", "datasets", "errors", "experiments", "init", "layers", "linalg", "losses", "optim", "report")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"gpunet.{_HOMES[name]}"), name)
    elif name in _MODULES:
        found = importlib.import_module(f"gpunet.{name}")
    else:
        raise AttributeError(f"module 'gpunet' has no attribute {name!r}")
    globals()[name] = found  # to ask once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
