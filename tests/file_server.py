"""A server on the loopback interface that gives files well or badly, as it is told."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answers: a file, well or badly. One request, one connection."""

    content: bytes = b""
    status: int = 200
    etag: str = '"first"'
    ranges: bool = True
    """Whether it gives the rest of a file where that is asked for."""
    length: int | None = None
    """The Content-Length that it states, if another than that of what it sends; -1 for none."""
    cut: int | None = None
    """It sends so many bytes of the body, and then breaks off."""
    stall_s: float = 0.0
    """It keeps silent so long before it breaks off or ends."""
    drip_s: float = 0.0
    """It sends byte by byte, with such pauses."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def part(self, asked: Mapping[str, str]) -> tuple[int, int]:
        """Status, and where the bytes begin that answer a request with these headers."""
        start = int(asked.get("Range", "bytes=0-")[6:-1])
        if not (self.ranges and start and self.status == 200 and asked.get("If-Range", self.etag) == self.etag):
            return self.status, 0
        return (206, start) if start < len(self.content) else (416, len(self.content))

    def told(self, start: int) -> dict[str, str]:
        """The headers of an answer whose bytes begin at `start`."""
        n_bytes = len(self.content)
        found = {"Content-Length": str(n_bytes - start if self.length is None else self.length), "Connection": "close"}
        found |= {"ETag": self.etag, "Content-Range": f"bytes {start}-{n_bytes - 1}/{n_bytes}" if start else ""}
        return {name: value for name, value in {**found, **self.headers}.items() if value not in ("", "-1")}


@dataclass
class FileServer:
    """A server on the loopback interface. What is at an address is a list of answers, of which the last one stays."""

    address: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, *answers: Answer) -> str:
        """Answer requests for a path like this; its address."""
        self.answers[path] = list(answers)
        return f"{self.address}{path}"

    def asked(self, path: str) -> list[Mapping[str, str]]:
        """The headers of every request for a path so far."""
        return [headers for asked, headers in self.requests if asked == path]

    def take(self, path: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a request."""
        self.requests.append((path, headers))
        answers = self.answers.get(path, [Answer(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def _handler(served: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = served.take(self.path, dict(self.headers))
            status, start = answer.part(self.headers)
            self.send_response(status)
            for name, value in answer.told(start).items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = True
            self.send(answer.content[start:][: answer.cut], answer)

        def send(self, body: bytes, answer: Answer) -> None:
            step = 1 if answer.drip_s else max(len(body), 1)
            try:
                for at in range(0, len(body), step):
                    self.wfile.write(body[at : at + step])
                    self.wfile.flush()
                    if served.closing.wait(answer.drip_s):
                        return
                served.closing.wait(answer.stall_s)
            except ConnectionError:
                pass  # who asked has left

        def log_message(self, *what: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that answers as it is told, in this process."""
    served = FileServer("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads, server.block_on_close = True, False
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
