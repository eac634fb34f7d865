"""A process that serves the videos API (videos_service.py), as tests start, kill and restart it.

`python -m tests.videos_server --port PORT --dialect vllm` prints its URL when it listens. Other options: a
folder of a pipeline (--model), --key, a file of faults (--faults, see
videos_faults.py), a file of all that it did (--log), and a folder of jobs that it keeps (--state).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.videos_service import serve


@dataclass(slots=True)
class VideosServer:
    """url: ends in /v1. folder: of its faults, log, jobs and errors."""

    url: str
    dialect: str
    folder: Path
    _arguments: list[str]
    _is_warm: bool
    _process: subprocess.Popen[str] | None = None

    def set_faults(self, **faults: Any) -> None:
        """Give it these faults, see videos_faults.py, and no others, from its next request on."""
        file = self.folder / "faults.new"
        file.write_text(json.dumps(faults))
        file.rename(self.folder / "faults")

    def kill(self) -> None:
        assert self._process and self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def restart(self, *, forget: bool = True) -> None:
        """Kill it if it runs, and start it on the same port. forget: all ids."""
        if self._process and self._process.poll() is None:
            self.kill()
        if forget:
            shutil.rmtree(self.folder / "state", ignore_errors=True)
        with open(self.folder / "errors", "a") as errors:
            if self._is_warm:
                from tests.warm.process import start  # imports torch, which synthetic clips do not need

                self._process = start(*self._arguments, stderr=errors)
            else:
                command, root = [sys.executable, *self._arguments], Path(__file__).parents[1]
                out = subprocess.PIPE
                self._process = subprocess.Popen(command, stdout=out, stderr=errors, text=True, cwd=root)
        assert self._process.stdout
        listens = any(line.strip() == self.url for line in self._process.stdout)
        assert listens, (self.folder / "errors").read_text()

    def log(self, *events: str) -> list[dict[str, Any]]:
        """Return what it did, restarts or not: post, render, poll, content, forget, elsewhere."""
        file = self.folder / "log"
        entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [entry for entry in entries if not events or entry["event"] in events]

    def posts(self) -> list[dict[str, Any]]:
        """Return each POST: path, headers without the key, body, status, and the id that it got."""
        return self.log("post")

    def ids(self) -> list[str]:
        """Return the ids that it gave out, each once."""
        return [post["id"] for post in self.posts() if post.get("is_new")]

    def posts_by_key(self) -> Counter[str]:
        """Count POSTs by their idempotency keys."""
        return Counter(post["headers"].get("Idempotency-Key", "") for post in self.posts())


@contextmanager
def videos_server(
    dialect: str = "vllm",
    *,
    model: Path | None = None,
    key: str = "",
    faults: Mapping[str, Any] | None = None,
) -> Iterator[VideosServer]:
    """Yield a server that runs. model: the folder of a pipeline; without one, clips are synthetic."""
    from tests.servers import free_port  # imports boto3, which the server process does not need

    port = free_port()
    with tempfile.TemporaryDirectory(prefix="videos-") as name:
        folder = Path(name)
        arguments = ["-m", "tests.videos_server", "--port", str(port), "--dialect", dialect]
        arguments += ["--key", key, *(["--model", str(model)] if model else [])]
        arguments += [
            text for file in ("faults", "log", "state") for text in (f"--{file}", str(folder / file))
        ]
        server = VideosServer(f"http://127.0.0.1:{port}/v1", dialect, folder, arguments, model is not None)
        server.set_faults(**faults or {})
        server.restart()
        try:
            yield server
        finally:
            server.kill()


if __name__ == "__main__":
    serve()
