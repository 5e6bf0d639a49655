"""From a folder to `report.html`."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpunet.errors import DataError, visible
from gpunet.files import write_atomically
from gpunet.limits import DAMAGE
from gpunet.report.page.reading import damaged, read
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
    try:
        text = html(page_view(read(folder))).encode()
    except DataError:
        raise
    except DAMAGE as error:
        raise damaged(folder, error) from error
    write_atomically(path, text)
    return path


def html(view: PageView) -> str:
    """The page as text. Everything shown is escaped; the style sheet is the only one that its policy admits."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_shown,
    )  # fmt: skip
    made.globals["parts"] = _parts
    css = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    text = made.get_template("page.html").render(page=view, css=Markup(css), digest=digest)
    return re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)  # a result's text may hold any; HTML must not


def _shown(value: object) -> object:
    """No control character, which HTML has no way to write, and nothing that turns the order of writing around."""
    return visible(value) if type(value) is str else value


def _parts(cell: str) -> tuple[str, str]:
    """A cell's number and its deviation, with minus signs for hyphens."""
    value, sign, spread = re.sub(r"(^|e|± )-(?=[\d.])", r"\1−", cell).partition(" ± ")
    return value, f"{sign.strip()} {spread}" if sign else ""
