"""`gpunet data`: what data there is, fetching it, checking it, and where it lies."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gpunet.cli import completion
from gpunet.cli.help import Commands
from gpunet.errors import printable

app = Commands()

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", autocompletion=completion.data_sets, help="Data sets; all of them by default."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_(
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Hold every file against its checksum; takes a moment.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Show every data set with its state, its size unpacked, and where it lies.

    embedded: made, or part of scikit-learn (digits); not installed: without that, `pip install 'gpunet[data]'`;
    verified: complete, checksums right;
    present: complete, but not checked, or of the right size where no checksum is known (CIFAR);
    damaged; incomplete: some files are missing; missing.

    For example:

        gpunet data list --no-check
    """
    from gpunet.datasets import data_dir, names, status

    found = [status(name, check=check) for name in names()]
    if as_json:
        print(json.dumps({"data_dir": str(data_dir()), "datasets": [each.as_dict() for each in found]}, indent=2))
        return
    rows = [(each.name, each.state, _size(each.size), each.folder or "-") for each in found]
    _table(("name", "state", "size", "where"), rows)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", autocompletion=completion.data_sets, show_default=False,
            help="Data sets; without any, a terminal shows them and asks which.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there are: 350 MB to download.")] = False,
    mirror: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Fetch from here instead of the known mirrors; may be given several times."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="X", min=0.1, help="Seconds without an answer before the next mirror is tried.")
    ] = 20.0,
) -> None:  # fmt: skip
    """Download data sets into the data folder.

    Mirrors are tried in turn. A file gets its name only when its unpacked content has the right checksum.
    Of an interrupted download nothing is left: the next `fetch` begins it again.
    Files that are there and sound are left alone.
    The CIFAR sets come as archives of 170 MB each, which are checked, unpacked and removed.

    For example:

        gpunet data fetch mnist
    """
    from gpunet import datasets
    from gpunet.datasets.catalog import origin

    given = datasets.names() if everything else names or _asked()
    for entry in [datasets.entry(name) for name in given]:
        if entry.embedded:
            print(f"{entry.name}: nothing to fetch, it {origin(entry.name)}")
            continue
        paths = datasets.fetch(entry.name, mirrors=mirror, timeout=timeout, progress=True)
        state = "and verified" if entry.checkable else "(no checksums of its files are known)"
        print(printable(f"{entry.name}: complete {state} in {paths[0].parent}"))


def _somebody_is_there() -> bool:
    """Whether a question would be read and answered."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _asked() -> list[str]:
    """The data sets that are chosen at a terminal, none where nothing is; InputError where nobody can be asked."""
    from gpunet.datasets import entry, names, status
    from gpunet.errors import InputError
    from gpunet.extras import need

    if _somebody_is_there():
        need("fetching a data set", "pooch", "requests")
    found = [status(name, check=False) for name in names() if not entry(name).embedded]
    rows = [(f"{place}", each.name, _size(each.size), each.state) for place, each in enumerate(found, 1)]
    _table(("", "name", "size", "state"), rows)
    if not _somebody_is_there():
        raise InputError("no data set is named: expected some of those listed, or --all for all of them")
    while True:
        try:
            words = input("Which to fetch, by number or name (nothing: none)? ").replace(",", " ").split()
        except EOFError:
            print()
            return []
        known = {str(place): each.name for place, each in enumerate(found, 1)} | {e.name: e.name for e in found}
        if not (unknown := [word for word in words if word not in known]):
            return list(dict.fromkeys(known[word] for word in words))
        print(printable(f"not one of these: {', '.join(unknown)}"))


@app.command()
def verify(names: Names = None, as_json: Json = False) -> None:
    """Check the files of data sets against their SHA-256.

    Where no checksum of a file is known (CIFAR), its size is checked, and the table says so.

    Exit code 1 when a file is damaged, when a data set is incomplete, or when one that was named is missing.

    For example:

        gpunet data verify mnist
    """
    from gpunet.datasets import names as all_names
    from gpunet.datasets import status
    from gpunet.datasets.disk import require_sound

    found = [status(name) for name in names or all_names()]
    if as_json:
        print(json.dumps({"datasets": [each.as_dict() for each in found]}, indent=2))
    else:
        files = [(each.name, file) for each in found for file in each.files]
        rows = [(file.state, f"{name}/{file.file}", file.detail or "") for name, file in files]
        rows += [(each.state, each.name, "") for each in found if not each.files]
        _table(("state", "file", ""), rows)
    require_sound(found, named=bool(names))


@app.command()
def path(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=completion.data_sets, help="A data set; without it, the data folder."
        ),
    ] = None,
) -> None:
    """Print the folder of a data set, or the data folder; it need not exist yet.

    For example:

        ls "$(gpunet data path mnist)"
    """
    from gpunet.datasets import data_dir, dataset_dir

    found = str(data_dir() if name is None else dataset_dir(name))
    typer.echo(printable(found) if sys.stdout.isatty() else os.fsencode(found))  # for programs every byte of it


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size else "-"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """As wide as the terminal; in a pipe a row is a line, for programs."""
    from gpunet.reprs import columns

    print(columns(head, rows, left=len(head)))
