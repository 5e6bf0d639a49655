"""All words of every `--help`, taken from the commands' parameters: Rich and Typer may lay them out as they like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from typer.main import get_command


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every group and command with its words after `gpunet`, in the order in which help lists them."""
    from gpunet.cli.app import app

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                yield from below(inner, (*words, name))

    return below(get_command(app), ())


def names(parameter: Any) -> list[str]:
    """An option's names, the ones that turn it off too; an argument's placeholder."""
    if all(name.startswith("-") for name in parameter.opts):
        return [*parameter.opts, *parameter.secondary_opts]
    return [parameter.metavar or parameter.name.upper()]


def help_text() -> str:
    """One paragraph a command: what it says of itself, then each parameter's names, traits and help."""
    return "\n".join("\n".join(_lines(*found)) for found in commands())


def _lines(words: tuple[str, ...], command: Any) -> Iterator[str]:
    yield " ".join(("gpunet", *words))
    for text in (command.help, command.short_help, command.epilog):
        yield from (f"    {line}".rstrip() for line in (text or "").splitlines())
    for parameter in command.params:
        if not parameter.hidden:
            yield f"  {', '.join(names(parameter))}{''.join(f' [{trait}]' for trait in _traits(parameter))}"
            yield f"      {parameter.help}"
    yield ""


def _traits(parameter: Any) -> Iterator[str]:
    if parameter.metavar:
        yield parameter.metavar
    if several := _choices(parameter):
        yield "|".join(several)
    if parameter.required:
        yield "required"
    if parameter.multiple or parameter.nargs != 1:
        yield "several"
    for name in ("min", "max"):
        if (bound := _found(parameter, name)) is not None:
            yield f"{name} {bound:g}"
    shown, default = parameter.show_default, parameter.default
    if isinstance(shown, str):
        yield f"default: {shown}"
    elif shown and default is not None:
        yield f"default: {' '.join(map(str, default)) if isinstance(default, (list, tuple)) else default}"


def _found(parameter: Any, name: str) -> Any:
    """A trait of the parameter itself, or of its type where an older Typer keeps it."""
    own = getattr(parameter, name, None)
    return getattr(getattr(parameter, "type", None), name, None) if own is None else own


def _choices(parameter: Any) -> list[str]:
    """The words among which one chooses: an older Typer's type has them, a newer one's annotation."""
    if listed := _found(parameter, "choices"):
        return [str(choice) for choice in listed]
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    inner = [word for part in get_args(annotation) for word in (part, *get_args(part))]
    return [word for word in inner if isinstance(word, str)]
