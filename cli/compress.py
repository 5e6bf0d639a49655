"""`gpunet compress`: somebody's own checkpoint, smaller, for people who never write Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpunet.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpunet.linalg.rank import RankRule

USUAL = "50%"


def _file(text: str | Path) -> Path:
    return Path(_given(str(text)))


def _given(text: str) -> str:
    if not text:
        raise typer.BadParameter("it is empty: expected the path of a file")
    return text


def compress(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", show_default=False, parser=_given,
            help="FILE.safetensors, or a folder of shards with model.safetensors.index.json; FILE.onnx; what gn.save "
            "wrote.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", show_default=False, parser=_file,
            help="What is written: a file like the one that is read, beside it the plan as .json and a page as .html; "
            "of shards, a folder.",
        ),
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", show_default=USUAL,
            help="How much of the numbers of the chosen weights remains, all together: 30% or 0.3.",
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", show_default=False,
            help="In place of a budget, the smallest at which accuracy on --evaluate falls by no more: 0.5% or 0.005.",
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES", show_default=False,
            help="In place of a budget, how many times as fast a batch of --data is to be, by the clock, here.",
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
            help="Which weights, by their names or their modules', such as '*_proj'; may be given "
            "several times, and '!PATTERN' leaves out what it fits.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, parser=_file,
            help="Samples as the network is to see them: .npz with x, with x_train, or with arrays by the names of an "
            "ONNX graph's inputs. Weights are cut where their outputs on these change least.",
        ),
    ] = None,
    evaluate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, parser=_file,
            help=".npz with x and y, or x_test and y_test: accuracy is measured on these.",
        ),
    ] = None,
    count: Annotated[
        str,
        typer.Option(metavar="WHAT", help="What --budget is a share of: parameters, multiplications or milliseconds."),
    ] = "parameters",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Of the batch that is timed.")] = 1000,
    tune: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="EPOCHS", show_default=False, help="Train a model of ours on, on --data, which has labels."
        ),
    ] = None,
    device: options.Device = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the plan instead of the table.")] = False,
) -> None:  # fmt: skip
    """Cut the weights of a network to low rank, with proof of what is lost.

    Of a checkpoint of any architecture M.weight becomes M.0.weight and M.1.weight, as those of two layers in M's place
    are called: nn.Linear(in, l, bias=False) and nn.Linear(l, out), which has the bias; of a convolution one with l
    filters, and one of 1×1. All else is passed on as it is. docs/compress.md has the lines of PyTorch that load it.

    One budget holds for all weights: ranks go where they lose least. Of each weight it is shown by how much it is off
    at most, and how near that is to the least that is possible.

    An ONNX graph, or a model that gn.save wrote, can be run: then --data, --max-drop, --speed and --evaluate say more.

    For example:

        gpunet compress model.safetensors --out small.safetensors --budget 30%
        gpunet compress llama/ --out llama-small --rank 64 --layers '*_proj'
        gpunet compress net.onnx --out small.onnx --data train.npz --evaluate held-out.npz --max-drop 0.5%
    """
    from gpunet.addresses import harmless
    from gpunet.compression.checkpoint import compress_file
    from gpunet.compression.stored import compress_stored, runs
    from gpunet.compression.told import sentence
    from gpunet.errors import GpunetError, InputError
    from gpunet.progress import progress
    from gpunet.report import compression
    from gpunet.report.drawing import left_out, withdraw
    from gpunet.report.terminal import console, rich_table

    given = {"--budget": budget, "--max-drop": max_drop, "--speed": speed, "--rank": rank}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} are both given: give one of them")
    share = _share("--budget", USUAL if budget is None else budget) if named in ([], ["--budget"]) else None
    rule = None if rank is None else _rule(rank)

    def begin(plan: Path) -> None:
        withdraw(plan.with_suffix(".html"))

    with progress(True) as bar:
        if runs(file):
            made = compress_stored(
                file, out, data=_arrays(data), evaluate=_arrays(evaluate), device=device, bar=bar, begin=begin,
                budget=share, max_drop=None if max_drop is None else _share("--max-drop", max_drop, zero=True),
                speed=speed, rank=rule, layers=layers, count=count, batch_size=batch_size, tune=tune,
            )  # fmt: skip
        else:
            needs = {"--max-drop": max_drop, "--speed": speed, "--data": data, "--evaluate": evaluate, "--tune": tune}
            if asked := next((name for name, value in needs.items() if value is not None), None):
                raise InputError(
                    f"{asked} needs a network that can be run, and '{harmless(file)}' holds weights alone: give an "
                    ".onnx file or a model that gn.save wrote; in Python gn.compress(module, data) takes PyTorch's"
                )
            if count != "parameters":
                raise InputError(f"--count {count} needs a network that can be run: of weights alone it is parameters")
            made = compress_file(file, out, budget=share, rule=rule, layers=layers or (), bar=bar, begin=begin)
    page, pages = made.plan.with_suffix(".html"), list[Path]()
    try:
        pages.append(compression.write(made.said, page, f"{harmless(Path(file).name)}, smaller"))
    except (GpunetError, OSError) as error:
        left_out(page.name, error)

    def show() -> None:
        console().print(rich_table(compression.layers_table(made.said)))
        before, after = made.said["bytes"]
        options.say(sentence(made.said), f"File {before / 1e3:,.0f} → {after / 1e3:,.0f} kB")
        options.written(made.path, [made.plan, *pages])

    options.end(made.plan.read_text(encoding="utf-8"), json, show)


def _share(name: str, text: str, zero: bool = False) -> float:
    """A share such as 30% or 0.3, in (0, 1], with zero in [0, 1]."""
    from gpunet.errors import InputError, shown

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1 or (share == 0 and not zero):
        raise InputError(
            f"{name} is {shown(text)}: expected a share in {'[' if zero else '('}0, 1], such as 30% or 0.3"
        )
    return share


def _arrays(path: Path | None) -> dict[str, Any] | None:
    from gpunet.datasets.npz import load_arrays

    return None if path is None else load_arrays(path)


def _rule(text: str) -> RankRule:
    """A rule for ranks by its name, with its number where it has one."""
    from gpunet.errors import InputError, shown
    from gpunet.linalg import BreakEven, DimensionFraction, Energy, FixedRank, GavishDonoho, StableRank

    plain: dict[str, Callable[[], RankRule]] = {"stable": StableRank, "gavish-donoho": GavishDonoho}
    shares: dict[str, Callable[[float], RankRule]] = {
        "energy": Energy,
        "break-even": BreakEven,
        "dimension": DimensionFraction,
    }
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
