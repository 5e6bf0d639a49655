"""What is done to a valid file: damage as disks and networks do it, and changes as somebody makes them on purpose."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NASTY = ("", "\x1b[31m", "a\nb\r", "../../x", "\x00", "\ud800", "__class__", "NaN", "%s{0}", "x" * 5000, "\u202e", "é")
Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

# -- any bytes --------------------------------------------------------------------------------------------------------


def flip(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A few bits."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def run_of_bytes(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A run of zeros, ones or noise, as a bad block leaves it."""
    start, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 64, 512))
    new = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:start] + new[: len(content) - start] + content[start + length :]


def truncate(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content))]


def insert(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.randbytes(rng.choice((1, 2, 4, 100))) + content[start:]


def remove(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 2, 4, 100)) :]


def repeat(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A part of it twice, or the whole."""
    start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    if rng.random() < 0.2:
        start, stop = 0, len(content)
    return content[:stop] + content[start:stop] + content[stop:]


def splice(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """The beginning of it and the end of another file, never all of that: a ZIP file is read from its end."""
    other = rng.choice(others or [content])
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(1, len(other) + 1) :]


def extreme(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """An integer of one to eight bytes as large or small as it can be; more often near the beginning."""
    size = rng.choice("BHIQ")
    value = rng.choice(EXTREMES) % 2 ** (8 * struct.calcsize(size))
    place = rng.randrange(min(len(content), rng.choice((64, 512, len(content)))))
    new = struct.pack(rng.choice("<>") + size, value)
    return content[:place] + new + content[place + len(new) :]


def digits(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A number that is written out is another one: a shape of a header, say."""
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return flip(rng, content, ())
    place = rng.choice(found)
    new = rng.choice(
        (b"0", b"1", b"-1", b"3", b"1000000000", b"9" * 30, b"1e9", b"1e999999", b"NaN", b"True", b"9" * 5000)
    )
    return content[: place.start()] + new + content[place.end() :]


def swap(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """Two parts of one length in each other's place."""
    length = rng.choice((1, 4, 16, 256))
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    b, length = max(b, a + length), min(length, len(content) - max(b, a + length))
    if length <= 0:
        return content[::-1]
    return (
        content[:a]
        + content[b : b + length]
        + content[a + length : b]
        + content[a : a + length]
        + content[b + length :]
    )


BYTES: tuple[Mutation, ...] = (
    flip, flip, run_of_bytes, truncate, insert, remove, repeat, splice, extreme, extreme, digits, swap,
)  # fmt: skip

# -- JSON -------------------------------------------------------------------------------------------------------------


class Raw:
    """A piece of JSON as it stands."""

    def __init__(self, text: str) -> None:
        self.text = text


RAW = (
    "NaN", "-Infinity", "1e999999", "9" * 5000, "1" + "0" * 1000 + ".5", "[" * 400 + "]" * 400, "[" * 5000 + "]" * 5000,
    '{"a":' * 3000 + "1" + "}" * 3000, '{"a": 1, "a": 2}', '"\\ud800"', '"\\u0000"',
)  # fmt: skip


def hostile(rng: random.Random) -> Any:
    """A value that belongs nowhere."""
    return rng.choice((
        None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, -1e308, 5e-324,
        [], {}, [[]], [None], {"a": 1}, [1, [2, [3]]], ["x"] * 200, list(range(50)), {str(i): i for i in range(30)},
        *NASTY, *map(Raw, RAW),
    ))  # fmt: skip


def written(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key in it."""
    if isinstance(value, dict):
        return [(value, key) for key in value] + [place for each in value.values() for place in _places(each)]
    if isinstance(value, list):
        return [(value, i) for i in range(len(value))] + [place for each in value for place in _places(each)]
    return []


def change_json(rng: random.Random, text: str) -> str:
    """One to three of its values changed, taken away, repeated, renamed, or exchanged with others of it."""
    found = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(found)
        if not places:
            break
        held, key = rng.choice(places)
        how = rng.randrange(8)
        if how == 0:
            del held[key]
        elif how == 1 and isinstance(held, list):
            held.insert(key, held[key])
        elif how == 2 and isinstance(held, dict):
            held[rng.choice(NASTY[:-1])] = held.pop(key)
        elif how == 3:
            other, there = rng.choice(places)
            held[key] = copy.deepcopy(other[there])
        elif how == 4 and isinstance(held[key], (int, float)) and not isinstance(held[key], bool):
            held[key] = rng.choice((-held[key], held[key] + 1, float(held[key]), held[key] * 1000, str(held[key]), 0))
        else:
            held[key] = hostile(rng)
    return written(found) if rng.random() < 0.97 else written(hostile(rng))


def in_json(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    return change_json(rng, content.decode()).encode("utf-8", "surrogatepass")


# -- containers, changed within and put together again ----------------------------------------------------------------


def in_gzip(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    inner = rng.choice(BYTES)(rng, gzip.decompress(content), [gzip.decompress(each) for each in others])
    return gzip.compress(inner, 1, mtime=0)


def in_zip(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Members renamed, repeated, left out, packed in other ways, or with other content; all checksums are right."""
    source = zipfile.ZipFile(io.BytesIO(content))
    members = [(name, source.read(name)) for name in source.namelist()]
    place = rng.randrange(len(members))
    name, data = members[place]
    how = rng.randrange(6)
    if how == 0:
        members[place] = rng.choice(NASTY[:-1]).replace("\ud800", "?") + name, data
    elif how == 1:
        members.append((name, rng.choice(members)[1]))
    elif how == 2:
        del members[place]
    elif how == 3:
        members[place] = name, rng.choice(members)[1]
    else:
        members[place] = name, rng.choice((*BYTES, in_npy, in_npy, in_npy))(rng, data, [each for _, each in members])
    method = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[: 2 if how else 4]
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, data in members:
            about = zipfile.ZipInfo("x")
            about.filename, about.compress_type = name or "x", method
            archive.writestr(about, data)
    return out.getvalue()


def zip_fields(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A field of a zip's headers, local or central, is extreme."""
    starts = [found.start() for found in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", content)]
    place = rng.choice(starts) + rng.randrange(4, 46)
    size = rng.choice("HI")
    value = rng.choice((*EXTREMES, 8, 9, 12, 14, 93, 99)) % 2 ** (8 * struct.calcsize(size))
    new = struct.pack(f"<{size}", value)
    return content[:place] + new + content[place + len(new) :]


SHAPES = (
    "()", "(-1,)", "(0,)", "(1,)", "(10**9,)", "(1000000000,)", "(-20, -6)", "(True, 6)", "(2, 3, 4, 5)", "(1,)*70",
    "[20, 6]", "(20.0,)", "(0, 99999999999999999999)", "(4294967296, 4294967296)", f"({'1,' * 70})",
    "(" * 150 + ")" * 150, "(0, 9223372036854775807, 9223372036854775807)",
)  # fmt: skip
DESCRIPTIONS = (
    "'|O'", "'<f4'", "'<f8'", "'>i8'", "'|b1'", "'|S1'", "'<U1'", "'<M8[s]'", "'<c8'", "'|V1'", "[('a', '<i4')]",
    "'<f2'", "'|i1'", "'<f16'", "'nonsense'", "{'names': ['a'], 'formats': ['O']}", "('<i4', (3,))", "'<U0'", "'|V0'",
    "None", "'|u99999999'",
)  # fmt: skip


def in_npy(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """The header of an .npy says something else, and its length is right."""
    if not content.startswith(b"\x93NUMPY"):
        return flip(rng, content, ())
    start = 10 if content[6] == 1 else 12
    size = int.from_bytes(content[8:start], "little")
    header, payload = content[start : start + size].decode("latin-1"), content[start + size :]
    shape, descr = rng.choice((*SHAPES, f"({len(payload)},)")), rng.choice(DESCRIPTIONS)
    if rng.random() < 0.5:
        header = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {shape}", header)
    if rng.random() < 0.5:
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {descr}", header)
    if rng.random() < 0.3:
        header = header.replace("False", rng.choice(("True", "0", "None", "'x'")))
    new = header.encode("latin-1", "replace")
    return content[:8] + len(new).to_bytes(start - 8, "little") + new + payload


def in_safetensors(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """The header says something else, and its length is right."""
    size = int.from_bytes(content[:8], "little")
    header = change_tensors(rng, content[8 : 8 + size].decode())
    if rng.random() < 0.3:
        header += " " * rng.randrange(9)
    new = header.encode("utf-8", "surrogatepass")
    return len(new).to_bytes(8, "little") + new + content[8 + size :]


def change_tensors(rng: random.Random, text: str) -> str:
    """The JSON of tensors, or that within its metadata."""
    found = json.loads(text)
    inner = [name for name, value in found.get("__metadata__", {}).items() if value.startswith("{")]
    if inner and rng.random() < 0.7:
        name = rng.choice(inner)
        found["__metadata__"][name] = change_json(rng, found["__metadata__"][name])
        return json.dumps(found, separators=(",", ":"))
    return change_json(rng, text)


JSON: tuple[Mutation, ...] = (in_json, in_json, in_json, in_json, flip, truncate, digits, splice, insert, repeat)
GZIP: tuple[Mutation, ...] = (*BYTES, in_gzip, in_gzip, in_gzip)
ZIP: tuple[Mutation, ...] = (*BYTES, in_zip, in_zip, in_zip, in_zip, zip_fields, zip_fields)
TENSORS: tuple[Mutation, ...] = (*BYTES, *[in_safetensors] * 10)
REPAIRED = (
    in_gzip,
    in_zip,
    in_safetensors,
    in_json,
)  # after these checksums are right: what loads is another sound file
