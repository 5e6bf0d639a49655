"""Help as text: laid out for the terminal's width, and printed without importing what draws boxes (100 ms)."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gpunet.cli import process
from gpunet.reprs import window
from gpunet.streams import spelt

WIDEST = 100  # columns: longer lines are harder to read
NARROW = 64  # below this an option's help stands under its name, not beside it
UNSAID = "Python's -OO leaves out what commands say of themselves; `python -m gpunet` shows it."
BESIDE = 26  # the longest name that has its help beside it

Items = Sequence[tuple[str, str]]


def _width() -> int:
    """Of a line; 80 columns where nothing says how many there are."""
    return min(WIDEST, window(80))


def _in_colour() -> bool:
    able = os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown") and not os.environ.get("NO_COLOR")
    return able and sys.stdout is not None and sys.stdout.isatty()


def laid_out(usage: str, about: str, sections: Sequence[tuple[str, Items]]) -> str:
    """A command's help: how it is called, what it does, and under each heading names with what they mean.

    about: paragraphs; lines that are indented are examples, and stay lines.
    """
    width = _width()
    lines = [*_wrapped(f"Usage: {usage}", width, "", "       "), ""]
    for paragraph in inspect.cleandoc(about).split("\n\n"):
        for indented, block in _blocks(paragraph.splitlines()):
            indents = ("    ", "      ") if indented else ("", "")
            for text in block if indented else (" ".join(block),):
                lines += _wrapped(text.strip(), width, *indents)
        lines.append("")
    for heading, items in sections:
        lines += [f"{heading}:", *_listed(items, width), ""]
    text = "\n".join(lines)
    text = _painted(text, [name for _, items in sections for name, _ in items]) if _in_colour() else text
    letters = getattr(sys.stdout, "encoding", None) or "utf-8"  # Typer would write UTF-8 where that is ASCII
    return spelt(text, letters)


def _blocks(lines: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    """Lines that stand together, with whether they are indented."""
    block: list[str] = []
    for line in lines:
        if block and line.startswith("  ") != block[0].startswith("  "):
            yield block[0].startswith("  "), block
            block = []
        block.append(line)
    if block:
        yield block[0].startswith("  "), block


def _listed(items: Items, width: int) -> Iterator[str]:
    """Names, and what they mean beside them or, where there is little room, below."""
    longest = max((len(name) for name, _ in items if len(name) <= BESIDE), default=0)
    for name, text in items:
        if width < NARROW:
            yield from _wrapped(name, width, "  ", "    ")
            yield from _wrapped(text, width, "      ", "      ")
            continue
        column = " " * (longest + 4)
        first = f"  {name}"
        if len(first) + 2 > len(column):
            yield first
            first = ""
        yield from _wrapped(text, width, first.ljust(len(column)), column)


def _wrapped(text: str, width: int, first: str, later: str) -> list[str]:
    """Lines of at most so many columns; what is one word, such as a long path, is broken only where it must."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    ) or [first.rstrip()]  # fmt: skip


def _painted(text: str, names: Sequence[str]) -> str:
    """Headings bold, names and code in colour, for a terminal; code then needs no backticks."""
    text = re.sub(r"^(Usage:|[A-Z][a-z]+:$)", "\x1b[1m\\1\x1b[0m", text, flags=re.MULTILINE)
    for name in names:
        text = re.sub(rf"^  {re.escape(name)}(?=  |$)", f"  \x1b[36m{name}\x1b[0m", text, flags=re.MULTILINE)
    return re.sub(r"`([^`]+)`", lambda found: re.sub(r"\S+", "\x1b[36m\\g<0>\x1b[0m", found[1]), text)


class _Told:
    """What our commands and groups share: their help's layout, and the options that all have."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        """Typer's to call."""
        listed: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Commands": [], "Options": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                listed[kind].append(_record(parameter, record[1]))
        if isinstance(self, TyperGroup):
            found = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
            listed["Commands"] = [(str(each.name), _summary(each)) for each in found if each and not each.hidden]
        pieces = (re.sub(r"^\{(.*)\}", r"\1", piece) for piece in self.collect_usage_pieces(ctx))
        silent = not self.help or not all(text for _, text in listed["Commands"])
        about = "\n\n".join(filter(None, [self.help, UNSAID if silent and __doc__ is None else ""]))
        usage = f"{ctx.command_path} {' '.join(pieces)}"
        formatter.write(laid_out(usage, about, [(head, items) for head, items in listed.items() if items]))

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, and those that every command has."""
        *own, helping = super().get_params(ctx)  # type: ignore[misc]
        return [*own, *_shared(ctx.parent is None), helping]


def _summary(command: Any) -> str:
    """What a command says of itself first."""
    return " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())


def _record(parameter: Any, told: str) -> tuple[str, str]:
    """A parameter's names as they are typed, short ones first, and Typer's words on it in ours."""
    told = " ".join(told.replace(f"default: ({parameter.show_default})", f"default: {parameter.show_default}").split())
    told = re.sub(r"(\S+)<=x<=([^\s\];]+)", r"\1 to \2", told)
    told = re.sub(r"x>=(?=[^\s\];]+\]$)", "at least ", told)
    if parameter.param_type_name == "argument":
        return f"{parameter.metavar}{'...' * (parameter.nargs != 1)}", told
    names = [*sorted(parameter.opts, key=len), *parameter.secondary_opts]
    return f"{', '.join(names)}{'' if parameter.is_flag else f' {parameter.metavar}'}", told


def in_our_words(told: str) -> str:
    """What Typer says of a value that it refuses, in ours."""
    told = re.sub(r"is not a valid int(eger)?( range)?\.$", "is not a whole number.", told)
    told = re.sub(r"is not a valid float( range)?\.$", "is not a number.", told)
    told = re.sub(r"is not in the range (\S+)<=x<=(\S+?)\.$", r"is out of range: expected \1 to \2.", told)
    return re.sub(r"is not in the range x>=(\S+?)\.$", r"is out of range: expected at least \1.", told)


class Command(_Told, TyperCommand):
    """A command of ours."""


class Group(_Told, TyperGroup):
    """A group of commands of ours; alone it shows its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's."""
        if {*args} <= {"-q", "--quiet", "--debug"} and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


class Commands(typer.Typer):
    """Where commands are declared: all of them are ours."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"cls": Group, "rich_markup_mode": None, "add_completion": False} | given)

    def command(self, name: str | None = None, **given: Any) -> Callable[..., Any]:
        """As Typer's."""
        return super().command(name, **{"cls": Command} | given)


# -- what every command has --------------------------------------------------------------------------------------------


def _hush(value: bool) -> None:
    if value:
        from gpunet.progress import hush

        hush(True)


def _version(value: bool) -> None:
    if value:
        print(process.version())
        raise typer.Exit


@functools.cache
def _shared(root: bool) -> list[Any]:
    """Options that every command and group takes, and the root one more."""
    probe = typer.Typer(add_completion=False)

    @probe.command()
    def all_of_them(
        quiet: Annotated[
            bool,
            typer.Option(
                "--quiet", "-q", callback=_hush, expose_value=False, show_default=False,
                help="Say nothing on standard error but warnings and errors; results are printed all the same.",
            ),
        ] = False,
        debug: Annotated[
            bool,
            typer.Option("--debug", expose_value=False, show_default=False, help="Show a failure's traceback."),
        ] = False,
        version: Annotated[
            bool,
            typer.Option(
                "--version", "-V", callback=_version, is_eager=True, expose_value=False, show_default=False,
                help="Show the version and exit.",
            ),
        ] = False,
    ) -> None:  # fmt: skip
        """Of which Typer makes the options."""

    return [each for each in get_command(probe).params if root or each.name != "version"]
