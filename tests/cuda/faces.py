"""Which names of cupy gpunet uses, read from its source: to be looked up in the real module and in the stand-in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gpunet

BACKEND = Path(gpunet.__file__).parent / "backend"
ROOTS = ("cp", "cupy")


@dataclass(frozen=True)
class Use:
    """`cupy.NAME` in a file, and how it is called there: the number of positional arguments and the keywords."""

    name: str
    where: str
    positional: int | None = None
    keywords: tuple[str, ...] = ()


def _chain(node: ast.expr) -> str | None:
    """The dotted name below `cp`, `cupy` or `….cp`; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr == "cp":
            return ".".join(reversed(parts))
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if isinstance(node, ast.Name) and node.id in ROOTS and parts else None


def uses() -> Iterator[Use]:
    """Every use of the module in gpunet/backend, calls with their arguments."""
    for path in sorted(BACKEND.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and (name := _chain(node.func)):
                if not any(isinstance(arg, ast.Starred) for arg in node.args):
                    yield Use(name, place, len(node.args), tuple(k.arg for k in node.keywords if k.arg))
            elif isinstance(node, ast.Attribute) and (name := _chain(node)):
                yield Use(name, place)
