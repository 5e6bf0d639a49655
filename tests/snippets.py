"""The pages' code: found, run as a reader would run it, and what it prints held against what the page shows.

A block of Python, fenced or indented, runs in the names of its page; a line that begins with a program is a command; a
block `text` right after either is what it prints. `python -m tests.snippets docs/PAGE.md` writes those of a page, and
the pictures that its code saves, anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpunet.cli import execute

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"( *)```(\w*)")
PROGRAM = re.compile(r"(?:gpunet|python3?|pip|bash|mpiexec|mkdocs|dask|\.) ")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
IMAGE = re.compile(r"!\[[^\]]*\]\(([\w-]+\.png)\)")


@dataclass
class Snippet:
    """A piece of a page: "python", one "command", or "text" that is shown and not run."""

    kind: str
    code: str
    line: int
    output: str | None = None  # the text that follows, as the page shows it
    place: slice | None = None  # the lines of that text

    def __str__(self) -> str:
        return f"line {self.line}: {self.code.splitlines()[0]}"


def blocks(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """(language, first line, line after the last) of each; language "indented" where there is no fence."""
    at = 0
    while at < len(lines):
        if fence := FENCE.match(lines[at]):
            end = lines.index(fence[1] + "```", at + 1)
            yield fence[2], at + 1, end
            at = end
        elif lines[at].startswith("    ") and not (at and lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield "indented", at, end
            at = end - 1
        at += 1


def snippets(page: str) -> list[Snippet]:
    """All that a page shows as code, in order."""
    lines, found = page.split("\n"), list[Snippet]()
    after = -1  # the line where the last block ends
    for language, first, end in blocks(lines):
        code = textwrap.dedent("\n".join(lines[first:end])).rstrip()
        if language in ("python", "py"):
            found.append(Snippet("python", code, first + 1))
        elif language == "text":
            printed = found and found[-1].kind != "text" and found[-1].output is None
            if printed and not "".join(lines[after + 1 : first - 1]).strip():
                found[-1].output, found[-1].place = code, slice(first, end)
            else:
                found.append(Snippet("text", code, first + 1))
        elif language in ("sh", "indented"):
            found += commands_and_python(code.split("\n"), first + 1, shell=language == "sh")
        else:
            raise ValueError(f"line {first}: expected a block to be python, sh or text, not {language!r}")
        after = end
    return found


def commands_and_python(lines: list[str], start: int, shell: bool) -> list[Snippet]:
    """A block of commands, or one without a language, whose lines are commands where they begin with a program."""
    found: list[Snippet] = []
    for number, line in enumerate(lines, start):
        if shell or PROGRAM.match(line):
            if line.strip():
                found.append(Snippet("command", line.partition("  #")[0].strip(), number))
        elif found and found[-1].kind == "python":
            found[-1].code += f"\n{line}"
        elif line.strip():
            found.append(Snippet("python", line, number))
    return found


def run(page: Path, snippet: Snippet, names: dict[str, object], command: str = "") -> str:
    """Runs one in the current folder, and returns what it prints; command: what is run in place of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if snippet.kind == "python":  # at its own lines, so that a traceback shows the page's
            code = compile("\n" * (snippet.line - 1) + snippet.code, str(page), "exec", dont_inherit=True)
            main = '__name__ == "__main__"' in snippet.code
            exec(code, {**names, "__name__": "__main__"} if main else names)  # our own text, not input
        elif snippet.kind == "command":
            words = shlex.split(command or snippet.code)
            if words[0] == "gpunet" and not {"&&", "|", ">"} & set(words):
                code = execute(words[1:])
            else:
                path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
                done = subprocess.run(
                    ["bash", "-ec", command or snippet.code], env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                code = done.returncode
                print(done.stdout)
                print(done.stderr, file=sys.stderr)
            if code:
                raise RuntimeError(f"{page.name}, line {snippet.line}: {' '.join(words)}: exit code {code}")
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))


def alike(shown: str, printed: str) -> bool:
    """Whether they are the same, but for two units of the last digit of decimal numbers: what another BLAS may do."""
    if NUMBER.sub("0", shown) != NUMBER.sub("0", printed):
        return False
    return all(
        one == other if "." not in one else abs(float(one) - float(other)) <= 2.001 * 10 ** -len(one.partition(".")[2])
        for one, other in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    )


def namespace(page: Path) -> dict[str, object]:
    """The names of a page, of a module that exists, so that dataclasses and pickle find it."""
    sys.modules[page.stem] = module = types.ModuleType(page.stem)
    return vars(module)


def write(page: Path, instead: Callable[[str], str | None] = lambda command: command) -> None:
    """Runs a page and writes outputs and pictures anew; instead: what is run for a command, None to leave it out."""
    text, page = page.read_text(), page.resolve()
    lines, names, outputs = text.split("\n"), namespace(page), list[tuple[slice, list[str]]]()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for snippet in snippets(text):
            command = instead(snippet.code) if snippet.kind == "command" else ""
            if command is None:
                continue
            printed = run(page, snippet, names, command)
            if snippet.place:
                outputs.append((snippet.place, printed.split("\n")))
        for name in IMAGE.findall(text):
            if Path(name).exists():
                shutil.copy(name, page.parent)
    for place, printed in reversed(outputs):
        lines[place] = printed
    page.write_text("\n".join(lines))


if __name__ == "__main__":
    from .test_docs import in_place_of

    for name in sys.argv[1:]:
        write(Path(name), in_place_of)
