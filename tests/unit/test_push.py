"""An export reaches a dataset of the hub whole, goes on after an interruption, and has a card to be read."""

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
from huggingface_hub import DatasetCard

from framefleet import Store
from framefleet.pipeline.guards.redaction import without_folder
from framefleet.plugins.export import push
from framefleet.plugins.export.card import _card, _size_category
from tests.answering import Answering, answered_by
from tests.commands import command
from tests.hub_server import set_constants
from tests.small_output import files, rendered


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


__all__ = ["dataset_hub"]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Commits of two files each."""
    monkeypatch.setattr(push, "_COMMIT_FILES", 2)
    rendered(Store(str(tmp_path / "out")), 5)
    places = (str(tmp_path / "out"), str(tmp_path / "to"))
    return ("export", *places, "--format", "hf", "--shard-rows", "3", "--push", "org/balls")


def test_a_push_brings_all_files(tmp_path: Path, arguments: tuple[str, ...], dataset_hub: DatasetHub) -> None:
    result = command(*arguments, "--private", exits=0)
    assert result.stdout.split()[-1] == f"{dataset_hub.endpoint}/datasets/org/balls"
    assert dataset_hub.repos["org/balls"] == files(tmp_path / "to")
    assert "data/000000/metadata.parquet" in dataset_hub.repos["org/balls"]
    assert [len(paths) for paths in dataset_hub.commits] == [2, 2, 2, 2, 1]
    assert dataset_hub.private == {"org/balls"}


def test_a_push_that_was_interrupted_goes_on_and_takes_nothing_twice(
    tmp_path: Path, arguments: tuple[str, ...], dataset_hub: DatasetHub
) -> None:
    dataset_hub.fails_at = 2
    result = command(*arguments, exits=3)
    assert dataset_hub.token not in result.output
    assert "run the same command again" in result.stderr
    dataset_hub.fails_at = 1000
    assert command(*arguments).exit_code == 0
    assert dataset_hub.repos["org/balls"] == files(tmp_path / "to")
    assert sorted(path for paths in dataset_hub.commits for path in paths) == sorted(files(tmp_path / "to"))


def test_who_may_not_write_is_told_before_anything_is_exported(
    tmp_path: Path, arguments: tuple[str, ...], dataset_hub: DatasetHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong-token-of-the-test")
    result = command(*arguments, exits=2)
    assert "hf auth login" in result.stderr and "hf_wrong" not in result.output
    assert not (tmp_path / "to").exists()
    assert command(*arguments[:-1], "balls").exit_code == 2


def test_a_card_that_a_dataset_has_stays(arguments: tuple[str, ...], dataset_hub: DatasetHub) -> None:
    dataset_hub.repos["org/balls"] = {"README.md": b"mine"}
    assert command(*arguments).exit_code == 0
    assert dataset_hub.repos["org/balls"]["README.md"] == b"mine"


TEXTS = [
    *("apache-2.0", "cc-by: share, alike", "MIT # not", "'quoted", '"quoted', "`code`", "[a, b]", "{a: b}"),
    *(
        "- item",
        "* item",
        "&anchor",
        "*alias",
        "!tag",
        "| block",
        "> folded",
        "%YAML",
        "@at",
        "? key",
        ": value",
    ),
    *("yes", "null", "~", "1.0", "2020-01-01", "---", "...", "a\n---\nevil: true", "\ttab", " space ", ""),
    *("许可证", "\x85next", "\u2028line", "\x1b[31m", "a" * 5000, "license: mit", "\\", "\ufeffbom", "🎬"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_head_of_a_card_holds_a_license_of_any_text(text: str) -> None:
    models, asked = [("some/model", text), ("other/model", text)], [("judge", text)]
    card = DatasetCard(_card(models, asked, num_rows=1000, feature="video"))
    plain = " ".join(text.replace("`", "'").split())
    head = card.data.to_dict()
    other = {"license": "other", "license_name": plain}
    tags = {"tags": ["synthetic"], "size_categories": ["1K<n<10K"], "task_categories": ["text-to-video"]}
    assert head == {**({"license": text} if text == "apache-2.0" else other), **tags}
    assert "Models, and the licenses of their weights" in card.text, json.dumps(card.content)


@pytest.mark.parametrize(
    ("num_rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (10**4, "10K<n<100K"), (10**9 - 1, "100M<n<1B"), (10**12, "n>1T")],
)
def test_a_card_says_how_large_a_dataset_is_in_the_words_of_the_hub(num_rows: int, category: str) -> None:
    assert _size_category(num_rows) == category


@pytest.mark.parametrize("model", ["/home/me/models/wan", "../models/wan/", "file:///srv/wan"])
def test_a_card_names_a_local_model_without_its_folder(model: str) -> None:
    assert without_folder(model) == "wan"
    assert without_folder("org/wan@main") == "org/wan@main"
    assert without_folder(f"{model} + vae=/home/me/x.gguf") == "wan + vae=x.gguf"
    parts = " + transformer=org/gguf/a.gguf@main + vae="
    assert without_folder(f"org/wan@main{parts}/srv/x.gguf") == f"org/wan@main{parts}x.gguf"
