"""How docstrings become Markdown: the house style is plain paragraphs, `name: what it is`, and examples at the end."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection
from typing import Any

import griffe

SETTING = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*):(?: |$)")
BREAKS = re.compile(r"(Raises|Returns|Memory) ?\b")
SPECIAL = re.compile(r"[_\[]|(?<![\w\s*])\*(?=\S)")


class PlainDocstrings(griffe.Extension):
    """Rewrites docstrings before they are rendered."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Leaves a class's private fields out, which would stand in the signature of a dataclass."""
        for name in [name for name, member in cls.members.items() if name.startswith("_") and member.is_attribute]:
            del cls.members[name]

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrites all of a package."""
        rewrite(pkg)


def rewrite(obj: Any) -> None:
    """The docstrings of an object and of what it defines."""
    names = set(obj.members)
    if obj.is_function or (obj.is_class and "__init__" in obj.members):
        names |= {parameter.name for parameter in obj.parameters}
    if obj.docstring:
        obj.docstring.value = as_markdown(obj.docstring.value, names)
    for member in obj.members.values():
        if not member.is_alias:
            rewrite(member)


def as_markdown(text: str, names: Collection[str] = ()) -> str:
    """The docstring with examples fenced, and a point of a list for each line that begins `name:` or `one, other:`.

    names: what else begins a point where it is explained in the middle of a line, after a full stop or a semicolon.
    """
    parts = re.split(r"\n\s*\n", textwrap.dedent(text).strip("\n"))
    if names:
        several = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        inside = re.compile(rf"(?<=[.;)]) (?=(?:(?:{several}), )*(?:{several}):\s)")
        parts = [part if part.lstrip().startswith(">>> ") else inside.sub("\n", part) for part in parts]
    return "\n\n".join(map(_paragraph, parts))


def _paragraph(text: str) -> str:
    if text.lstrip().startswith(">>> "):
        return f"```pycon\n{textwrap.dedent(text)}\n```"
    if text.startswith(("    ", "* ", "- ")):
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        if (found := SETTING.match(line)) and (not lines or lines[-1].endswith((".", ";", ":", ")"))):
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            first = not lines or not lines[-1].startswith(("- ", "  "))
            lines += [*([""] if first and lines else []), f"- {names}: {_literal(line[found.end() :])}"]
        elif BREAKS.match(line) and lines:
            lines += ["", _literal(line)]
        else:
            lines.append(("  " if lines and lines[-1].startswith(("- ", "  ")) else "") + _literal(line))
    return "\n".join(lines)


def _literal(line: str) -> str:
    """The line with what Markdown would read as emphasis, links or HTML escaped, outside of code."""
    parts = re.split("(`[^`]*`)", line)
    return "".join(p if i % 2 else SPECIAL.sub(r"\\\g<0>", p).replace("<", "&lt;") for i, p in enumerate(parts))
