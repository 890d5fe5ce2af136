"""A double of Vault's transit engine that speaks its recorded answers."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "s.token-of-the-store"


class Double(ThreadingHTTPServer):
    """Answers `encrypt` and `decrypt` in the form of Vault 1.15. `failing` replaces the answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.failing: tuple[int, bytes] | None = None
        self.drop = False
        self.keys = {"team-a"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def _answer(data: dict[str, Any]) -> bytes:
    """The frame around every successful answer."""
    frame = {
        "request_id": "2b52a1c6-6a2b-0c9c-bd6b-0e1e3b1c4f1d", "lease_id": "", "renewable": False,
        "lease_duration": 0, "data": data, "wrap_info": None, "warnings": None, "auth": None,
        "mount_type": "transit",
    }  # fmt: skip
    return json.dumps(frame).encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Double

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        status, content = self._judge(body)
        if self.server.failing is not None:
            status, content = self.server.failing
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if self.server.drop:
            self.close_connection = True

    def _judge(self, body: dict[str, str]) -> tuple[int, bytes]:
        if self.headers["X-Vault-Token"] != TOKEN:
            return 403, b'{"errors":["permission denied"]}\n'
        _, _, mount, verb, name = self.path.split("/")
        assert (mount, self.headers["X-Vault-Request"]) == ("transit", "true")
        if name not in self.server.keys:
            return 400, b'{"errors":["encryption key not found"]}\n'
        if verb == "encrypt":
            sealed = json.dumps([body["plaintext"], body["associated_data"]]).encode()
            text = "vault:v1:" + base64.b64encode(sealed).decode()
            return 200, _answer({"ciphertext": text, "key_version": 1})
        plain, bound = json.loads(base64.b64decode(body["ciphertext"].removeprefix("vault:v1:")))
        if bound != body["associated_data"]:
            return 400, b'{"errors":["cipher: message authentication failed"]}\n'
        return 200, _answer({"plaintext": plain})
