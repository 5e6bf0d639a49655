"""From a folder to `report.html`."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpunet.errors import visible
from gpunet.experiments.result import intact
from gpunet.files import write_atomically
from gpunet.report.page import claims, contents
from gpunet.report.page.reading import read
from gpunet.report.page.views import PageView, page_view

HERE = Path(__file__).parent
NAME = "report.html"


def write(folder: Path) -> Path:
    """Write `folder/report.html`, one file that needs no other and no network; returns its path.

    folder: what `gpunet reproduce` writes (claims.json and a folder a run), or a run's own folder, or one that holds
    such folders. The same results give the same bytes.
    Raises DataError where the folder holds none of these, or a file of it is damaged or of another version.
    """
    folder = Path(folder)
    path = folder / NAME
    with intact(folder):
        text = html(page_view(read(folder))).encode()
    write_atomically(path, text)
    return path


def html(view: PageView) -> str:
    """The page as text. Everything shown is escaped; its policy admits its own style sheet and script, and no other."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_shown,
    )  # fmt: skip
    made.globals |= {
        "parts": _parts, "key": _key, "kind": claims.kind, "said": claims.said,
        "counts": claims.counts, "reasons": claims.reasons, "signs": claims.SIGNS,
    }  # fmt: skip
    css, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    css += "".join(FILTER.format(kind=claims.kind(told)) for told in claims.SIGNS)
    own = {"css": css, "script": script}
    hashes = {name: base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for name, each in own.items()}
    shown = {name: Markup(each) for name, each in own.items()}
    text = made.get_template("page.html").render(page=view, hashes=hashes, **shown)
    return re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)  # a result's text may hold any; HTML must not


# What is shown of one verdict alone.
FILTER = (
    "@media screen {{ body:has(#show-{kind}:checked) :is(.claims tbody tr:not(.{kind}), "
    ":is(.document, .run, .claims, .agreed, .untested):not(:has(tr.{kind}))) {{ display: none; }} }}\n"
)


def _shown(value: object) -> object:
    """No control character, which HTML has no way to write, and nothing that turns the order of writing around."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _parts(cell: str) -> tuple[str, str]:
    """A cell's number and its deviation, with minus signs for hyphens."""
    value, sign, spread = re.sub(r"(^|e|± )-(?=[\d.])", r"\1−", cell).partition(" ± ")
    return value, f"{sign.strip()} {spread}" if sign else ""


def _key(cell: str) -> str:
    number = contents.sort_key(cell)
    return "" if number is None else f"{number:.12g}"
