"""A mirror on loopback that behaves as told, and remembers what it was asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Mirror:
    """A server for `files`, by name.

    length: announce Content-Length; break_after: close after so many bytes of the body; stall_after: send so many
    bytes, then nothing until closed; drip: seconds between single bytes; pause: between pieces of 30,000; status:
    answer with this and nothing else; endless: never stop; redirect: send there instead.
    """

    files: dict[str, bytes]
    length: bool = True
    break_after: int | None = None
    stall_after: int | None = None
    drip: float | None = None
    pause: float | None = None
    status: int | None = None
    endless: bool = False
    redirect: str | None = None
    requests: list[str] = field(default_factory=list)

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
        name = handler.path.rsplit("/", 1)[-1]
        self.requests.append(name)
        status, body, headers = 200, self.files.get(name, b"no"), {}
        if self.redirect:
            status, body, headers["Location"] = 302, b"", self.redirect + name
        elif self.status or name not in self.files:
            status, body = self.status or 404, b"no"
        try:
            handler.send_response(status)
            for header in headers.items():
                handler.send_header(*header)
            if self.length and not self.endless:
                handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            self._send(handler, body)
        except OSError:
            pass  # the client went away, as it should from a mirror like this

    def _send(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        piece, seconds = (1, self.drip) if self.drip is not None else (30_000, self.pause or 0.0)
        if self.endless:
            while not self.released.is_set():
                handler.wfile.write(bytes(65536))
        elif self.stall_after is not None:
            handler.wfile.write(body[: self.stall_after])
            self.released.wait(20)
        else:
            for start in range(0, len(body[: self.break_after]), piece):
                handler.wfile.write(body[start : min(start + piece, self.break_after or len(body))])
                if seconds and self.released.wait(seconds):
                    return
