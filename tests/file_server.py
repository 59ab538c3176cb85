"""An HTTP server on the loopback interface that serves files correctly, or with the faults that a test asks for."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How the server responds to one request; the connection is closed afterwards."""

    content: bytes = b""
    status: int = 200
    etag: str = '"first"'
    ranges: bool = True
    """Whether it supports range requests."""
    length: int | None = None
    """Content-Length, if not that of the content; -1 for none."""
    cut: int | None = None
    """Number of bytes of the body after which it closes the connection."""
    stall_s: float = 0.0
    """How long it is silent before it closes the connection."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def select(self, request: Mapping[str, str]) -> tuple[int, int]:
        """Status and first byte of the response to a request with these headers."""
        start = int(request.get("Range", "bytes=0-")[6:-1])
        if not (self.ranges and start and self.status == 200 and request.get("If-Range", self.etag) == self.etag):
            return self.status, 0
        return (206, start) if start < len(self.content) else (416, len(self.content))

    def response_headers(self, status: int, start: int) -> dict[str, str]:
        """The headers of a response whose body begins at `start`."""
        n_bytes = len(self.content)
        headers = {"Content-Length": str(n_bytes - start if self.length is None else self.length), "ETag": self.etag}
        if start:
            headers["Content-Range"] = f"bytes {'*' if status == 416 else f'{start}-{n_bytes - 1}'}/{n_bytes}"
        headers |= {"Connection": "close", **self.headers}
        return {name: value for name, value in headers.items() if value not in ("", "-1")}


@dataclass
class FileServer:
    """A running server. Each path has a list of answers, the last of which is repeated."""

    address: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, *answers: Answer) -> str:
        """Set the answers for a path; returns its URL."""
        self.answers[path] = list(answers)
        return f"{self.address}{path}"

    def requests_for(self, path: str) -> list[Mapping[str, str]]:
        """The headers of every request for a path so far."""
        return [headers for requested, headers in self.requests if requested == path]

    def next_answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Record a request and return the answer to it."""
        self.requests.append((path, headers))
        answers = self.answers.get(path, [Answer(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def _handler(file_server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = file_server.next_answer(self.path, dict(self.headers))
            status, start = answer.select(self.headers)
            self.send_response(status)
            for name, value in answer.response_headers(status, start).items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = True
            try:
                self.wfile.write(answer.content[start:][: answer.cut])
                self.wfile.flush()
                file_server.closing.wait(answer.stall_s)
            except ConnectionError:
                pass  # the client has closed the connection

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server in this process."""
    file_server = FileServer("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(file_server))
    server.daemon_threads, server.block_on_close = True, False
    file_server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield file_server
    file_server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
