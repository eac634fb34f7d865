"""From an fsspec URL of a pipeline folder to its files: listed, and fetched once into this machine's cache.

The cache is built as the hub's: blobs named by their SHA-256, and for each model a folder of links to them.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.class_cache import cache_folder, one_fetcher, short_hash
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.model.sources.source import Listed, Source
from framefleet.pipeline.outputs.stores.object_store import Stored
from framefleet.pipeline.outputs.stores.store import Store


class UrlSource(Source):
    """A pipeline folder in an object store, as it is now: another listing is another model."""

    def __init__(self, url: str, storage_options: Mapping[str, Any], *, only: str | None = None) -> None:
        """only: the one file that is wanted; the others are not listed."""
        self.path = url.rstrip("/")
        self.name = public_url(self.path)
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
        # Named by all that the store says about the files, so a changed model gets a folder of its own.
        listing = [(name, stored.size, stored.stamp) for name, stored in sorted(self._listing.items())]
        folder = cache_folder() / "models" / short_hash(json.dumps([self.name, listing]))
        if not all((folder / file).is_file() for file in files):
            with one_fetcher(self.name):
                for file in files:
                    if not (folder / file).is_file():  # another process may have fetched it meanwhile
                        self._fetch(file, folder / file)
        return folder

    def _fetch(self, file: str, link: Path) -> None:
        """Download to a name that nobody reads, then name it by its content: no reader finds half a file."""
        blobs = cache_folder() / "blobs"
        temporary = blobs / f"{uuid.uuid4().hex}.part"
        try:
            blobs.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            self._store.download(file, temporary)
            size, listed = temporary.stat().st_size, self._listing[file].size
            if size != listed:
                problem = f"{self.name}/{file} has {size} bytes, but its listing says {listed}"
                raise ModelError(problem, "it changed meanwhile: run the same command again")
            blob = blobs / sha256_of(temporary)
            os.replace(temporary, blob)
            link.unlink(missing_ok=True)  # a link to a blob that somebody deleted
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError as error:
            problem = f"{self.name}/{file} cannot be kept in {cache_folder()}: {error.strerror or error}"
            raise ModelError(problem, "set FRAMEFLEET_CACHE to a folder with room for the model") from error
        finally:
            temporary.unlink(missing_ok=True)
