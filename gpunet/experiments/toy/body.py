"""toy: a sigmoid net of any depth, squared error, backprop by hand, on points in the plane.

2-3-3-1 without biases, weights uniform in ±4·√(6/(in+out)), ½(y − t)², full batch, learning rate 0.8, until every
sample's loss is below 0.04; on `linear`, whose points are drawn anew for each seed, and on `xor-easy`. Rows are named
by data set and what differs from that: `linear`, `linear zeros`, `glorot`, `mean`, `unhalved`, `rate=0.1` …

Not clear in the document, our choice: beside those of the paper's page, Figure 4's learning rates, and that a net is
given up after `limit` steps: it counts as not converged, and its `steps` are the limit.

The same seed gives the same bits on one machine. Training at this rate is chaotic, so that another processor's
rounding moves single nets' steps; shares, medians and quartiles over seeds stay (see `stack`).

Zero weights never converge: the units of a layer stay equal, so that without biases the last z has the same sign for
every sample, and the samples of one class cannot get beyond y = ½.
"""

from __future__ import annotations

import numpy as np

from gpunet.backend import get_backend
from gpunet.experiments.framework import Run
from gpunet.experiments.toy import x
from gpunet.experiments.toy.nets import Nets, prepare, variants

COURSES, WEIGHTS, POINTS = 10, 100, 1000  # kept for figures; metrics and quartiles are over all seeds and samples


@x.run
def body(run: Run) -> None:
    """Every variant on every data set: run.data is a list of these, or one."""
    if not run.backend.name.startswith("cuda"):
        run.backend = get_backend("numpy")  # the arithmetic of nets this small gains nothing from compiled kernels
    every = [prepare(run, data) for data in (run.data if isinstance(run.data, list) else [run.data])]
    run.note(datasets=[nets.name for nets in every], features={nets.name: nets.features for nets in every})
    for nets in every:
        measure(run, nets)


def measure(run: Run, nets: Nets) -> None:
    """The rows, curves and times of one data set."""
    result, planned = run.result, variants(run.settings.learning_rates, run.settings.threshold)
    result.time(nets.name, step_alone=nets.seconds_per_step_alone(planned[0]))
    for index, variant in enumerate(planned):
        name = f"{nets.name} {variant.word}".strip()
        run.bar.start(f"{x.name} {index + 1}/{len(planned)} {name}", run.settings.limit)
        trained, seconds = nets.train(variant)
        result.time(name, stack=seconds)
        held_out = nets.held_out_accuracy(trained)
        for net in range(len(run.seeds)):
            result.row(name).add(
                converged=trained.converged[net], steps=trained.steps[net], train_loss=trained.loss[net],
                largest_loss=trained.largest_loss[net], train_accuracy=trained.accuracy[net],
                test_accuracy=held_out[net],
            )  # fmt: skip
        result.curves[name] = {
            "steps": trained.marks,
            "loss": trained.course[:, :COURSES].T,
            "loss_quartiles": np.percentile(trained.course, (25, 50, 75), axis=1),
        }
        if not variant.word:
            for error in nets.gradient_errors(nets.start(variant)):
                result.row(name).add(gradient_error=error)
            if nets.features == 2:  # what the decision boundaries are drawn from
                points, labels = nets.of(0)
                result.curves[name] |= {
                    "weights": [w[:WEIGHTS] for w in trained.weights], "x": points[:POINTS], "labels": labels[:POINTS],
                }  # fmt: skip
