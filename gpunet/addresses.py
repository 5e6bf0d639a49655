"""Addresses as they may be shown: of a storage or a mirror, without what only its user should know.

Safe by construction: what is shown is put together from parts that were understood. A part that was not is shown as
`***`, and an address that was not, as its scheme alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
FILES = ("sqlite", "journal")  # schemes after which a path stands, and no host
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_USER = re.compile(r"[\w.-]+")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]*)(?::\d{1,5})?")
_PATH = re.compile(r"(?:/[\w.~+%-]*)*")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)
_TARGET = re.compile(r"\burl: \S+")  # as urllib3 says where it was sent to
_MARKS = re.compile(r"://|:.*@", re.DOTALL)  # of an address, or of one less some of its slashes
_LOGIN = re.compile(r"\S*:\S.*@\S*", re.DOTALL)
_WEB = ("http", "https", "ftp", "ftps", "sftp", "ws", "wss")  # where the user's name may be a token, too
_SHORT = 4  # a secret of fewer characters is looked for as a word


def public(address: str) -> str:
    """The address without password, and without the values of its query; what cannot be parsed is its scheme only.

    >>> public("postgresql://me:secret@host:5432/name?sslpassword=x")
    'postgresql://me:***@host:5432/name?***'
    >>> public("https://me:secret@host:port/"), public("sqlite:////a/b.db"), public("me:secret@host")
    ('https://***', 'sqlite:////a/b.db', '***')
    """
    scheme, separator, rest = address.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return HIDDEN
    if scheme.partition("+")[0].lower() in FILES and rest.startswith("/"):
        path, mark, _ = rest.partition("?")
        return f"{scheme}://{path}{mark and mark + HIDDEN}"
    login, at, place = rest.rpartition("@")
    found = re.fullmatch(r"([^/?#]*)(/[^?#]*)?([?#].*)?", place, re.DOTALL)
    if not found or not _HOST.fullmatch(found[1]) or re.search(r"[/?#\\\s]", login):
        return f"{scheme}://{HIDDEN}"
    path = "" if found[2] is None else found[2] if _PATH.fullmatch(found[2]) else f"/{HIDDEN}"
    query = found[3][0] + HIDDEN if found[3] else ""
    return f"{scheme}://{_login(scheme, login) + at if at else ''}{found[1]}{path}{query}"


def harmless(given: str) -> str:
    """A name or path that somebody gave, as it may be shown: as `public` has it where it has an address's marks.

    A path has them that is there, or whose folder is.

    >>> harmless("mysql//me:secret@host/db"), harmless("runs/a.db")
    ('***', 'runs/a.db')
    """
    folder = os.path.dirname(given)
    there = os.path.lexists(given) or (folder.strip("/") != "" and os.path.isdir(folder))
    return given if there or not _MARKS.search(given) else public(given)


def host(address: str) -> str:
    """The host of an address and its port, as far as they may be shown."""
    return public(address).partition("://")[2].partition("/")[0].rpartition("@")[2] or HIDDEN


def cleaned(text: str, address: str = "") -> str:
    """What somebody else's library says of `address`, without its secrets, however they are quoted there.

    Of any other address in the text, such as where a server sent us to, the scheme stays, and what follows is cut:
    where the address ends nobody can tell. Of …:…@ without a scheme nothing stays.
    """
    for secret in sorted(_quoted(address), key=len, reverse=True):
        pattern = re.escape(secret)
        text = re.sub(pattern if len(secret) >= _SHORT else rf"(?<!\w){pattern}(?!\w)", HIDDEN, text)
    return _LOGIN.sub(HIDDEN, _ADDRESS.sub(rf"\1://{HIDDEN}", _TARGET.sub(f"url: {HIDDEN}", text)))


def has_secret(address: str) -> bool:
    """Whether any part of the address is not to be shown."""
    return any(_secrets(address))


def _login(scheme: str, login: str) -> str:
    user, colon, _ = login.partition(":")
    if scheme.lower() in _WEB or not _USER.fullmatch(user):
        return HIDDEN
    return f"{user}:{HIDDEN}" if colon else user


def _secrets(address: str) -> Iterator[str]:
    """The parts that `public` hides, whole and in every piece that a parser may have taken for one."""
    scheme, _, rest = address.partition("://")
    if scheme.partition("+")[0].lower() in FILES and rest.startswith("/"):
        login, query = "", rest.partition("?")[2]
    else:
        login, _, place = rest.rpartition("@")
        query = re.sub(r"^[^?#]*", "", place)
        if not login and HIDDEN in public(address):
            login = rest  # nobody knows what it is
        elif scheme.lower() not in _WEB and _USER.fullmatch(login.partition(":")[0]):
            login = login.partition(":")[2]
    values = [part.partition("=")[2] or part for part in re.split(r"[?#&;]", query)]
    for secret in (login, query, *values):
        for piece in (secret, *re.split(r"[@:/?#&=;,\s]+", secret)):
            if piece:
                yield piece


def _quoted(address: str) -> set[str]:
    """Each of them as it stands, and as it looks decoded, encoded, or in a repr."""
    found = set()
    for secret in _secrets(address):
        for plain in (secret, unquote(secret), unquote_plus(secret)):
            found |= {plain, quote(plain), quote(plain, safe=""), quote_plus(plain), repr(plain)[1:-1]}
    return found - {""}
