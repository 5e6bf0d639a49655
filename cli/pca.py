"""`gpunet pca`: the components of a file of any size, for people who never write Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpunet.cli import options

if TYPE_CHECKING:
    from gpunet.decompose import Found

LONGEST = 60  # characters of a folder's name, and of a figure's title
SHOWN = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # components that have a row


def pca(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", show_default=False,
            help="FILE.npy, FILE.npz::MEMBER, FILE.h5::DATASET, a Zarr folder, a folder of .npy shards, or a pattern "
            "in quotes, such as 'x-*.npy': samples, one a row; images are flattened.",
        ),
    ],
    k: Annotated[
        int | None,
        typer.Option(
            "--k", "-k", metavar="N", min=1, show_default="100, or all there are", help="How many components."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", show_default=False,
            help="A label a sample, whole numbers or (of an .npy) text: components class by class."),
    ] = None,
    center: Annotated[
        bool, typer.Option("--center", help="Subtract the mean first, of each class its own: the usual PCA.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", "-w", metavar="N", min=1, help="Processes on this machine, one thread each.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", show_default=False,
            help="A Dask scheduler, tcp://HOST:8786, whose workers see FILE under the same path.",
        ),
    ] = None,
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="Sums of floats have the same bits however they are split; slower.")
    ] = False,
    device: options.Device = "auto",
    out: Annotated[
        Path | None,
        options.out("Folder for result.json, the components and the figure.", "runs/pca-FILE"),
    ] = None,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Compute the principal components of a file of any size, with a certificate.

    The file is read once, a piece at a time, however large it is, and what it sums up to is decomposed: memory is that
    of a few matrices of features × features. Bytes are summed exactly; any number of workers gives the same bits.

    Writes the components with their variances, mean and certificate as components.safetensors and components.npz, the
    figure spectrum.png, and result.json. The certificate bounds the singular values and the angle by which the
    components may be off, and says whether none of the largest can have been missed. Variances are over n, not n − 1.

    For example:

        gpunet pca images.npy --k 50 --center
        gpunet pca 'shards/x-*.npy' --labels y.npy --workers 4
        gpunet pca data.h5::train --scheduler tcp://10.0.0.1:8786
    """
    from gpunet.addresses import harmless
    from gpunet.decompose import ARRAYS, Settings, decompose
    from gpunet.files import RESULT, alone, writable_folder
    from gpunet.progress import progress
    from gpunet.report.drawing import pictures, withdraw

    settings = Settings(k, center, reproducible, workers, scheduler, device)
    folder = writable_folder(out or Path("runs") / f"pca-{_name(file)}", RESULT, *ARRAYS, "spectrum.png")
    with alone(folder):
        with progress(True) as bar:
            found = decompose(file, labels, settings, bar)
        withdraw(*pictures(folder))
        found.write_arrays(folder)

        def draw() -> None:
            from gpunet.report import spectrum_figure

            spectrum_figure.draw(found.parts, f"{harmless(_name(file))}, {_kind(found)}", folder)

        options.finish(folder, found.text(), json, draw, lambda: _print(found))


def _name(file: str) -> str:
    """Of the folder where results go."""
    path, _, member = file.partition("::")
    name = f"{Path(path).name}{member and '-'}{member}"
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}-{name[-LONGEST // 2 :]}"
    return "".join(each if each.isalnum() or each in "-_." else "-" for each in name) or "file"


def _kind(found: Found) -> str:
    """Of what these are the components."""
    about = "about the mean" if found.settings.center else "about 0"
    return f"{found.shape[0]} × {found.shape[1]} {found.dtype}, {about}"


def _print(found: Found) -> None:
    from gpunet.decompose import ARRAYS
    from gpunet.report.table import Column, Table
    from gpunet.report.terminal import console, rich_table

    parts = found.parts
    heads = ["variance", "share, %", "together, %", "σ, at least", "σ, at most"]
    rows: list[tuple[str, ...]] = []
    breaks: list[int] = []
    for part in parts:
        breaks.append(len(rows))
        rows += _rows(part)
    title = f"{found.file}: {_kind(found)}"
    columns = tuple(Column(head) for head in heads)
    console().print(rich_table(Table(title, columns, tuple(rows), breaks=frozenset(breaks[1:]), corner="component")))
    options.say(_certified([part["certificate"] for part in parts], found))
    took = found.seconds["sums"]
    options.say(
        f"Read and summed {found.megabytes:,.1f} MB in {took:.1f} s, {found.speed:,.0f} MB/s; components in "
        f"{found.seconds['components']:.1f} s; memory at most {found.provenance['peak_memory_bytes'] / 1e6:,.0f} MB",
        f"Components: {', '.join(ARRAYS)}",
    )


def _rows(part: dict[str, Any]) -> list[tuple[str, ...]]:
    values, shares, sigma = part["explained_variance"], part["explained_variance_ratio"], part["certificate"]["sigma"]
    some = [place for place in range(len(values)) if place + 1 in SHOWN or place == len(values) - 1]
    who = "" if part["class"] is None else f"class {part.get('name', part['class'])}: "
    return [
        (
            f"{who}{place + 1}", f"{values[place]:.6g}", f"{100 * shares[place]:.3f}",
            f"{100 * shares[: place + 1].sum():.3f}", *(f"{end:.8g}" for end in sigma[place]),
        )
        for place in some
    ]  # fmt: skip


def _certified(proofs: list[dict[str, Any]], found: Found) -> str:
    """The certificate in a line."""
    whole = sum(bool(each["complete"]) for each in proofs)
    worst = max(float(each["sine"]) for each in proofs)
    of = "" if len(proofs) == 1 else f" in {whole} of {len(proofs)} classes"
    missed = (
        f"none of the {found.settings.k} largest was missed{of}" if whole else "it is not shown that none was missed"
    )
    angle = f"the components' span is off by a sine of at most {worst:.1e}" if math.isfinite(worst) else (
        "no bound on their angle is shown"
    )  # fmt: skip
    return f"Certificate: {missed}; {angle}; residual {found.pca.residual:.1e}"
