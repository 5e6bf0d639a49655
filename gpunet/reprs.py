"""How objects show themselves: as the call that makes them, or as a small table for a notebook."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gpunet.errors import printable, shown


def settings(thing: Any) -> dict[str, Any]:
    """The arguments that an object was made with, as far as it has attributes of the same names."""
    given = inspect.signature(type(thing).__init__).parameters
    return {name: vars(thing)[name] for name in given if name in vars(thing)}


def as_call(thing: Any, values: Mapping[str, Any], *, bare: bool = False, always: Collection[str] = ()) -> str:
    """The call that makes the thing again, as one would type it: `Dense(16, 'relu')`, `SGD(learning_rate=0.1)`.

    values: its arguments by name; one that is not among them is left out. Of those with a default only what differs
    from it is shown, and those of `always`. bare: arguments that need no name have none, and the first is shown.
    """
    said: list[str] = []
    parameters = [p for p in inspect.signature(type(thing)).parameters.values() if p.name in values]
    places = [i for i, p in enumerate(parameters) if p.kind is not p.KEYWORD_ONLY and _differs(p, values, always)]
    first = [i for i, p in enumerate(parameters[:1]) if p.kind is not p.KEYWORD_ONLY]
    last = max([*first, *places], default=-1) if bare else -1  # those before it are said, too, to be counted
    for i, parameter in enumerate(parameters):
        value = shown(values[parameter.name])
        if i <= last:
            said.append(value)
        elif _differs(parameter, values, always):
            said.append(f"{parameter.name}={value}")
    return f"{type(thing).__name__}({', '.join(said)})"


def _differs(parameter: inspect.Parameter, values: Mapping[str, Any], always: Collection[str]) -> bool:
    """Whether an argument has to be said."""
    value, default = values[parameter.name], parameter.default
    if default is parameter.empty or parameter.name in always:
        return True
    try:
        return bool(value != default)
    except Exception:  # of an array, say
        return True


def indented(text: str, by: str = "  ") -> str:
    """A text whose lines after the first stand further right."""
    return text.replace("\n", f"\n{by}")


def sizes(array: Any) -> str:
    """An array's shape, or what stands in its place, for a line that shows no numbers."""
    shape = getattr(array, "shape", None)
    return shown(array) if shape is None else str(tuple(shape))


def columns(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in plain text, two spaces between columns: so many of them on the left, the others on the right."""
    lines = [list(map(printable, row)) for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        line[:] = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", left: int = 1) -> str:
    """The same as HTML, escaped, for `_repr_html_`."""
    from html import escape

    def line(cells: Sequence[str], kind: str) -> str:
        sides = ("left" if i < left else "right" for i in range(len(cells)))
        parts = (f'<{kind} style="text-align: {s}">{escape(c)}</{kind}>' for s, c in zip(sides, cells, strict=True))
        return f"<tr>{''.join(parts)}</tr>"

    above = f'<caption style="text-align: left">{escape(caption)}</caption>' if caption else ""
    body = "".join(line(row, "td") for row in rows)
    return f"<table>{above}<thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
