"""What mkdocs is told beyond mkdocs.yml: pages from the repository's top level, and links that leave docs/."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Any

SOURCE = "https://github.com/gpunet/gpunet/blob/main/"
TOP = ("CHANGELOG.md", "CONTRIBUTING.md")  # beside docs/ in the repository, pages of the site
# What a reader who searches most likely wants, before and after what merely has the word.
SEARCH = dict.fromkeys(("networks.md", "own-data.md", "estimators.md", "compress.md", "speed.md", "api/linalg.md"), 3)
SEARCH |= dict.fromkeys(("tutorial.md", "api/estimators.md", "api/networks.md", "api/layers.md"), 2)
SEARCH |= dict.fromkeys((*TOP, "array-layer.md", "api/README.md", "api/backend.md", "api/experiments.md"), 0.3)
CODE = re.compile(r"^```.*?^```|^    .*?$|`[^`\n]+`", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the top level."""
    from mkdocs.structure.files import File

    for name in TOP:
        with open(name, encoding="utf-8") as text:
            files.append(File.generated(config, name, content=text.read()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to the repository's files into links to pages of the site, or to the source on GitHub."""
    if page.file.src_uri == "README.md":
        page.meta["hide"] = ["toc"]  # to have its width for the code
    page.meta["search"] = {"boost": SEARCH.get(page.file.src_uri, 1)}  # here, since GitHub would show it on the page
    return links(markdown, page.file.src_uri)


def links(markdown: str, here: str) -> str:
    """The page with links of `here`, its path in docs/ or the name of one of `TOP`, as the site needs them."""
    folder = "" if here in TOP else str(PurePosixPath("docs", here).parent)

    def target(link: re.Match[str]) -> str:
        path, _, anchor = link[1].partition("#")
        path = os.path.normpath(os.path.join(folder, path))
        anchor = f"#{anchor}" if anchor else ""
        inside = path.removeprefix("docs/") if path.startswith("docs/") else path if path in TOP else None
        if inside is None:
            return f"]({SOURCE}{path}{anchor})"
        return f"]({os.path.relpath(inside, os.path.dirname(here) or '.')}{anchor})"

    parts = re.split(f"({CODE.pattern})", markdown, flags=CODE.flags)
    return "".join(part if index % 2 else LINK.sub(target, part) for index, part in enumerate(parts))
