"""How objects show themselves: as the call that makes them, or as a small table for a notebook."""

from __future__ import annotations

import inspect
import shutil
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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


# -- tables as wide as the window --------------------------------------------------------------------------------------

NARROWEST = 20  # columns of a window, whatever it says of itself
UNLIMITED = 10_000  # where nothing says how many there are: in a file, in a pipe
WORD = 14  # columns: of a longer word a narrow cell may show parts one below the other; never of a number
SHORT = 10  # columns: words that take no more are not wrapped
LEAST = 6  # columns of words beside the longest numbers
SEAMS = "_./-(,"  # letters after which a long word is broken rather than anywhere
GAP = 2  # spaces between columns


def window(unknown: int = UNLIMITED) -> int:
    """How many columns a line has: what $COLUMNS says, or the terminal of standard output, else `unknown`."""
    return max(NARROWEST, min(shutil.get_terminal_size((unknown, 24)).columns, UNLIMITED))


def cells(text: str) -> int:
    """How many columns a text takes: two for a wide letter, none for an accent by itself."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)


Needs = tuple[int, int, int]  # columns that a table's column takes as it is, at least, and where there is no room


def needed(head: str, column: Iterable[str], words: bool) -> Needs:
    """How many columns a table's column takes: words may be wrapped, and broken last of all; numbers stay whole."""
    entries = list(column)
    lines = [line for text in (head, *entries) for line in text.split("\n")]
    whole = max(map(cells, lines), default=0)
    parts = [word for text in ((head, *entries) if words else (head,)) for word in text.split()]
    least = min(WORD, max(map(cells, parts), default=0))
    least = max(least, min(whole, SHORT)) if words else max([least, *map(cells, entries)])
    return whole, least, min(least, LEAST) if words else max([min(least, LEAST), *map(cells, entries)])


def side_by_side(needs: Sequence[Needs], room: int, gap: int = GAP, keys: int = 1) -> list[dict[int, int]]:
    """A table's columns in parts that fit a window: of each part the places of its columns with their widths.

    needs: of each column what `needed` says; gap: what stands between two; keys: how many at the beginning name a row,
    and stand in every part. No parts where one of them would be wider than the window all the same.
    """
    names, parts = list(range(keys)), []
    part = names[:]
    for place in range(keys, len(needs)):
        if len(part) > keys and sum(needs[i][1] + gap for i in (*part, place)) - gap > room:
            parts.append(part)
            part = names[:]
        part.append(place)
    found = [_widths({i: needs[i] for i in each}, room - gap * (len(each) - 1)) for each in (*parts, part)]
    return found if all(found) else []


def _widths(needs: Mapping[int, Needs], room: int) -> dict[int, int]:
    """The least of each column and its share of what is left; where even that is too much, words get less; or none."""
    found = {place: least for place, (_, least, _) in needs.items()}
    for place, (_, _, last) in needs.items():
        found[place] -= max(0, min(found[place] - last, sum(found.values()) - room))
    if sum(found.values()) > room:
        return {}
    spare = room - sum(found.values())
    wanting = sorted(needs, key=lambda place: needs[place][0] - found[place])
    for count, place in enumerate(wanting):
        more = max(0, min(needs[place][0] - found[place], spare // (len(wanting) - count)))
        found[place] += more
        spare -= more
    return found


def columns(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, width: int | None = None) -> str:
    """A table in plain text, two spaces between columns: so many of them on the left, the others on the right.

    It is no wider than `width`, by default than the window: words are wrapped, and columns for which there is no room
    stand below, beside the rows' names once more, or, where there is none even for that, in lines below each name.
    Numbers are never cut, be one of them wider than the window.
    """
    lines, room = [list(map(printable, row)) for row in (head, *rows)], window() if width is None else width
    needs = [needed(column[0], column[1:], i < left) for i, column in enumerate(zip(*lines, strict=True))]
    if not (parts := side_by_side(needs, room)):
        told: list[str] = []
        for name, *row in lines[1:]:
            told += wrapped(name, room)
            words = [i < left for i in range(1, len(lines[0]))]
            told += [f"{before}{value}".rstrip() for before, value in record(lines[0][1:], row, words, room)]
        return "\n".join(told)
    return "\n\n".join("\n".join(_beside(line, part, left) for line in lines) for part in parts)


def _beside(line: Sequence[str], part: Mapping[int, int], left: int) -> str:
    """The lines of one row."""
    texts = [wrapped(line[place], width) for place, width in part.items()]
    made = []
    for i in range(max(map(len, texts))):
        row = ((text[i] if i < len(text) else "", place) for text, place in zip(texts, part, strict=True))
        spaced = ((text, " " * (part[place] - cells(text)), place < left) for text, place in row)
        made.append((" " * GAP).join(text + space if first else space + text for text, space, first in spaced).rstrip())
    return "\n".join(made)


def record(
    heads: Sequence[str], row: Sequence[str], words: Sequence[bool], room: int
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """A row's cells in lines that stand below its name: what is before a value, and the value.

    words: which cells are no numbers. A number that has no room beside its head has a line of its own, whole however
    long.
    """
    for head, cell, broken in zip(heads, row, words, strict=True):
        if cells(f"  {head} {cell}") <= room:
            yield f"  {head} ", cell
        else:
            yield from ((f"  {line}", "") for line in wrapped(f"{head} {cell}" if broken else head, room - 2))
            yield from [(" " * min(4, max(0, room - cells(cell))), cell)] * (not broken)


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most so many columns, broken inside of a word only where that is longer."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cells(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] * bool(lines[-1])
        for letter in word:
            if lines[-1] and cells(lines[-1] + letter) > width:
                whole = max(map(lines[-1].rfind, SEAMS)) + 1
                keep = whole if 2 * whole > len(lines[-1]) else len(lines[-1])
                lines[-1:] = [lines[-1][:keep], lines[-1][keep:]]
            lines[-1] += letter
    return lines


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
