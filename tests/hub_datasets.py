"""A hub that datasets are pushed to, on this machine: the requests that huggingface_hub makes, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.answering import Answering, answered_by
from tests.hub_server import set_constants


@dataclass(slots=True)
class DatasetHub:
    """repos: the files of each dataset, by path. private: those that were made so. commits: of all, in order.

    blobs: what was uploaded, by SHA-256. fails_at: so many commits are taken, then none.
    """

    endpoint: str = ""
    token: str = "hf_secret-of-the-test"
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    commits: list[list[str]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    fails_at: int = 1000

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_new = name not in self.repos
            if (is_new and asked.get("private")) or asked.get("visibility") == "private":
                self.private.add(name)
            self.repos.setdefault(name, {})
            return (200 if is_new else 409), {"url": f"{self.endpoint}/datasets/{name}"}
        if path == "/api/validate-yaml":  # of a card
            return 200, {"errors": [], "warnings": []}
        if parts[0] == "lfs":
            self.blobs[parts[1]] = body
            return 200, {}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"objects": [self._action(one) for one in json.loads(body)["objects"]]}
        repo, verb = "/".join(parts[2:4]), "".join(parts[4:5])
        if verb == "preupload":
            return 200, {"files": [self._mode(repo, one["path"]) for one in json.loads(body)["files"]]}
        if verb == "commit":
            return self._commit(repo, [json.loads(line) for line in body.splitlines()])
        return 200, {
            "id": repo,
            "sha": "0" * 40,
            "siblings": [{"rfilename": name} for name in self.repos[repo]],
        }

    def _action(self, one: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.endpoint}/lfs/{one['oid']}"}}
        return one if one["oid"] in self.blobs else one | {"actions": upload}

    def _mode(self, repo: str, path: str) -> dict[str, Any]:
        there = self.repos[repo].get(path)
        oid = None if there is None else hashlib.sha256(there).hexdigest()
        return {"path": path, "uploadMode": "lfs", "shouldIgnore": False, "oid": oid}

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        if len(self.commits) == self.fails_at:
            return 400, {"error": f"no more for {self.token}"}
        named = {line["value"]["path"]: line["value"] for line in lines if line["key"] in ("file", "lfsFile")}
        for path, said in named.items():
            self.repos[repo][path] = (
                self.blobs[said["oid"]] if "oid" in said else base64.b64decode(said["content"])
            )
        self.commits.append(sorted(named))
        return 200, {"commitUrl": f"{self.endpoint}/datasets/{repo}/commit/{'0' * 40}", "commitOid": "0" * 40}


@contextmanager
def serve(hub: DatasetHub) -> Iterator[DatasetHub]:
    class Handler(Answering):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.body()
            is_ours = self.headers.get("Authorization") == f"Bearer {hub.token}"
            is_asked = not self.path.startswith("/lfs/")  # signed links, on the real one
            path = self.path.partition("?")[0]
            status, said = (401, {}) if is_asked and not is_ours else hub.answer(self.command, path, body)
            self.answer(status, json.dumps(said).encode(), {"Content-Type": "application/json"})

        do_PUT = do_GET = do_POST

    with answered_by(Handler) as hub.endpoint:
        yield hub


@pytest.fixture
def dataset_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    """Yield a hub that this process talks to, as a user who is logged in."""
    with serve(DatasetHub()) as hub:
        monkeypatch.setenv("HF_TOKEN", hub.token)
        no_token = str(tmp_path / "no-token")
        # Xet has servers of its own.
        set_constants(monkeypatch, ENDPOINT=hub.endpoint, HF_TOKEN_PATH=no_token, HF_HUB_DISABLE_XET=True)
        yield hub
