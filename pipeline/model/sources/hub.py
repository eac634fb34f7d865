"""From `org/name` and a revision to the files of a hub model, with the hub's digests; fetched once.

Files go to the hub's own cache. huggingface_hub's variables set cache, token, endpoint and offline mode:
HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from huggingface_hub import (
    HfApi,
    errors,
    hf_hub_download,
    hf_hub_url,
    is_offline_mode,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from framefleet.pipeline.errors import FramefleetError, ModelError, ServiceError, quoted
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.model.class_cache import one_fetcher
from framefleet.pipeline.model.sources.folder_source import Listed, Source, list_folder
from framefleet.pipeline.model.sources.headers import read_first
from framefleet.pipeline.model.specs.model_index import INDEXES

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource(Source):
    """One commit of a hub model."""

    _outage: Exception | None = None  # why only the files in the cache are listed

    def __init__(self, repo: str, commit: str, *, only: str | None = None) -> None:
        """only: the single file that is wanted; if it is in the cache, the hub is not asked."""
        self.path, self.revision, self._only = repo, commit, only
        self.name = f"{repo}@{commit}"

    @cached_property
    def files(self) -> Mapping[str, Listed]:
        """The hub's files, or those in the cache if we are offline or the hub does not answer."""
        folder = _cached_folder(self.path, self.revision) if self._only else None
        if folder and self._only and (folder / self._only).is_file():
            return list_folder(folder, [self._only])
        try:
            facts = HfApi().model_info(self.path, revision=self.revision, files_metadata=True)
        except Exception as error:  # the client raises errors of its HTTP library, which changed twice
            folder = _cached_folder(self.path, self.revision)
            if folder is None or self._only:
                _refuse(self.path, self.revision, error)
            self._outage = error
            log.info("%s: %s; using the files in the cache", self.name, type(error).__name__)
            paths = [path for path in folder.rglob("*") if path.is_file()]
            return list_folder(folder, sorted(path.relative_to(folder).as_posix() for path in paths))
        return {
            file.rfilename: Listed(size=file.size or 0, sha256=file.lfs.sha256 if file.lfs else None)
            for file in facts.siblings or []
        }

    def missing(self, problem: str, fix: str) -> FramefleetError:
        if self._outage:
            _refuse(self.path, self.revision, self._outage)
        return super().missing(problem, fix)

    def read(self, file: str, count: int | None = None) -> bytes:
        cached = try_to_load_from_cache(self.path, file, revision=self.revision)
        try:
            if not isinstance(cached, str) and count is not None:
                headers = {**build_hf_headers(), "range": f"bytes=0-{count - 1}"}
                url = hf_hub_url(self.path, file, revision=self.revision)
                with get_session().stream("GET", url, headers=headers) as answer:
                    hf_raise_for_status(answer)
                    content = b""
                    for part in answer.iter_bytes():  # in parts, because a mirror may not support ranges
                        content += part
                        if len(content) >= count:
                            break
                return content[:count]
            path = hf_hub_download(self.path, file, revision=self.revision)
        except Exception as error:  # as above
            _refuse(self.path, self.revision, error)
        return read_first(Path(path), count)

    def fetch(self, files: Collection[str]) -> Path:
        def whole() -> Path | None:
            folder = _cached_folder(self.path, self.revision)
            return folder if folder and all((folder / file).is_file() for file in files) else None

        if folder := whole():
            return folder
        with one_fetcher(self.path):  # another process may have fetched it while this one waited
            return whole() or _download(self.path, self.revision, files)


def open_hub(
    repo: str, revision: str | None, needs: Collection[str] = INDEXES, *, only: str | None = None
) -> Source:
    """Return a hub model at one commit. Raises ModelError if there is no such model or revision.

    If the revision is a commit, the hub is not asked: workers make no request if all files are in the cache.
    needs: files, at least one of which must exist. only: the single file that is wanted, which counts too.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return HubSource(repo, revision, only=only)
    # Downloading notes in the cache which commit the name stands for, for offline runs.
    folder = _download(repo, revision, needs, one_of=[*needs, *([only] if only else [])])
    return HubSource(repo, folder.name, only=only)


def _cached_folder(repo: str, commit: str | None) -> Path | None:
    """Return the snapshot folder in the hub's cache; None if none of its files was fetched."""
    try:
        return Path(snapshot_download(repo, revision=commit, local_files_only=True, allow_patterns=[]))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None


def _download(
    repo: str, revision: str | None, files: Collection[str], *, one_of: Collection[str] = ()
) -> Path:
    """Return the folder with these files, or with at least one of `one_of`."""

    def is_enough(folder: Path) -> bool:
        return any((folder / file).is_file() for file in one_of)

    patterns = [glob.escape(file) for file in files]
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # as above; `_refuse` explains it
        cached = _cached_folder(repo, revision)
        if not (isinstance(error, errors.LocalEntryNotFoundError) and cached and is_enough(cached)):
            _refuse(repo, revision, error)
        folder = cached  # the hub does not answer
    missing = [file for file in files if not (folder / file).is_file()]
    if missing and not is_enough(folder):
        raise ModelError(
            f"{repo} at {folder.name} has no {missing[0]} (not in the cache, or not on the hub)",
            ("use a model in diffusers' format" if missing[0] in INDEXES else "check its name")
            + "; offline, fetch it once with a connection",
        )
    return folder


def _refuse(repo: str, revision: str | None, error: Exception) -> NoReturn:
    """Raise an error with a fix for an error of the hub's client, whose text may quote a token."""
    text = public_text(str(error)).strip().removeprefix("Got: ")  # snapshot_download's prefix
    message = text.partition("\n")[0] or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        problem = f"hub model {repo} is gated: {message}"
        raise ModelError(problem, "accept its terms on its page at the hub, and set HF_TOKEN") from None
    if isinstance(error, errors.RepositoryNotFoundError):
        problem = f"{repo!r} is neither a folder here nor a readable model on the hub"
        fix = "check the spelling; for a private model set HF_TOKEN, on every machine of the cluster"
        raise ModelError(problem, fix) from None
    if isinstance(error, errors.RevisionNotFoundError):
        fix = "use a branch, a tag or a commit; without `model.revision` it is main"
        raise ModelError(f"hub model {repo} has no revision {revision!r}", fix) from None
    if isinstance(error, errors.HFValidationError):
        problem = f"{repo!r} is not a folder here, nor a hub id: {message}"
        raise ModelError(problem, "check the path") from None
    # HTTPError is that of the client's HTTP library.
    if isinstance(error, errors.HTTPError | OSError):  # type: ignore[attr-defined]
        why, check = f"the hub does not answer: {message}", "the connection and HF_ENDPOINT"
        if is_offline_mode():
            why, check = "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
        download = quoted("hf", "download", repo, *(["--revision", revision] if revision else []))
        raise ServiceError(
            f"hub model {repo} is not complete in the cache, and {why}",
            f"there is no folder {repo}; check the spelling, {check}, or fill the cache on a machine with "
            f"internet: {download}",
        ) from error
    raise ServiceError(f"hub model {repo}: {type(error).__name__}: {message}", "try again later") from error
