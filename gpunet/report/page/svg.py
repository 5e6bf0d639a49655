"""Figures for the page: small SVG as data URIs. The style sheet turns light and dark around where paper is dark."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its size in CSS pixels; `fixed`: one of pixels, which stays on white paper."""

    uri: str
    width: int
    height: int
    fixed: bool = False


def picture(svg: str) -> Picture:
    """A figure as matplotlib writes it, made small, in the reader's font."""
    width, height = (round(float(size) * 4 / 3) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    svg = _smaller(svg)
    start = svg.index(">") + 1
    svg = f"{svg[:start]}<style>svg{{font-family:{FONT}}}</style>{svg[start:]}"
    return Picture(data_uri(svg.encode(), "image/svg+xml"), width, height, "<image" in svg)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(svg: str) -> str:
    """No comments, no names that nothing refers to, places to a tenth of a point, one font for the whole figure."""
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda places: re.sub(r"(\d\.\d)\d+", r"\1", places[0]), svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"; font-family: [^;\"]*", "", svg)
    return re.sub(r"\n\s*", "\n", svg)
