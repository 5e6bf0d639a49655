"""`gpunet bench train`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gpunet.cli import options


def train(
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="all",
            help="mnist-2048, mnist-64 (784-512-256-10 at these batch sizes), digits-32, digits-32-deep or points-21; "
            "may be given several times.",
        ),
    ] = None,
    device: options.Device = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of timing; figures are medians over them.")] = 9,
    compiled: Annotated[
        bool, typer.Option("--compile", help="On a GPU also torch.compile(mode=reduce-overhead): half a minute a case.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Time training steps beside PyTorch and beside the matrix products alone.

    Each contestant trains the same net with Adam, batch after batch, as `fit` does; all run in turn in every round,
    and ratios are taken inside the rounds, so that a machine which others use too does not favour one of them.
    "products" are the matrix products of a step with nothing between them: the floor. The loss at the end shows that
    all have learned the same.

    On a CPU: plain NumPy, numba's element-wise passes, PyTorch eager with fused Adam. On a GPU: operation by
    operation ("eager"), the whole step as one CUDA graph ("graph"), PyTorch on the same GPU.

    Example: gpunet bench train --case mnist-64 --case digits-32
    """  # fmt: skip
    from gpunet.backend import get_backend
    from gpunet.bench import train as bench
    from gpunet.bench.record import provenance
    from gpunet.errors import InputError
    from gpunet.progress import progress

    chosen = list(dict.fromkeys(case or bench.CASES))
    for name in chosen:
        if name not in bench.CASES:
            raise InputError(f"unknown case '{name}': expected some of {', '.join(bench.CASES)}")
    backend = get_backend(device)
    found: dict[str, Any] = {}
    with progress(True) as bar:
        bar.start("bench train", len(chosen))
        for name in chosen:
            times, losses = bench.compare(bench.CASES[name], rounds, device, compiled)
            found[name] = bench.figures(bench.CASES[name], times, losses)
            bar.advance(1, name)
    report = {"benchmark": "train", "device": backend.name, "rounds": rounds, "cases": found}
    if json:
        import json as json_module

        print(json_module.dumps(report | {"provenance": provenance(backend)}, indent=1))
        return
    _print(report)


def _print(report: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from gpunet.report.terminal import console

    table = Table(
        title=f"One Adam step on {report['device']}, median of {report['rounds']} rounds; quartiles of the ratio",
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for name in ("case", ""):
        table.add_column(name, no_wrap=True)
    for name in ("µs/step", "over\nproducts", "over\nPyTorch", "quartiles", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for case, contestants in report["cases"].items():
        for place, (name, row) in enumerate(contestants.items()):
            ratio, quartiles, loss = row["over_torch"], row["over_torch_quartiles"], row["loss"]
            table.add_row(
                case if place == 0 else "", name, f"{row['microseconds_per_step']:.1f}", f"{row['over_products']:.2f}×",
                f"{ratio:.3f}×" if ratio else "–", "–".join(f"{q:.3f}" for q in quartiles or ()) or "–",
                "–" if loss is None else f"{loss:.4f}", end_section=place == len(contestants) - 1,
            )  # fmt: skip
    screen = console()
    screen.print(table)
    if not any("torch" in contestants for contestants in report["cases"].values()):
        screen.print("PyTorch is not installed here: pip install torch", markup=False, soft_wrap=True)
