"""A server process that speaks OpenAI's chat protocol, and misbehaves as it is told.

`python tests/chat_server.py -p PORT`. Answers fit the schema of the request and depend on its content alone.
POST /script takes a list of behaviours, each for one request, then {}; GET /log returns what was asked:

    {}                             the answer that the schema wants
    {"status": 429, "headers": {}} that status
    {"content": "..."}             this text in place of the answer
    {"raw": "..."}                 this text in place of the response
    {"more": {...}}                these keys of the response
    {"wait_s": 1}                  late
    "always": true                 for all requests from here
    "for": "..."                   for all requests whose messages have this text, and for no other
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

SERVER = [sys.executable, __file__, "-p"]  # and a port
SCRIPT: list[dict[str, Any]] = []
LOG: list[dict[str, Any]] = []
ACTIVE: Counter[str] = Counter()  # requests under way, by model
LOCK = threading.Lock()


class Chat:
    """A test's view of the server."""

    def __init__(self, endpoint: str) -> None:
        self.url = f"{endpoint}/v1"
        self._endpoint = endpoint

    def will(self, *script: dict[str, Any]) -> None:
        urlopen(Request(f"{self._endpoint}/script", json.dumps(script).encode())).read()

    @property
    def log(self) -> list[dict[str, Any]]:
        return json.load(urlopen(f"{self._endpoint}/log"))


def answer_to(schema: dict[str, Any], content: Any) -> object:
    digest = hashlib.sha256(json.dumps(content).encode()).digest()
    if schema["type"] == "number":
        return schema["minimum"] + (schema["maximum"] - schema["minimum"]) * digest[0] / 255
    if "enum" in schema:
        return schema["enum"][digest[0] % len(schema["enum"])]
    text = content if isinstance(content, str) else f"{len(content) - 1} frames"
    return f"In golden light: {text}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/script":
            with LOCK:
                SCRIPT[:] = body
            return self._send(200, "{}")
        text, model = json.dumps(body["messages"], ensure_ascii=False), body.get("model", "")
        with LOCK:
            fitting = [one for one in SCRIPT if one.get("for", "") in text]
            behaviour = fitting[0] if fitting else {}
            if fitting and not behaviour.keys() & {"always", "for"}:
                SCRIPT.remove(behaviour)
            ACTIVE[model] += 1
            at_once = ACTIVE[model]
            own = {"key": self.headers["Authorization"], "path": self.path, "at_once": at_once}
            LOG.append({"body": body, **own})
        time.sleep(behaviour.get("wait_s", 0))
        with LOCK:
            ACTIVE[model] -= 1
        if "status" in behaviour:
            return self._send(behaviour["status"], '{"error": "as told"}', behaviour.get("headers", {}))
        schema = body["response_format"]["json_schema"]["schema"]["properties"]["answer"]
        answer = {"answer": answer_to(schema, body["messages"][0]["content"])}
        message = {"role": "assistant", "content": behaviour.get("content", json.dumps(answer))}
        usage = {"prompt_tokens": 1000, "completion_tokens": 10}
        response = {"choices": [{"message": message}], "usage": usage}
        response |= behaviour.get("more", {})
        self._send(200, behaviour.get("raw", json.dumps(response)), behaviour.get("headers", {}))

    def do_GET(self) -> None:
        with LOCK:
            self._send(200, json.dumps(LOG))

    def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:  # who asked has gone
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
