"""One attempt to get one file from one mirror, taking up again what an earlier attempt left.

pooch's downloader does the transfer; added are the Range request, the check of what the server made of it,
and a floor for the speed.
"""

from __future__ import annotations

import os
import time
from typing import Any, BinaryIO

import pooch
import requests
import urllib3

from .progress import Quiet, megabytes

_CONNECT_SECONDS = 10.0
_SLOWEST = 1024  # bytes a second
_SECONDS_BETWEEN_REPORTS = 0.1


class DownloadError(Exception):
    """What one mirror answered instead of the file; the text is a clause of a line that names the mirror."""


class ResumingDownloader(pooch.HTTPDownloader):  # type: ignore[misc]
    """pooch's HTTP downloader, appending to what the open output file already holds.

    timeout: seconds without an answer, and the time over which the speed is averaged. limit: the most bytes
    that the file can have; a server that sends more is cut off. After a call, `resumed` says whether earlier
    bytes were kept.
    """

    def __init__(self, *, timeout: float, limit: int, report: Quiet, label: str) -> None:
        super().__init__()  # chunks of 1 KiB: little is lost when a transfer breaks off
        self.timeout, self.limit, self.report, self.label = timeout, limit, report, label
        self.resumed = False
        self._response: requests.Response | None = None

    def __call__(self, url: str, output_file: BinaryIO, pooch: Any = None, check_only: bool = False) -> None:
        """Download to a file open for appending. Raises DownloadError, and leaves the bytes that came."""
        if check_only:
            raise NotImplementedError("check_only")
        offset = output_file.seek(0, os.SEEK_END)
        self.resumed = False
        meter = self.progressbar = _Meter(self, output_file, offset)
        # Without "identity" a server may unpack or repack on the way, and a range would mean something else.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        self.kwargs = {
            "headers": headers,
            "timeout": (min(_CONNECT_SECONDS, self.timeout), self.timeout),
            "hooks": {"response": lambda response, *_, **__: self._on_response(response, output_file, meter)},
        }
        try:
            super().__call__(url, output_file, pooch)
            meter.check_complete()
        except _RangeRefusedError:
            begin_again(output_file)
            self(url, output_file)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:  # the last: bad headers
            raise DownloadError(_clause(error, self.timeout, output_file.tell())) from None
        finally:
            self.report.stop()
            if self._response is not None:  # pooch leaves a transfer that broke off open
                self._response.close()

    def _on_response(self, response: requests.Response, stream: BinaryIO, meter: _Meter) -> None:
        """Decide, before the body is read, whether it continues the file or begins it."""
        self._response = response
        if response.is_redirect:
            return
        if response.status_code == 416 and meter.offset:
            raise _RangeRefusedError
        if not response.ok:
            return  # pooch raises for it, and the bytes of an earlier attempt stay for the next mirror
        if response.status_code != 206:
            begin_again(stream)  # the server ignores Range: the body is the whole file
            meter.offset = 0
        elif not meter.offset:
            raise DownloadError("sent a part of the file, unasked")
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {meter.offset}-"):
            raise _RangeRefusedError
        else:
            self.resumed = True
            self.report.say(f"{self.label}: taken up again at {megabytes(meter.offset)}")


def begin_again(stream: BinaryIO) -> None:
    """Drop what the file holds."""
    stream.truncate(0)
    stream.seek(0)  # truncating does not move the position, from which the file's length is told


class _Meter:
    """What pooch takes for a progress bar: tells where the file is, ends a transfer that cannot be right."""

    def __init__(self, owner: ResumingDownloader, stream: BinaryIO, offset: int) -> None:
        self.owner, self.stream, self.offset = owner, stream, offset
        self._expected, self._next_report = 0, 0.0
        self._window_end, self._window_begin_at = time.monotonic() + owner.timeout, offset

    @property
    def total(self) -> int:
        """Bytes of the whole file; 0 where the server did not say."""
        return self._expected

    @total.setter
    def total(self, body: int) -> None:
        self._expected = self.offset + body if body else 0
        self._window_end, self._window_begin_at = time.monotonic() + self.owner.timeout, self.offset
        self.owner.report.start(self.owner.label, self._expected)

    def update(self, _: int) -> None:
        """A chunk was written. pooch's count is by whole chunks; the file's own length is exact."""
        length = self.stream.tell()
        if length > self.owner.limit:
            begin_again(self.stream)
            raise DownloadError(f"sends more than the {self.owner.limit:,} bytes that the file can have")
        now = time.monotonic()
        if now >= self._window_end:
            if length - self._window_begin_at < _SLOWEST * self.owner.timeout:
                raise DownloadError(f"too slow, under {_SLOWEST} bytes a second")
            self._window_end, self._window_begin_at = now + self.owner.timeout, length
        if now >= self._next_report or length == self._expected:
            self._next_report = now + _SECONDS_BETWEEN_REPORTS
            self.owner.report.at(length)

    def reset(self) -> None:
        """Nothing to reset: pooch calls this before it fills the bar."""

    def close(self) -> None:
        """Nothing to close: the reporter is stopped by the downloader, also after an error."""

    def check_complete(self) -> None:
        """Older versions of urllib3 end a short body without an error; the announced length tells."""
        length = self.stream.tell()
        if self._expected and length < self._expected:
            raise DownloadError(f"broke off after {length:,} of {self._expected:,} bytes")


class _RangeRefusedError(Exception):
    """The server cannot continue where the file ends, so the file must be begun again."""


def _clause(error: Exception, timeout: float, length: int) -> str:
    """What happened, in a few words where it is known; requests' own text is several nested exceptions long."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, ValueError):  # its text quotes what cannot be parsed, with passwords and in pieces
        return f"{type(error).__name__}: the address of the mirror, a proxy or a redirect, or an answer, is malformed"
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return f"no answer within {timeout:g} s" + (f", after {length:,} bytes" if length else "")
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    for sign, clause in (
        ("refused", "connection refused"),
        ("resolve", "host name not found (no network?)"),
        ("unreachable", "network unreachable"),
        ("IncompleteRead", f"broke off after {length:,} bytes"),
    ):
        if sign in text:
            return clause
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"broke off after {length:,} bytes"
    return " ".join(text.split()) or type(error).__name__
