"""The patterns of PEFT's settings, told of any name in a time that its length bounds, whoever wrote them.

Python's `re` goes back over what it has tried, and of (a+)+c it never ends. Here all places of the name that a part of
the pattern may have come to are known at once, as in Thompson's matcher (1968).
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from gpunet.errors import shown

Places = frozenset[int]
Step = Callable[[str, Places], Places]  # from the places where a part may begin to those where it may end
TOKEN = re.compile(r"\\(?:[dw]|\W)|\[\^?[^\[\]\\]+\]|\{(?:\d{1,3}(?:,\d{0,3})?|,\d{1,3})\}|\(\?:|[^\\\[\]{}\n]")
REPEATED = {"*": (0, None), "+": (1, None), "?": (0, 1)}
DEEPEST = 3  # of groups within groups: each more may double the time


@lru_cache(512)
def compiled(pattern: str) -> Callable[[str], bool]:
    """Whether PEFT finds a module by this pattern: it fits the name, or the end of it after a dot.

    ValueError for a pattern with more than letters, digits, escapes, classes, groups, alternatives and repetitions.
    """
    re.compile(pattern)
    tokens = deque(TOKEN.findall(pattern))
    if "".join(tokens) != pattern:
        raise _refused(pattern)
    if not any(each in REPEATED or each[0] in "({" for each in tokens):
        whole = re.compile(rf"(.*\.)?({pattern})$")  # nothing in it to go back over
        return lambda name: whole.match(name) is not None
    step = _either(pattern, tokens, 0)
    return lambda name: len(name) in step(name, frozenset([0, *(i + 1 for i, c in enumerate(name) if c == ".")]))


def _refused(pattern: str) -> ValueError:
    return ValueError(
        f"the pattern {shown(pattern)} is more than names, classes such as [0-9], groups, | and repetitions"
    )


def _either(pattern: str, tokens: deque[str], depth: int) -> Step:
    """Alternatives, up to a closing parenthesis or the end."""
    options = [_row(pattern, tokens, depth)]
    while tokens and tokens[0] == "|":
        tokens.popleft()
        options.append(_row(pattern, tokens, depth))
    return lambda name, at: frozenset().union(*(option(name, at) for option in options))


def _row(pattern: str, tokens: deque[str], depth: int) -> Step:
    parts = []
    while tokens and tokens[0] not in ("|", ")"):
        parts.append(_repeated(pattern, tokens, depth))

    def run(name: str, at: Places) -> Places:
        for part in parts:
            at = part(name, at)
        return at

    return run


def _repeated(pattern: str, tokens: deque[str], depth: int) -> Step:
    """A character or a group, as often as is said after it."""
    one = _one(pattern, tokens, depth)
    if not tokens or not (tokens[0] in REPEATED or tokens[0][0] == "{"):
        return one
    sign = tokens.popleft()
    if sign in REPEATED:
        least, most = REPEATED[sign]
    else:
        first, comma, last = sign[1:-1].partition(",")
        least, most = int(first or 0), int(last) if last else None if comma else int(first)
    if tokens and tokens[0] == "?":  # as few as there may be: where it can end is the same
        tokens.popleft()
    elif tokens and tokens[0] == "+":
        raise _refused(pattern)

    def run(name: str, at: Places) -> Places:
        found = at if least == 0 else frozenset()
        if most == 0:
            return found
        for i in itertools.count(1):
            before, at = at, one(name, at)
            if at == before and i < least:  # and stays so
                return at
            if i >= least:
                at, found = at - found, found | at
            if not at or i == most:
                return found
        raise AssertionError

    return run


def _one(pattern: str, tokens: deque[str], depth: int) -> Step:
    token = tokens.popleft()
    if token in ("(", "(?:"):
        if depth == DEEPEST:
            raise _refused(pattern)
        inside = _either(pattern, tokens, depth + 1)
        tokens.popleft()
        return inside
    if token == "^":
        return lambda name, at: at & {0}
    if token == "$":
        return lambda name, at: at & {len(name)}
    if token in REPEATED or token[0] == "{":
        raise _refused(pattern)
    fits = re.compile(token).fullmatch
    return lambda name, at: frozenset(i + 1 for i in at if i < len(name) and fits(name[i]))
