"""A mirror on loopback that behaves as told, and remembers what it was asked and what it sent."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    name: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Mirror:
    """A server for `files`, by name.

    ranges: honour Range; length: announce Content-Length; break_after: close after so many bytes of the body;
    stall_after: send so many bytes, then nothing until closed; drip: seconds between single bytes; status:
    answer with this and nothing else; endless: never stop; shift: begin a partial answer so many bytes too
    early.
    """

    files: dict[str, bytes]
    ranges: bool = True
    length: bool = True
    break_after: int | None = None
    stall_after: int | None = None
    drip: float | None = None
    status: int | None = None
    endless: bool = False
    shift: int = 0
    redirect: str | None = None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.released = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False  # joined when the server closes
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/data/"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = Request(handler.path.rsplit("/", 1)[-1], handler.headers.get("Range"))
        self.requests.append(request)
        body = self.files.get(request.name)
        start = int(request.range.removeprefix("bytes=").removesuffix("-")) if request.range and self.ranges else 0
        headers = {}
        if self.redirect:
            request.status, body, headers["Location"] = 302, b"", self.redirect + request.name
        elif self.status or body is None:
            request.status, body = self.status or 404, b"no"
        elif start >= len(body) and start:
            request.status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
        elif start:
            start -= self.shift
            request.status, headers["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        else:
            request.status = 200
        try:
            handler.send_response(request.status)
            for header in headers.items():
                handler.send_header(*header)
            if self.length and not self.endless:
                handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            self._send(handler, request, body)
        except OSError:
            pass  # the client went away, as it should from a mirror like this

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, body: bytes) -> None:
        def send(part: bytes) -> None:
            request.sent += len(part)  # before the client can have it, and look
            handler.wfile.write(part)

        if self.drip is not None:
            for byte in body:
                send(bytes([byte]))
                if self.released.wait(self.drip):
                    return
        elif self.endless:
            while not self.released.is_set():
                send(bytes(65536))
        elif self.stall_after is not None:
            send(body[: self.stall_after])
            self.released.wait(20)
        else:
            send(body[: self.break_after])
