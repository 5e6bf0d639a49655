"""Options that commands share, and the end of those that write result.json."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def _folder(text: str | Path) -> Path:
    if not text:  # "$DIR" where that is not set
        raise typer.BadParameter("it is empty: expected the path of a folder")
    if "://" in str(text) and not os.path.exists(text):
        raise typer.BadParameter("it is an address: expected the path of a folder")
    return Path(text)


def out(what: str = "Folder for result.json and figures.", show_default: bool | str = True) -> Any:
    """Where a command writes."""
    return typer.Option("--out", "-o", metavar="DIR", show_default=show_default, help=what, parser=_folder)


Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", metavar="NAME|PATH", show_default=False,
        help="A data set of `gpunet data list`, or your own: an `.npz` with x_train, y_train, x_test, y_test, a "
        "folder of images (CLASS/*.png), or a folder of IDX files.",
    ),
]  # fmt: skip
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, numpy (the CPU without numba), cuda or cuda:N.", metavar="DEVICE")
]


def seeds(usual: str, help: str | None = None) -> Any:  # noqa: A002
    """How many seeds; `usual` in words."""
    told = help or "How many seeds; results are mean ± deviation."
    return Annotated[int | None, typer.Option("--seeds", "-n", min=1, show_default=usual, help=told)]


def quick(help: str | None = None) -> Any:  # noqa: A002
    """Whether to run on embedded data."""
    told = help or "The embedded digits and one seed, unless asked otherwise: seconds."
    return Annotated[bool, typer.Option("--quick", help=told)]


Seed = Annotated[int, typer.Option("--seed", min=0, help="The first seed.")]
Out = Annotated[Path | None, out(show_default="runs/EXPERIMENT-DATASET")]
Json = Annotated[bool, typer.Option("--json", help="Print result.json instead of tables.")]


def finish(
    folder: Path | None, text: str, json: bool, draw: Callable[[], object], show: Callable[[str], object]
) -> None:
    """Write `folder/result.json` and draw beside it; show("Written: …"), or print the text: if asked, or not written.

    Without a folder nothing is written, and show("") is called.
    """
    from gpunet.errors import RunError
    from gpunet.experiments.result import RESULT
    from gpunet.files import attempted, write_or_keep
    from gpunet.report.drawing import drawn

    path, problem = attempted(lambda: write_or_keep(folder / RESULT, text)) if folder else (None, "")
    figures = drawn(draw) if path and not problem else []
    if json or (problem and not path):
        print(text, end="")
    else:
        show(f"Written: {', '.join([str(path), *(figure.name for figure in figures)])}" if path else "")
    if problem:
        raise RunError(problem)


def sign(command: Callable[..., None], parameters: dict[str, tuple[Any, Any]]) -> None:
    """Give a command the signature that Typer reads: annotations and defaults of its options, by name."""
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)
            for name, (hint, default) in parameters.items()
        ]
    )
    command.__annotations__ = {name: hint for name, (hint, _) in parameters.items()}
