"""A model hub on this machine: the requests that huggingface_hub makes, answered from folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

from framefleet.pipeline.model.sources.integrity import git_hash
from tests.answering import Answering, answered_by

LARGE = (".safetensors", ".bin")  # stored by SHA-256, as the hub's large files are


@dataclass(slots=True)
class HubServer:
    """repos: by `org/name`, the folder of each. token: what a private or gated one wants to see.

    requests: "GET path" of every request so far. gated: repos whose terms nobody accepted.
    """

    endpoint: str = ""
    repos: dict[str, Path] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_secret-of-the-test"
    requests: list[str] = field(default_factory=list)

    def commit(self, repo: str) -> str:
        """Return the only commit of a repo: it changes with the files."""
        digest = hashlib.sha1()
        for name, content in sorted(self.files(repo).items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()

    def files(self, repo: str) -> dict[str, bytes]:
        folder = self.repos[repo]
        found = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    def fetched(self) -> list[str]:
        """Return the large files whose content was sent, in order."""
        return [line for line in self.requests if line.startswith("GET") and line.endswith(LARGE)]


@contextmanager
def serve(hub: HubServer) -> Iterator[HubServer]:
    class Handler(Answering):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            is_api = parts[0] == "api"  # /api/models/org/name/..., /api/datasets/org/name/...
            parts = parts[2:] if is_api else parts[1:] if parts[0] == "datasets" else parts
            repo = "/".join(parts[:2])
            verb, revision = parts[2:4] or ("revision", "main")
            refusal = self.refusal(repo, revision)
            if refusal:
                self.answer(refusal[0], b"{}", {"X-Error-Code": refusal[1], "X-Error-Message": refusal[1]})
            elif is_api:
                self.answer(200, json.dumps(self.described(repo, verb, "/".join(parts[4:]))).encode())
            else:
                self.send_file(repo, "/".join(parts[4:]))

        do_HEAD = do_POST = do_GET

        def refusal(self, repo: str, revision: str) -> tuple[int, str] | None:
            is_known = self.headers.get("Authorization") == f"Bearer {hub.token}"
            if repo not in hub.repos or (repo in hub.private and not is_known):
                return 401, "RepoNotFound"
            if repo in hub.gated:
                return 403, "GatedRepo"
            if revision not in ("main", hub.commit(repo)):
                return 404, "RevisionNotFound"
            return None

        def described(self, repo: str, verb: str, folder: str) -> Any:
            files = hub.files(repo)
            if verb in ("tree", "paths-info"):
                if verb == "paths-info":  # of files and folders by name
                    names = parse_qs(self.body().decode())["paths"]
                    above = [name for name in names if any(file.startswith(f"{name}/") for file in files)]
                    files = {name: content for name, content in files.items() if name in names}
                else:
                    start = f"{folder}/" if folder else ""
                    files = {name: files[name] for name in files if name.startswith(start)}
                    parents = (str(parent) for name in files for parent in PurePosixPath(name).parents)
                    above = [one for one in dict.fromkeys(parents) if one != "." and one.startswith(start)]
                    if "recursive=true" not in self.path.lower():  # what lies right below
                        above = [name for name in above if "/" not in name[len(start) :]]
                        files = {name: files[name] for name in files if "/" not in name[len(start) :]}
                folders = [{"type": "directory", "path": name, "oid": "0" * 40} for name in above]
                return folders + [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": git_hash(content),
                        **large(name, content, "oid"),
                    }
                    for name, content in files.items()
                ]
            siblings = [
                {
                    "rfilename": name,
                    "size": len(content),
                    "blobId": git_hash(content),
                    **large(name, content, "sha256"),
                }
                for name, content in files.items()
            ]
            return {"id": repo, "sha": hub.commit(repo), "siblings": siblings}

        def send_file(self, repo: str, name: str) -> None:
            content = hub.files(repo).get(name)
            if content is None:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            etag = hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else git_hash(content)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit(repo), "Accept-Ranges": "bytes"}
            if name.endswith(LARGE):
                headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            asked = self.headers.get("Range")
            if asked:
                first, last = asked.removeprefix("bytes=").split("-")
                content = content[int(first) : int(last) + 1 if last else None]
            self.answer(206 if asked else 200, content, headers)

    with answered_by(Handler) as hub.endpoint:
        yield hub


def large(name: str, content: bytes, key: str) -> dict[str, Any]:
    if not name.endswith(LARGE):
        return {}
    return {"lfs": {key: hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Yield a hub that this process and its children talk to, with empty caches."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    with serve(HubServer()) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        set_constants(
            monkeypatch,
            ENDPOINT=server.endpoint,
            HUGGINGFACE_CO_URL_TEMPLATE=server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            HF_HUB_CACHE=str(tmp_path / "hf" / "hub"),
            HF_TOKEN_PATH=str(tmp_path / "no-token"),
        )
        yield server


def set_constants(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Set what huggingface_hub read from the environment when it was imported."""
    for name, value in {"HF_HUB_OFFLINE": False, **values}.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
