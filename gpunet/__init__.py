"""gpunet: SVD-shaped neural networks on NumPy and CuPy.

>>> import gpunet as gn
>>> data = gn.datasets.load("digits")
>>> model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(10)], scale=data.scale)
>>> trainer = gn.Trainer(model, optimizer=gn.Adam(1e-2), device="cpu", seed=0)
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
_NAMES = {
    "nn.model": "Sequential", "nn.trainer": "Trainer", "nn.gradcheck": "gradient_check",
    "nn.callbacks": "Callback ExponentialDecay StepDecay CyclicalRate CosineDecay EarlyStopping DivergenceGuard",
    "nn.history": "History",
    "spectral.factorise": "Factorise factorise merge", "spectral.fitted": "fit_class_pca",
    "nn.layers": "Dense Conv2D MaxPool2D Flatten Reshape LowRankDense Activation BatchNorm Dropout GELU Layer",
    "nn.optim": "SGD Adam AdamW Optimizer", "nn.losses": "SoftmaxCrossEntropy BinaryCrossEntropy SquaredError",
    "compression.compress": "compress", "compression.convert": "from_torch to_torch",
    "estimators.pca": "PCA", "estimators.class_pca": "ClassPCA", "estimators.classifier": "Classifier",
    "estimators.regressor": "Regressor",
    "backend": "get_backend", "nn.serialize": "save load load_weights",
    "linalg": "svd class_pca deduplicate gram StreamingGram FixedRank DimensionFraction BreakEven Energy StableRank "
              "GavishDonoho ScaledStableRank",
}  # fmt: skip
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
_MODULES = {
    **{name: name for name in ("backend", "datasets", "errors", "experiments", "linalg", "report")},
    **{name: f"nn.{name}" for name in ("init", "layers", "losses", "optim")},
    "lora": "compression.lora",
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
