"""Checks of gradients by central differences, in float64, along random directions."""

from __future__ import annotations

import numpy as np

from gpunet.backend import Backend
from gpunet.nn.losses import Loss
from gpunet.nn.model import Sequential


def loss_value(model: Sequential, loss: Loss, backend: Backend, x, labels) -> float:
    totals = backend.asarray(np.array([0.0, 0, 0, -1]))
    model._begin_draws(0)
    z = model.forward(x)
    scores = backend.empty(z.shape, "float64")
    loss(z, labels, scores, totals)
    return float(backend.to_host(totals)[0])


def check_gradients(model: Sequential, loss: Loss, backend: Backend, x, labels, rng, directions: int = 3) -> float:
    """Largest relative error, |numeric − analytic| / max(|numeric|, |analytic|, 1e-3), over random directions.

    The model is built and bound in float64; its loss must have reduction "sum". In training mode, with the same draws.
    """
    assert model.dtype == "float64"
    params, grads, _ = model.flat
    d_x, d_labels = backend.asarray(x), backend.asarray(labels)
    with backend.session():
        model.train()._begin_draws(0)
        z = model.forward(d_x)
        totals = backend.asarray(np.array([0.0, 0, 0, -1]))
        loss(z, d_labels, model.d_scores, totals)
        model.backward(model.d_scores)
        analytic, start, worst = np.array(backend.to_host(grads)), np.array(backend.to_host(params)), 0.0
        for _ in range(directions):
            direction = rng.normal(size=len(start))
            direction /= np.linalg.norm(direction)
            step, values = 1e-5, []
            for sign in (1, -1):
                backend.copy(start + sign * step * direction, params)
                values.append(loss_value(model, loss, backend, d_x, d_labels))
            backend.copy(start, params)
            numeric, exact = (values[0] - values[1]) / (2 * step), float(analytic @ direction)
            worst = max(worst, abs(numeric - exact) / max(abs(numeric), abs(exact), 1e-3))
    return worst
