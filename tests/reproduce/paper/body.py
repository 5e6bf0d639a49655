"""A small net on each data set."""

from __future__ import annotations

import gpunet as gn
from gpunet.experiments.framework import Measured, Run, load_data

from . import stack, x


@stack.load
def load(names, settings):
    return [load_data(name) for name in names]


@x.run
@stack.run
def body(run: Run) -> None:
    for data in run.data if isinstance(run.data, list) else [run.data]:

        def train(seed: int, data=data) -> Measured:
            trainer = gn.Trainer(gn.Sequential([gn.Dense(3, "sigmoid"), gn.Dense(2)]), device=run.backend, seed=seed)
            history = trainer.fit(data.x_train, data.y_train, epochs=run.settings.epochs, progress=run.bar)
            accuracy = trainer.evaluate(data.x_train, data.y_train)["accuracy"]
            return Measured({"accuracy": accuracy}, {"loss": history["train_loss"]}, {"epoch": history["seconds"][-1]})

        run.each_seed(data.name, run.settings.epochs, train)
    run.note(nets=len(run.result.rows))
