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
if os.path.isfile(os.path.join(_BESIDE, "datasets", "catalog.py")):
    __path__.append(_BESIDE)

# Names are imported when first used, so that `gpunet --help` need not load NumPy.
_HOMES = {
    "Sequential": "nn.model", "Trainer": "nn.trainer", "gradient_check": "nn.gradcheck",
    "History": "nn.training",
    "Callback": "nn.callbacks", "ExponentialDecay": "nn.callbacks", "StepDecay": "nn.callbacks",
    "CyclicalRate": "nn.callbacks", "CosineDecay": "nn.callbacks", "EarlyStopping": "nn.callbacks",
    "DivergenceGuard": "nn.callbacks", "Factorise": "spectral.factorise",
    "factorise": "spectral.factorise", "merge": "spectral.factorise", "fit_class_pca": "spectral.fitted",
    "Dense": "nn.layers", "Conv2D": "nn.layers", "MaxPool2D": "nn.layers", "Flatten": "nn.layers",
    "Reshape": "nn.layers", "LowRankDense": "nn.layers", "Activation": "nn.layers", "Dropout": "nn.layers",
    "Layer": "nn.layers",
    "SGD": "nn.optim", "Adam": "nn.optim", "Optimizer": "nn.optim",
    "SoftmaxCrossEntropy": "nn.losses", "BinaryCrossEntropy": "nn.losses", "SquaredError": "nn.losses",
    "get_backend": "backend", "save": "nn.serialize", "load": "nn.serialize", "load_weights": "nn.serialize",
    "svd": "linalg", "class_pca": "linalg", "deduplicate": "linalg", "StreamingGram": "linalg",
    "FixedRank": "linalg", "DimensionFraction": "linalg", "BreakEven": "linalg", "Energy": "linalg",
    "StableRank": "linalg", "GavishDonoho": "linalg",
}  # fmt: skip
_MODULES = {
    **{name: name for name in ("backend", "datasets", "errors", "experiments", "linalg", "report")},
    **{name: f"nn.{name}" for name in ("init", "layers", "losses", "optim")},
}

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"gpunet.{_HOMES[name]}"), name)
    elif name in _MODULES:
        found = importlib.import_module(f"gpunet.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'gpunet' has no attribute {name!r}")
    globals()[name] = found  # to ask once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
