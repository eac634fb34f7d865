"""From a model's name in a job to its source: a folder, the hub, or a URL."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.errors import ModelError, count_text
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.class_cache import cache_folder, one_fetcher, short_hash
from framefleet.pipeline.model.sources.folder_source import FolderSource, Listed, Source
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.model.specs.model_index import INDEXES
from framefleet.pipeline.outputs.layout import CLAIM

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.stores.object_store import Stored

_HUB_PAGE = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/tree/([\w./-]+?))?/?(?:[?#].*)?"
)
HUB_ID = re.compile(r"(?:hf://)?(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


def open_source(
    path: str,
    *,
    revision: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    needs: Collection[str] = INDEXES,
    only: str | None = None,
) -> Source:
    """Return the source of a model. Raises ModelError if it does not exist.

    path: a folder, `org/name` or `org/name@revision` on the hub, or a URL that fsspec opens. A folder with
    this name is preferred to the hub. revision: a branch, tag or commit on the hub. needs: files, at least
    one of which a URL or hub model must have. only: the single file that is wanted, in any folder.
    """
    place, revision = split_name(path, revision)
    if place.startswith(("file://", "local://")):
        place = place.partition("://")[2]
    if "://" in place:
        _refuse_revision(place, revision)
        source: Source = UrlSource(place, storage_options or {}, only=only)
        if needs == INDEXES and not any(index in source.files for index in INDEXES):
            below = sorted(
                os.path.dirname(file) for file in source.files if os.path.basename(file) in INDEXES
            )
            fix = "check the URL: it must be a diffusers pipeline's own folder"
            fix = f"did you mean {f'{source.name}/{below[0]}'!r}?" if below else fix
            raise ModelError(f"{source.name} has no {INDEXES[0]}", fix)
        return source
    folder = os.path.abspath(os.path.expanduser(place))
    if os.path.exists(folder) or not HUB_ID.fullmatch(place):
        _refuse_revision(folder, revision)
        if not os.path.isdir(folder):
            raise ModelError(f"model {folder!r} is not a folder", _meant(*os.path.split(folder)))
        return FolderSource(folder, only=only)
    from framefleet.pipeline.model.sources.hub import open_hub

    return open_hub(place, revision, needs, only=only)


def _meant(parent: str, name: str) -> str:
    """Return the fix for a name in a folder that is not a model's folder."""
    from framefleet.pipeline.model.families.registry import PRESETS

    if name in INDEXES:
        return f"use the folder it is in: {parent!r}"
    if place := next((preset.place for preset in PRESETS if preset.name == name), ""):
        return f"that is the name of a preset; its model is {place}"
    near: list[str] = []
    with suppress(OSError):  # the parent does not exist, or may not be listed
        alike = [] if os.path.exists(os.path.join(parent, name)) else nearest(name, os.listdir(parent))
        # Outputs are not models.
        near = [other for other in alike if not os.path.exists(os.path.join(parent, other, CLAIM))]
    meant = f"did you mean {os.path.join(parent, near[0])!r}? Or " if near else ""
    return f"{meant}use a pipeline folder (it has a model_index.json), org/name of a hub model, or a URL"


def split_name(path: str, revision: str | None) -> tuple[str, str | None]:
    """Return path and revision of `org/name@revision`, or of its page; other arguments unchanged."""
    if page := _HUB_PAGE.fullmatch(path):
        path = "@".join(filter(None, page.groups()))
    match = HUB_ID.fullmatch(path)
    if match is None or os.path.exists(os.path.expanduser(path)):
        return path, revision
    if match["revision"] and revision and match["revision"] != revision:
        problem = f"model {path!r} names a revision, but the job has another one: {revision!r}"
        raise ModelError(problem, "leave one of them out")
    return match["repo"], revision or match["revision"]


def public_name(path: str, revision: str | None) -> str:
    """Return a model's name for records, which opens it again; without credentials."""
    return f"{path}@{revision}" if revision else public_url(path)


def _refuse_revision(place: str, revision: str | None) -> None:
    if revision is not None:
        problem = f"revision {revision!r} is set, but {public_url(place)} is not a model on the hub"
        raise ModelError(problem, "leave `model.revision` out, or set `model.path` to org/name on the hub")


class UrlSource(Source):
    """A pipeline folder in an object store, in its current version: another listing is another model."""

    def __init__(self, url: str, storage_options: Mapping[str, Any], *, only: str | None = None) -> None:
        """only: the single file that is wanted; others are not listed."""
        self.path = url.rstrip("/")
        self.name = public_url(self.path)
        from framefleet.pipeline.outputs.stores.store import Store  # imports fsspec

        self._store = Store(self.path, storage_options)
        self._only = only

    @cached_property
    def _listing(self) -> dict[str, Stored]:
        return {self._only: self._store.stat(self._only)} if self._only else self._store.details("")

    @cached_property
    def files(self) -> Mapping[str, Listed]:
        return {name: Listed(size=stored.size) for name, stored in self._listing.items()}

    def read(self, file: str, count: int | None = None) -> bytes:
        return self._store.read(file, count)

    def fetch(self, files: Collection[str]) -> Path:
        # Named by everything that the store says about the files, so a changed model gets a new folder.
        listing = [(name, stored.size, stored.stamp) for name, stored in sorted(self._listing.items())]
        folder = cache_folder() / "models" / short_hash(json.dumps([self.name, listing]))
        for file in files:
            if not (folder / file).is_file():
                with one_fetcher(f"{self.name}/{file}"):
                    if not (folder / file).is_file():  # another process may have fetched it meanwhile
                        self._fetch(file, folder / file)
        return folder

    def _fetch(self, file: str, link: Path) -> None:
        """Download to a temporary name, then rename the file, so that no reader finds half a file."""
        blobs = cache_folder() / "blobs"
        temporary = blobs / f"{uuid.uuid4().hex}.part"
        try:
            blobs.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            self._store.download(file, temporary)
            size, listed = temporary.stat().st_size, self._listing[file].size
            if size != listed:
                problem = f"{self.name}/{file} has {count_text(size, 'byte')}, but was listed with {listed:,}"
                raise ModelError(problem, "it changed meanwhile: run the same command again")
            blob = blobs / sha256_of(temporary)
            os.replace(temporary, blob)
            link.unlink(missing_ok=True)  # its blob may have been deleted
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError as error:
            problem = f"{self.name}/{file} cannot be stored in {cache_folder()}: {error.strerror or error}"
            raise ModelError(problem, "set FRAMEFLEET_CACHE to a folder with space for the model") from error
        finally:
            temporary.unlink(missing_ok=True)
