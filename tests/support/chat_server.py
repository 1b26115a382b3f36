"""A chat endpoint on this machine that replies from a list."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any


class ChatServer:
    """Replies of a list of (status, text), in turn; the last one for ever."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, str]] = []
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.keys.append(self.headers.get("Authorization"))
                size = int(self.headers["Content-Length"])
                outer.seen.append(json.loads(self.rfile.read(size)))
                status, text = outer.replies[0]
                if len(outer.replies) > 1:
                    outer.replies.pop(0)
                usage = {"prompt_tokens": 7, "completion_tokens": 2}
                body = {"choices": [{"message": {"content": text}}], "usage": usage}
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None: ...

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server that runs until the context ends."""
    made = ChatServer()
    thread = Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()
