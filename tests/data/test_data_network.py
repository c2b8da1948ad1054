"""Whether a server is there is known within the time limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from probe.data.network import unreachable


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "reason"), [(200, None), (404, None), (401, None), (503, "HTTP 503")]
)
def test_any_answer_but_that_of_a_failing_gateway_counts(
    server: str, status: int, reason: str | None
) -> None:
    assert unreachable(f"{server}/{status}") == reason


def test_a_closed_port_is_told_at_once() -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        number = port.getsockname()[1]
    assert unreachable(f"http://127.0.0.1:{number}") == "connection refused"


def test_a_server_that_never_answers_is_given_up_at_the_limit() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        assert unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2) is not None
        assert time.monotonic() - began < 2
