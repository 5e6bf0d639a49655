"""`gpunet compress`: somebody's own checkpoint, smaller, for people who never write Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpunet.cli import options

if TYPE_CHECKING:
    from gpunet.linalg.rank import RankRule

USUAL = "50%"


def _file(text: str | Path) -> Path:
    if not str(text):
        raise typer.BadParameter("it is empty: expected the path of a file")
    return Path(text)


def compress(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", show_default=False,
            help="FILE.safetensors, or a folder of shards with model.safetensors.index.json.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", show_default=False, parser=_file,
            help="What is written: a .safetensors file, beside it the plan as .json; of shards, a folder.",
        ),
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", show_default=USUAL,
            help="How much of the numbers of the chosen weights remains, all together: 30% or 0.3.",
        ),
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", show_default=False,
            help="In place of a budget, a rank for each weight: 64, energy=0.9, break-even=0.5, dimension=0.25, "
            "stable or gavish-donoho.",
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", show_default="all weights of 2 or 4 axes but embeddings and lm_head",
            help="Which weights, by their names or their modules', such as 'model.layers.*.mlp.*'; may be given "
            "several times, and '!PATTERN' leaves out what it fits.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan instead of the table.")] = False,
) -> None:  # fmt: skip
    """Cut the weights of a checkpoint of any architecture to low rank, with proof of what is lost.

    A weight M.weight becomes M.0.weight and M.1.weight, as those of two layers in M's place are called:
    nn.Linear(in, l, bias=False) and nn.Linear(l, out), which has the bias; of a convolution one with l filters, and one
    of 1×1. All else is passed on as it is. docs/compress.md has the lines of plain PyTorch that load it.

    One budget holds for all weights: ranks go where they lose least. Of each weight it is shown by how much it is off
    at most, and how near that is to the least that is possible. One weight is in memory at a time.

    Examples: gpunet compress model.safetensors --out small.safetensors --budget 30%

    gpunet compress llama/ --out llama-small --rank 64 --layers 'model.layers.*.mlp.*'
    """
    from gpunet.addresses import harmless
    from gpunet.compression.checkpoint import compress_file
    from gpunet.errors import GpunetError, InputError
    from gpunet.progress import progress
    from gpunet.report import compression
    from gpunet.report.drawing import left_out
    from gpunet.report.terminal import console, rich_table

    if budget is not None and rank is not None:
        raise InputError("--budget and --rank are both given: give one of them")
    share = None if rank is not None else _share(USUAL if budget is None else budget)
    with progress(True) as bar:
        rule = None if rank is None else _rule(rank)
        made = compress_file(file, out, budget=share, rule=rule, layers=layers or (), bar=bar)
    page = made.plan.with_suffix(".html")
    try:
        compression.write(made.said, page, f"{harmless(Path(file).name)}, smaller")
    except (GpunetError, OSError) as error:
        left_out(page.name, error)

    def show() -> None:
        console().print(rich_table(compression.layers_table(made.said)))
        before, after = made.said["bytes"]
        options.say(
            compression.sentence(made.said),
            f"File {before / 1e6:,.1f} → {after / 1e6:,.1f} MB; singular vectors in {made.said['seconds']:.1f} s",
        )
        options.written(made.path, [made.plan, *([page] if page.exists() else [])])

    options.end(made.plan.read_text(), json, show)


def _share(text: str) -> float:
    """A share such as 30% or 0.3, in (0, 1]."""
    from gpunet.errors import InputError, shown

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InputError(f"--budget is {shown(text)}: expected a share in (0, 1], such as 30% or 0.3")
    return share


def _rule(text: str) -> RankRule:
    """A rule for ranks by its name, with its number where it has one."""
    from gpunet.errors import InputError, shown
    from gpunet.linalg import BreakEven, DimensionFraction, Energy, FixedRank, GavishDonoho, StableRank

    plain = {"stable": StableRank, "gavish-donoho": GavishDonoho}
    shares = {"energy": Energy, "break-even": BreakEven, "dimension": DimensionFraction}
    name, _, number = text.partition("=")
    try:
        if text.isascii() and text.isdigit():
            return FixedRank(int(text))
        if not number:
            return plain[name]()
        return shares[name](float(number))
    except (KeyError, ValueError):
        raise InputError(
            f"--rank is {shown(text)}: expected a whole number ≥ 1, {', '.join(f'{each}=SHARE' for each in shares)} "
            f"with a share in (0, 1], {' or '.join(plain)}"
        ) from None
