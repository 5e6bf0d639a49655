"""First-layer weights from the singular vectors of the data: the four kinds of document 000.

Its X has samples as columns, X = UΣVᵀ; ours has them as rows, so its U are our right singular vectors.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from gpunet.backend import Backend
from gpunet.checks import check_labels, check_lengths, on_host, real_array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.linalg import SVD, svd
from gpunet.linalg.device import some_rows

Kind = Literal["orth-whole", "orth-each", "scale-whole", "scale-each"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RANK = 1e-7  # a singular value below this share of the largest is zero: the data are float32
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class Rows(NamedTuple):
    """Singular vectors as rows (units, features), their singular values (units,), and how each SVD was found."""

    vectors: FloatArray
    values: FloatArray
    found: tuple[dict[str, Any], ...] = ()


def singular_rows(x: Any, units: int, labels: Any = None, *, device: Backend | None = None) -> Rows:
    """Leading singular vectors of the data as rows (units, features), and their singular values (units,).

    x: (samples, features), not centred, on the host or on a GPU; device: where to compute, by default where x lies; the
    vectors lie on the host. Without labels they are those of all of x; with labels each class gives
    its own, as many as any other, the first classes one more where units do not divide evenly.
    Raises InputError where the data, or one class, cannot give as many as asked; DataError for labels that are no
    classes from 0 on, one a sample.
    """
    x = real_array(x, "the data")
    if x.ndim != 2:
        raise ShapeError(f"the data has shape {x.shape}: expected (samples, features)")
    if labels is None:
        _check_supply(x, units, "the data")
        return _rows([svd(x, units, compute="right", device=device)])
    labels = check_labels(labels, None, "the data")
    check_lengths(x, labels, "the data")
    classes = int(labels.max()) + 1
    parts = []
    for c, count in enumerate(shares(units, classes)):
        own = some_rows(x, labels == c, device)
        _check_supply(own, count, f"class {c}")
        if count:
            parts.append(svd(own, count, compute="right", device=device))
    return _rows(parts)


def _rows(parts: list[SVD[Any]]) -> Rows:
    vectors, values = (
        np.concatenate([on_host(getattr(part, name)).astype(np.float64) for part in parts]) for name in ("vt", "s")
    )
    return Rows(vectors, values, tuple(part.summary for part in parts))


def shares(units: int, classes: int) -> list[int]:
    """Units of each class: as many as any other's, the first classes one more where they do not divide evenly."""
    share, extra = divmod(units, classes)
    return [share + (c < extra) for c in range(classes)]


def svd_weights(rows: Rows, kind: Kind, second_moment: FloatArray, *, variance: float, dependency: float) -> FloatArray:
    """Weights (units, features) of document 000, equations 8 and 9, from `singular_rows`.

    orth: W = d·Uᵀ; scale: W = d·Σ̂⁻¹Uᵀ. d is chosen so that over the data of `second_moment` = XᵀX/N (features,
    features) the mean of ‖Wx‖² is s₁(1 + s₀·dep)·Var·mean‖x‖², s₁ units and s₀ features; the document's x have norm 1.
    For whole sets that is its closed form, for each class apart the same equation with the measured ‖Wx‖².
    Of fewer samples than features a root A (samples, features) stands for the second moment, AᵀA = XᵀX/N.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of weights {shown(kind)}: expected one of {', '.join(KINDS)}")
    if not (variance > 0 and dependency >= 0 and math.isfinite(variance * dependency)):
        raise InputError(f"expected variance > 0 and dependency ≥ 0, got {variance} and {dependency}")
    vectors, values = rows[:2]
    if kind.startswith("scale"):
        if values.min() <= RANK * values.max():
            raise InputError(
                f"{kind}: singular value {int(values.argmin()) + 1} of {len(values)} is zero, the data has a lower "
                "rank: ask for fewer units"
            )
        vectors = vectors / values[:, None]
    units, features = vectors.shape
    target = units * (1 + features * dependency) * variance * trace(second_moment)
    result: FloatArray = vectors * math.sqrt(target / mean_square(vectors, second_moment))
    return result


def mean_square(weight: FloatArray, second_moment: FloatArray) -> float:
    """Mean of ‖Wx‖² over the data whose second moment XᵀX/N, or a root of it, is given: tr(W (XᵀX/N) Wᵀ)."""
    if len(second_moment) == weight.shape[1]:
        return float(np.vdot(weight @ second_moment, weight))
    z = second_moment @ weight.T  # of 96 photos of 12,288 features a hundredth of the work
    return float(np.vdot(z, z))


def trace(second_moment: FloatArray) -> float:
    """Mean of ‖x‖² over the data whose second moment XᵀX/N, or a root of it, is given."""
    rows, features = second_moment.shape
    return float(np.trace(second_moment) if rows == features else np.vdot(second_moment, second_moment))


def dependency_ratio(z_square: float, weight: FloatArray, x_square: float = 1.0) -> float:
    """How far W and x depend on each other, document 000, equation 7.

    (mean‖z‖² − ‖W‖²_F·mean‖x‖²/s₀) / (‖W‖²_F·mean‖x‖²): 0 when independent, near 1 when the rows of W lie along x.
    """
    energy = float(np.vdot(weight, weight)) * x_square
    return float((z_square - energy / weight.shape[1]) / energy)


def _check_supply(x: Any, count: int, whose: str) -> None:
    samples, features = x.shape
    if count > min(samples, features):
        raise InputError(
            f"{whose} has {samples} samples of {features} features, which give at most {min(samples, features)} "
            f"singular vectors: {count} are asked for; use fewer hidden units"
        )
