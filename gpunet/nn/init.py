"""Random initial weights: functions of (shape, generator), float64, cast to the model's dtype when bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from gpunet.checks import as_floats, check_range, check_shape, is_one_of
from gpunet.errors import GpunetError, InputError, shown

Initializer: TypeAlias = Callable[[tuple[int, ...], np.random.Generator], Any]
InitName = Literal["zeros", "normal", "uniform_sigmoid", "glorot_uniform", "glorot_normal", "he_normal"]
Drawing: TypeAlias = "InitName | Initializer | np.ndarray[Any, Any]"


def zeros(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """All zeros."""
    return np.zeros(check_shape("shape", shape))


def ones(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """All ones."""
    return np.ones(check_shape("shape", shape))


# Functions of the module: others cannot be pickled, and so no model with them.
def _normal(std: float, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    return _checked(rng).normal(0.0, std, check_shape("shape", shape))


def _given(values: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    return values


def normal(std: float = 1.0) -> Initializer:
    """N(0, std²)."""
    return partial(_normal, check_range("std", std, least=0))


def uniform_sigmoid(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Uniform in ±4·√(6/(in+out)): Glorot's interval for sigmoid units, used by document 003."""
    return _uniform(4 * math.sqrt(6 / _fans(shape)), shape, rng)


def glorot_uniform(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Uniform in ±√(6/(in+out)) (Glorot & Bengio 2010, equation 16)."""
    return _uniform(math.sqrt(6 / _fans(shape)), shape, rng)


def glorot_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """N(0, 2/(in+out)) (Glorot & Bengio 2010)."""
    return _checked(rng).normal(0.0, math.sqrt(2 / _fans(shape)), shape)


def he_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """N(0, 2/in), for ReLU units (He et al. 2015, equation 10)."""
    return _checked(rng).normal(0.0, math.sqrt(2 / math.prod(check_shape("shape", shape, 2)[1:])), shape)


NAMED: dict[InitName, Initializer] = {
    "zeros": zeros,
    "normal": normal(),
    "uniform_sigmoid": uniform_sigmoid,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_normal": he_normal,
}


def resolve(drawing: Drawing) -> Initializer:
    """A function of (shape, generator) for a name, such a function, or an array of the right shape."""
    if isinstance(drawing, str):
        if not is_one_of(drawing, NAMED):
            raise InputError(f"unknown initial weights {shown(drawing)}: expected one of {', '.join(NAMED)}")
        return NAMED[drawing]
    if callable(drawing):
        return drawing
    return partial(_given, np.array(as_floats(drawing, "the initial weight")))


def is_given(draw: Initializer) -> bool:
    """Whether `resolve` made the function of an array."""
    return isinstance(draw, partial) and draw.func is _given


def drawn(draw: Initializer, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """What the function makes; InputError where it fails, as it may be a user's own."""
    shape = check_shape("shape", shape)
    try:
        return draw(shape, rng)
    except GpunetError:
        raise
    except Exception as error:
        raise InputError(
            f"drawing initial weights of shape {shape} failed: {type(error).__name__}: {error}; expected a function of "
            "(shape, generator) that returns an array of floats"
        ) from error


def _fans(shape: tuple[int, ...]) -> int:
    """in + out of a weight (out, in), or of a filter bank (out, …) with its receptive field."""
    shape = check_shape("shape", shape, 2)
    return math.prod(shape[1:]) + shape[0] * math.prod(shape[2:])


def _uniform(bound: float, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    return _checked(rng).uniform(-bound, bound, shape)


def _checked(rng: np.random.Generator) -> np.random.Generator:
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng is {shown(rng)}: expected a generator, say np.random.default_rng(0)")
    return rng
