"""`gpunet run EXPERIMENT`: one file a command."""

from __future__ import annotations

import typer

from gpunet.cli.run_cifar_mlp import cifar_mlp
from gpunet.cli.run_dmn import dmn
from gpunet.cli.run_svd_dnn import svd_dnn
from gpunet.cli.run_svd_init import svd_init
from gpunet.cli.run_toy import toy

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def experiments() -> None:
    """Run one experiment and write its results, claims and figures."""


app.command("svd-init")(svd_init)
app.command("svd-dnn")(svd_dnn)
app.command("dmn")(dmn)
app.command("toy")(toy)
app.command("cifar-mlp")(cifar_mlp)
