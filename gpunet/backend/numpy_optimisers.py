"""The optimisers in NumPy: one loop over flat arrays, block by block: all passes but the first hit the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpunet.backend.base import N_SCALARS, SECOND_STEP, STEP, Array, In, Out
from gpunet.backend.cpu_memory import CpuMemory

BLOCK = 65536  # elements; five float32 arrays of it take 1.3 MB
ONE_STEP = np.isin(np.arange(N_SCALARS), (STEP, SECOND_STEP)).astype(np.float64)
DECADES = 12  # how far a state may decay between two flushes


def flush_period(beta: float) -> int:
    """Steps in which βᵗ falls by 12 decades: how often `flush_denormals` is worth its pass."""
    return max(16, int(DECADES * math.log(10) / -math.log(beta))) if 0 < beta < 1 else 0


class NumpyOptimisers(CpuMemory):
    """The part of NumpyBackend that updates parameters."""

    def tick(self, scalars: Out) -> None:
        np.add(scalars, ONE_STEP, out=scalars)

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int) -> None:
        rate, _, _, _, l2, *_ = scalars.tolist()
        for part in self._blocks(len(params), decayed):
            p, g, work = params[part], grads[part], self._work(params, part)
            np.multiply(self._with_l2(p, g, l2, part, decayed), rate, out=work)
            np.subtract(p, work, out=p)

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int) -> None:
        rate, beta, _, _, l2, step, *_ = scalars.tolist()
        for part in self._blocks(len(params), decayed):
            p, v, work = params[part], velocity[part], self._work(params, part)
            np.multiply(v, beta, out=v)
            np.add(v, self._with_l2(p, grads[part], l2, part, decayed), out=v)
            np.multiply(v, rate, out=work)
            np.subtract(p, work, out=p)
        self._flush_denormals(velocity, beta, flush_period(beta), step)

    def adam(self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int) -> None:
        _, beta1, beta2, _, l2, step, second_step, *_ = scalars.tolist()
        scale, epsilon = adam_factors(scalars)
        for part in self._blocks(len(params), decayed):
            p, m, v, work = params[part], first[part], second[part], self._work(params, part)
            g = self._with_l2(p, grads[part], l2, part, decayed)
            np.multiply(m, beta1, out=m)
            np.add(m, g, out=m)
            np.multiply(v, beta2, out=v)
            np.multiply(g, g, out=work)
            np.add(v, work, out=v)
            np.sqrt(v, out=work)
            np.add(work, epsilon, out=work)
            np.divide(m, work, out=work)
            np.multiply(work, scale, out=work)
            np.subtract(p, work, out=p)
        period = flush_period(beta1)
        self._flush_denormals(first, beta1, period, step)
        self._flush_denormals(second, beta2, period, second_step)

    # -- blocks -----------------------------------------------------------------------------------------------------

    def _blocks(self, size: int, decayed: int) -> Iterator[slice]:
        """Blocks of [0, size) none of which straddles `decayed`."""
        for low, high in ((0, decayed), (decayed, size)):
            for start in range(low, high, BLOCK):
                yield slice(start, min(start + BLOCK, high))

    def _work(self, params: Array, part: slice) -> Array:
        return self.scratch("step", BLOCK, params.dtype)[: part.stop - part.start]

    def _with_l2(self, p: Array, g: Array, l2: float, part: slice, decayed: int) -> Array:
        """g + 2λp inside the decayed parameters, g itself outside."""
        if l2 == 0 or part.start >= decayed:
            return g
        out = self.scratch("decayed", BLOCK, p.dtype)[: len(p)]
        np.multiply(p, 2 * l2, out=out)
        np.add(out, g, out=out)
        return out

    def _flush_denormals(self, state: Array, beta: float, period: int, step: float) -> None:
        """Zero what would decay below the normal numbers before the next call.

        The moment of a weight whose input is rarely lit decays by β a step into the denormals, where arithmetic is up
        to 40 times slower. A pass every `period` steps keeps it out of there without one in every step.
        """
        if period == 0 or step % period:
            return
        tiny = 2 * float(np.finfo(state.dtype).tiny) / beta**period
        for part in self._blocks(len(state), 0):
            size = self._work(state, part)
            np.abs(state[part], out=size)
            small = self.scratch("small", BLOCK, np.bool_)[: len(size)]
            np.less(size, tiny, out=small)
            np.copyto(state[part], 0, where=small)


def adam_factors(scalars: Array) -> tuple[float, float]:
    """(c, ε') such that η·m̂/(√v̂ + ε) = c·M/(√V + ε') with M = m/(1−β₁), V = v/(1−β₂)."""
    rate, beta1, beta2, epsilon, _, step, second_step, *_ = scalars.tolist()
    spread = math.sqrt((1 - beta2) / (1 - beta2**second_step))
    return rate * (1 - beta1) / ((1 - beta1**step) * spread), epsilon / spread
