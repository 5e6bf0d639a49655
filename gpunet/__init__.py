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

# A name is imported when it is first used, so that `gpunet --help` need not load NumPy. Where each lives is said once,
# in __init__.pyi, which type checkers read too (Scientific Python's SPEC 1). The flag is ast.PyCF_ONLY_AST: importing
# ast would take longer than all the rest.
with open(f"{__file__}i", encoding="utf-8") as _stub:
    _imports = [node for node in compile(_stub.read(), _stub.name, "exec", 0x400).body if hasattr(node, "module")]
_HOMES: dict[str, str] = {alias.name: node.module for node in _imports for alias in node.names}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        hint = "" if name.startswith("_") else _hint(name)
        raise AttributeError(f"module 'gpunet' has no attribute {name!r}{hint}", name=name, obj=None)
    home = _HOMES[name]
    if home == __name__:
        found = importlib.import_module(f"gpunet.{name}")
    else:
        try:
            found = getattr(__import__(home, fromlist=[name]), name)
        except Exception as error:  # raised again where it is not for want of a package, or one that is broken
            from gpunet.extras import absent

            return absent(name, error)  # not kept: what it lacks may be there the next time
    globals()[name] = found  # to ask once
    return found


_ELSEWHERE = {  # names of PyTorch and scikit-learn, and ours
    "linear": "Dense", **dict.fromkeys(("relu", "leakyrelu", "sigmoid", "tanh"), "Activation"),
    "crossentropyloss": "SoftmaxCrossEntropy", "mseloss": "SquaredError",
    **dict.fromkeys(("bceloss", "bcewithlogitsloss"), "BinaryCrossEntropy"), "truncatedsvd": "svd",
    "mlpclassifier": "Classifier", "mlpregressor": "Regressor",
}  # fmt: skip


def _hint(name: str) -> str:
    """Our name for it, or the public one that is nearest, as the end of a message; "" where none is near."""
    import difflib

    if own := _ELSEWHERE.get(name.lower()):
        return f": did you mean gn.{own}?"
    public = {each.lower(): each for each in _HOMES}
    begun = [each for each in public if len(name) > 3 and each.startswith(name.lower())]
    near = begun or difflib.get_close_matches(name.lower(), public, n=1)
    return f": did you mean gn.{public[near[0]]}?" if near else ""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
