"""A server on 127.0.0.1 with one file, which answers well or badly as it is told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest


@dataclass
class Site:
    """What the server answers, and what it was asked."""

    body: bytes
    url: str = ""  # of the server, without a path: any path gives the file
    status: int = 200
    content_type: str = "application/zip"
    ranges_work: bool = True
    range_shift: int = 0
    announced: str | None = None  # as the length, in place of the true one; "" for none
    location: str | None = None  # to go to instead
    cut_after: int | None = None
    pause_after: int | None = None  # until ``go_on``
    go_on: Event = field(default_factory=Event)
    silent_s: float = 0.0  # before it closes the connection
    asked_ranges: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.asked_ranges.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and self.ranges_work else 0
        body = self.body[start:]
        if start >= len(self.body):
            handler.send_error(416)
            return
        handler.send_response(206 if start else self.status)
        handler.send_header("Content-Type", self.content_type)
        announced = str(len(body)) if self.announced is None else self.announced
        if announced:
            handler.send_header("Content-Length", announced)
        if start:
            first = start + self.range_shift
            handler.send_header("Content-Range", f"bytes {first}-{len(self.body) - 1}/*")
        if self.location is not None:
            handler.send_header("Location", self.location)
        handler.end_headers()
        body = body[: self.cut_after]
        if self.pause_after is not None:
            handler.wfile.write(body[: self.pause_after])
            self.go_on.wait()
            body = body[self.pause_after :]
        handler.wfile.write(body)
        time.sleep(self.silent_s)


@contextmanager
def serve(body: bytes) -> Iterator[Site]:
    """Run the server in the context."""
    site = Site(body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.handle_error = lambda *_: None  # a client that goes away is part of the tests
            thread = Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            site.url = f"http://127.0.0.1:{server.server_port}"
            yield site
            site.go_on.set()
            server.shutdown()
            thread.join()


def closed_url() -> str:
    """Name an address at which nothing answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"
