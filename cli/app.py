"""The tree of commands."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from gpunet.cli import compress, info, pca, reproduce
from gpunet.experiments import experiments


class Group(TyperGroup):
    """The commands of the module of its name, which is imported when they are asked for: help need not wait for all."""

    @property
    def commands(self) -> Any:
        """By name."""
        return _commands(str(self.name))

    @commands.setter
    def commands(self, given: Any) -> None:
        """Typer gives it none."""


@functools.cache
def _commands(name: str) -> Any:
    return get_group(importlib.import_module(f"gpunet.cli.{name}").app).commands


GROUPS = {
    "run": "Run one experiment and write its results, claims and figures.",
    "data": """List, fetch and check the data sets.

    They lie in the data folder: $GPUNET_DATA, or the platform's cache folder where that is not set.
    `digits` is part of scikit-learn, `xor`, `linear` and `xor-easy` are made: they need no file.

    Your own data needs no registration. Give its path to `--dataset` of `gpunet run` or `gpunet sweep`:
    a folder of images (`CLASS/*.png`, `*.jpg` or `*.webp`, or the same in `train/` and `test/`; `--resize 64` where
    they differ in size),
    a table (`*.csv`, `*.tsv`; `--label COLUMN` names the label's, or a folder with `train.csv` and `test.csv`),
    an .npz with x_train, y_train, x_test and y_test, or with X and y; .npy files of these names in a folder,
    or a folder of IDX files (`*train*images*`, `*train*labels*`, and the same with t10k or test).
    Labels may be any whole numbers or words; where nothing is split, every fifth sample of a class is for the test.
    """,
    "bench": "Time gpunet beside its rivals, results checked.",
    "sweep": """Search settings, coarse to fine, by several workers, on Optuna.

    `gpunet sweep train --dataset digits --param learning_rate=log:1e-4..1e-1 --param hidden=int:16..256 --workers 2`
    """,
}
app = typer.Typer(
    name="gpunet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="SVD-shaped neural networks: published experiments, on NumPy or on your GPU.\n\n"
    f"Start with `gpunet run {next(iter(experiments()))} --dataset digits`: it needs no download. Add `--debug` to any "
    "command for a traceback.",
)
for _name, _help in GROUPS.items():
    app.add_typer(typer.Typer(), name=_name, cls=Group, no_args_is_help=True, help=_help)
app.command("reproduce")(reproduce.reproduce)
app.command("pca")(pca.pca)
app.command("compress")(compress.compress)
app.command("info")(info.info)
