"""Figures for the page: SVG that follows light and dark, as data URIs."""

from __future__ import annotations

import base64
import colorsys
import re
from dataclasses import dataclass

from gpunet.report.drawing import INK

PAPER, DARK_PAPER, DARK_INK = "#ffffff", "#171a1f", "#e6e8eb"
CONTRAST = 3.4  # of lines and dots on dark paper, at least; WCAG asks for 3
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its size in CSS pixels."""

    uri: str
    width: int
    height: int


def picture(svg: str) -> Picture:
    """A figure as matplotlib writes it, made small, given the reader's font and both themes."""
    width, height = (round(float(size) * 4 / 3) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    return Picture(data_uri(_themed(_smaller(svg)).encode(), "image/svg+xml"), width, height)


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


def _themed(svg: str) -> str:
    """Colours become variables with a value for each theme; a figure that holds an image keeps its white paper."""
    fixed = "<image" in svg
    colours = sorted({INK, PAPER, *re.findall(r"#[0-9a-f]{6}\b", svg)})
    names = {colour: f"--{colour[1:]}" for colour in colours}
    light = "".join(f"{names[c]}:{c};" for c in colours)
    dark = "" if fixed else "".join(f"{names[c]}:{dark_colour(c)};" for c in colours)
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda found: f"var({names[found[0]]})", svg)
    sheet = (
        f"<style>svg{{{light}fill:var({names[INK]});font-family:{FONT}}}"
        + (f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}" if dark else "")
        + "</style>"
    )
    start = svg.index(">") + 1
    return svg[:start] + sheet + svg[start:]


def dark_colour(colour: str) -> str:
    """The colour that stands for this one on dark paper.

    Greys keep their place between paper and ink; others keep their hue and are lightened until they are told from the
    paper.
    """
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if saturation < 0.2 or lightness > 0.97:
        return _between(DARK_PAPER, DARK_INK, (1 - lightness) / (1 - _lightness(INK)))
    while contrast(colour, DARK_PAPER) < CONTRAST:
        lightness += 0.02
        colour = _hexadecimal(colorsys.hls_to_rgb(hue, lightness, saturation))
    return colour


def _between(low: str, high: str, share: float) -> str:
    share = min(1.0, share)
    pairs = [(int(low[at : at + 2], 16), int(high[at : at + 2], 16)) for at in (1, 3, 5)]
    return _hexadecimal([(a + share * (b - a)) / 255 for a, b in pairs])


def _hexadecimal(channels: tuple[float, ...] | list[float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _lightness(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return colorsys.rgb_to_hls(red, green, blue)[1]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
