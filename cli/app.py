"""The tree of commands."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from typer.main import get_group

from gpunet.cli import compress, info, pca, reproduce
from gpunet.cli.help import Commands, Group
from gpunet.experiments import experiments


class Root(Group):
    """All of them, those first that a newcomer looks for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """By name."""
        first = ("run", "pca", "compress", "reproduce", "sweep")
        return [*first, *(name for name in super().list_commands(ctx) if name not in first)]


class Lazy(Group):
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


_first = next(iter(experiments()))
GROUPS = {
    "run": f"""Run one experiment and write its results, claims and figures.

    Each is made from one paper; `gpunet run NAME --help` says what it does, and what it needs of your own data.

    For example:

        gpunet run {_first} --quick
        gpunet run {_first} --dataset my.npz --hidden 50 --seeds 10
    """,
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

    For example:

        gpunet data list
        gpunet data fetch mnist
    """,
    "bench": """Time gpunet beside its rivals, results checked.

    For example:

        gpunet bench svd --shape 1000x20000 --k 20
    """,
    "sweep": """Search settings, coarse to fine, by several workers, on Optuna.

    For example:

        gpunet sweep train --dataset digits --param learning_rate=log:1e-4..1e-1 --param hidden=int:16..256
    """,
}
app = Commands(
    name="gpunet",
    cls=Root,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="SVD-shaped neural networks: published experiments, on NumPy or on your GPU.\n\n"
    f"Start with `gpunet run {_first} --dataset digits`, on data that comes with scikit-learn "
    "(`pip install 'gpunet[data,report]'`). `gpunet COMMAND --help` explains a command, with examples.",
)


def elsewhere(error: Any) -> str:
    """Of a command that there is not, where there is one of that name: "" or a sentence."""
    context, word = error.ctx, re.search(r"'(.*?)'", error.format_message())
    if context is None or context.parent is not None or word is None:
        return ""
    found = [f"`gpunet {group} {word[1]}`" for group in GROUPS if word[1] in _commands(group)]
    if word[1] == "train":
        found.append("`gpunet run`, which trains the networks of papers")
    listed = " and ".join(filter(None, (", ".join(found[:-1]), *found[-1:])))
    return f" There {'are' if found[1:] else 'is'} {listed}." if found else ""


for _name, _help in GROUPS.items():
    app.add_typer(Commands(), name=_name, cls=Lazy, no_args_is_help=True, help=_help)
for _command in (pca.pca, compress.compress, reproduce.reproduce, info.info):
    app.command(_command.__name__)(_command)
