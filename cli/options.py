"""What commands share: options, and how they end."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from gpunet.cli import completion


def _folder(text: str | Path) -> Path:
    if not text:  # "$DIR" where that is not set
        raise typer.BadParameter("it is empty: expected the path of a folder")
    if "://" in str(text) and not os.path.exists(text):
        raise typer.BadParameter("it is an address: expected the path of a folder")
    return Path(text)


def out(what: str = "Folder for result.json and figures.", show_default: bool | str = True) -> Any:
    """Where a command writes."""
    return typer.Option("--out", "-o", metavar="DIR", show_default=show_default, help=what, parser=_folder)


Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", autocompletion=completion.devices,
        help="auto, cpu, numpy (the CPU without numba), cuda or cuda:N.",
    ),
]  # fmt: skip


Json = Annotated[bool, typer.Option("--json", help="Print result.json instead of tables.")]


# -- of commands that are made from what an experiment or a search declares ------------------------------------------

Options = dict[str, tuple[Any, Any]]  # an option's annotation and its default, by name, as they are listed


def option(kind: Any, default: Any, *flags: str, **known: Any) -> tuple[Any, Any]:
    """An option's annotation and its default; known: as `typer.Option` takes it."""
    usual: dict[str, Any] = {"metavar": placeholder(kind)}
    if usual["metavar"] and "|" in usual["metavar"]:
        usual["autocompletion"] = completion.among(usual["metavar"].split("|"))
    return Annotated[kind, typer.Option(*flags, **usual | known)], default


def placeholder(kind: Any) -> str | None:
    """What stands in help for a value of this kind, or for one of several."""
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    inner = (placeholder(part) for part in get_args(kind))
    return {int: "N", float: "X"}.get(kind) or next(filter(None, inner), None)


def sign(command: Callable[..., None], parameters: Options) -> None:
    """Give a command the signature that Typer reads."""
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)
            for name, (hint, default) in parameters.items()
        ]
    )
    command.__annotations__ = {name: hint for name, (hint, _) in parameters.items()}


# -- of commands that are given data ------------------------------------------------------------------------------

OWN = (
    "a folder of images (`CLASS/*.png`, `*.jpg`, `*.webp`), a table (`*.csv`, `*.tsv`), an `.npz` with X and y or "
    "x_train, y_train, x_test, y_test, an `.npy` with y.npy beside it, or a folder of IDX files."
)


def data(default: str | None = None, told: str = "") -> Options:
    """The options that say which data, and how it is read; told: the default in words, where it depends."""
    return {
        "dataset": option(
            str if default else str | None, default, "--dataset", "-d", metavar="NAME|PATH",
            autocompletion=completion.data_or_path, show_default=told or bool(default),
            help=f"A data set of `gpunet data list`, or your own: {OWN}",
        ),
        "label": option(
            str | None, None, "--label", metavar="COLUMN|FILE", show_default=False,
            help="Of a table the label's column, by its name or its number from 1 (by default one called label, class "
            "or target, or else the last); of an `.npy` the file with the labels.",
        ),
        "resize": option(
            int | None, None, "--resize", metavar="N", min=1, max=4096, show_default="no",
            help="Make images N×N pixels: upright, the shorter side made N, and the middle of the longer one.",
        ),
        "standardize": option(
            bool, False, "--standardize",
            help="Subtract each feature's mean and divide by its deviation, both of the training samples.",
        ),
    }  # fmt: skip


def reading(given: dict[str, Any]) -> dict[str, Any]:
    """How data is to be read, taken out of what a command was given."""
    found = {name: given.pop(name) for name in ("label", "resize", "standardize")}
    return {name: value for name, value in found.items() if value not in (None, False)}


def tell_notes(name: str, notes: Sequence[str]) -> None:
    """One line on standard error that says what was decided in reading data."""
    from gpunet.progress import aside

    if notes:
        aside(f"gpunet: {name}: {'; '.join(notes)}")


# -- how commands end --------------------------------------------------------------------------------------------------


def end(text: str, json: bool, show: Callable[[], object], problem: str = "") -> None:
    """Print what a command made, as JSON or as people read it; RunError for what went wrong all the same."""
    if json:
        print(text, end="")
    else:
        show()
    if problem:
        from gpunet.errors import RunError

        raise RunError(problem)


def finish(
    folder: Path, text: str, json: bool, draw: Callable[[], object], show: Callable[[], object],
    seconds: float | None = None,
) -> None:  # fmt: skip
    """Write `folder/result.json` and draw beside it; then print what was found, and where it is."""
    from gpunet.files import RESULT, write_or_keep
    from gpunet.report.drawing import written_and_drawn

    path, figures, problem = written_and_drawn(folder, lambda: write_or_keep(folder / RESULT, text), draw)

    def told() -> None:
        show()
        if path:
            written(path, figures, seconds)

    end(text, json or path is None, told, problem)


def say(*lines: str) -> None:
    """Lines on standard output, whatever is in them."""
    from gpunet.report.terminal import console

    for line in lines:
        console().print(line, soft_wrap=True)


def written(path: Path, figures: Sequence[Path], seconds: float | None = None) -> None:
    """The line that says where results are."""
    took = "" if seconds is None else f" ({seconds:.0f} s)"
    say(f"Written: {', '.join([str(path), *(figure.name for figure in figures)])}{took}")
