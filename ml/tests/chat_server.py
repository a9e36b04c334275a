"""A server of the OpenAI chat protocol that labels by a rule: what it says of a document is the word after `about`.

Faults are ordered by words in the document and happen the first time that it is asked about, but for those that say
always: `fault-429`, `fault-500`, `fault-hang-up`, `fault-half`, `fault-html`, `fault-wrong`, `fault-always-wrong`,
`fault-400`.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from cpt_ml.store import Json

KEY = "sk-a-secret-of-the-worker"


class ChatServer(socketserver.ThreadingTCPServer):
    """Listens at once; `asked` counts questions by the document's first word."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key = key
        self.asked: Counter[str] = Counter()
        self.bodies: list[Json] = []
        self.lock = threading.Lock()
        self.status = 200
        self.usage = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def chat(self) -> ChatServer:
        return cast(ChatServer, self.server)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.chat.key and self.headers["Authorization"] != f"Bearer {self.chat.key}":
            return self._send(401, b"{}")
        if self.path != "/v1/chat/completions":
            return self._send(404, b"{}")
        mark, *lines, end = body["messages"][1]["content"].split("\n")
        assert mark == end
        assert mark in body["messages"][0]["content"]
        document = "\n".join(lines)
        with self.chat.lock:
            name = document.split()[0]
            first = self.chat.asked[name] == 0
            self.chat.asked[name] += 1
            self.chat.bodies.append(body)
        if self.chat.status != 200:
            return self._send(self.chat.status, b"{}", {"Retry-After": "0"})
        fault = re.search(r"fault-([a-z0-9-]+)", document)
        self._answer(body, document, fault.group(1) if fault else "", first)

    def _answer(self, body: Json, document: str, fault: str, first: bool) -> None:
        labels = body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"]
        about = re.search(r"about (\w+)", document)
        label = next((x for x in labels if about and x.startswith(about.group(1))), labels[-1])
        said = json.dumps({"label": label})
        match (fault, first):
            case ("429", True):
                return self._send(429, b"{}", {"Retry-After": "0.01"})
            case ("500", True):
                return self._send(500, b"oops")
            case ("400", _):
                return self._send(400, b'{"error": "too long"}')
            case ("hang-up", True):
                return self.connection.close()
            case ("html", True):
                return self._send(200, b"<html>it works</html>")
            case ("wrong", True):
                said = json.dumps({"label": "Gardening"})
            case ("always-wrong", _):
                said = "I would rather not say."
            case ("fenced", _):
                said = f"```json\n{said}\n```"
            case _:
                pass
        reply: Json = {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
        if self.chat.usage:
            reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 5}
        data = json.dumps(reply).encode()
        if fault == "half" and first:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return self.connection.close()
        self._send(200, data)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
