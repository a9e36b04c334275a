"""A real S3 server for tests (versitygw over a temporary folder), and a proxy that loses answers or kills clients."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUCKET = "cpt"
KEYS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "cpt-tests", "AWS_SECRET_ACCESS_KEY": "no-secret-at-all"}
START_SECONDS = 60


def find_versitygw() -> str:
    """The server's program: CPT_VERSITYGW, or what infra/s3/provide.mjs finds or builds. Raises RuntimeError."""
    given = os.environ.get("CPT_VERSITYGW")
    if given:
        return given
    node = shutil.which("node")
    asked = node and subprocess.run(
        [node, str(REPOSITORY / "infra" / "s3" / "provide.mjs")], capture_output=True, text=True, check=False
    )
    if not asked or asked.returncode:
        said = asked.stderr if asked else "node is not on PATH"
        raise RuntimeError(f"no versitygw to test S3 against: set CPT_VERSITYGW to its path.\n{said}")
    return asked.stdout.strip().splitlines()[-1]


class S3Server:
    """versitygw on a free port; `folder` holds the bucket's objects as files."""

    def __init__(self, folder: Path) -> None:
        self.program = find_versitygw()
        self.folder = folder / "objects" / BUCKET
        self.folder.mkdir(parents=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = folder / "versitygw.log"
        self.start()

    @property
    def env(self) -> dict[str, str]:
        return {"CPT_S3_ENDPOINT": self.endpoint, **KEYS}

    def start(self) -> None:
        args = ["--port", f"127.0.0.1:{self.port}", "--health", "/health", "--keep-alive", "--quiet", "posix"]
        env = {"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
               "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, *args, str(self.folder.parent)], env=env, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"versitygw does not run:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=2) as r:
                return r.status == 200
        except OSError:
            return False


class Proxy:
    """Relays to the server, a connection for each request. `judge` sees the request line and chooses what happens:

    "pass"; "before": `on_kill`, nothing is sent on; "after": sent on, then `on_kill`, no answer; "drop": sent on, then
    the connection closes; "error": sent on, then the answer is 500; "refuse": not sent on, the answer is 503.
    """

    def __init__(self, port: int, judge: Callable[[str], str], on_kill: Callable[[], None] = lambda: None) -> None:
        self.requests: list[str] = []
        outer, lock = self, threading.Lock()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while (request := _read_message(self.request)) is not None:
                    with lock:
                        line = request.split(b"\r\n", 1)[0].decode()
                        outer.requests.append(line)
                        verdict = judge(line)
                    if verdict == "before":
                        return on_kill()
                    if verdict == "refuse":
                        return self.request.sendall(_reply("503 Service Unavailable"))
                    answer = _relay(port, request)
                    if verdict == "after":
                        return on_kill()
                    if verdict == "drop":
                        return None
                    if verdict == "error":
                        return self.request.sendall(_reply("500 Internal Server Error"))
                    return self.request.sendall(answer)  # it says "Connection: close"
                return None

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _reply(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def _read_message(connection: socket.socket) -> bytes | None:
    """A whole request with its body of known length, or None where the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 16)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [h.split(b":")[1] for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def _relay(port: int, request: bytes) -> bytes:
    """The server's whole answer. The added header is not signed, so the signature holds."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = b""
        while more := s.recv(1 << 16):
            answer += more
    return answer
