"""From what a job calls its model to the place that it comes from: a folder, the hub, or a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.sources.folder_source import FolderSource, Source
from framefleet.pipeline.model.specs.model_index import INDEXES

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
) -> Source:
    """Return where a model comes from. Raises ModelError when there is none.

    path: a folder, `org/name` or `org/name@revision` of the hub, or a URL that fsspec opens. A folder of that
    name wins over the hub. revision: a branch, tag or commit of the hub. needs: files, by one of which a URL
    and a hub model are known to be what is looked for.
    """
    place, revision = split_name(path, revision)
    if place.startswith(("file://", "local://")):
        place = place.partition("://")[2]
    if "://" in place:
        from framefleet.pipeline.model.sources.url_source import UrlSource

        _refuse_revision(place, revision)
        source: Source = UrlSource(place, storage_options or {})
        if needs == INDEXES and not any(index in source.files for index in INDEXES):
            raise ModelError(
                f"{source.name} has no {INDEXES[0]}",
                "check the URL: it must be a diffusers pipeline's own folder",
            )
        return source
    folder = os.path.abspath(os.path.expanduser(place))
    if os.path.exists(folder) or not HUB_ID.fullmatch(place):
        _refuse_revision(folder, revision)
        if not os.path.isdir(folder):
            parent, name = os.path.split(folder)
            near = nearest(name, os.listdir(parent)) if os.path.isdir(parent) else []
            meant = f"did you mean {os.path.join(parent, near[0])!r}? Or " if near else ""
            fix = "give a pipeline folder (it holds model_index.json), org/name of a hub model, or a URL"
            raise ModelError(f"model {folder!r} is not a folder", meant + fix)
        return FolderSource(folder)
    from framefleet.pipeline.model.sources.hub import open_hub

    return open_hub(place, revision, needs)


def split_name(path: str, revision: str | None) -> tuple[str, str | None]:
    """Return the path and the revision of `org/name@revision`, or of its page; else what is given."""
    if page := _HUB_PAGE.fullmatch(path):
        path = "@".join(filter(None, page.groups()))
    match = HUB_ID.fullmatch(path)
    if match is None or os.path.exists(os.path.expanduser(path)):
        return path, revision
    if match["revision"] and revision and match["revision"] != revision:
        raise ModelError(
            f"model {path!r} names a revision, and so does the job: {revision!r}", "give one of them"
        )
    return match["repo"], revision or match["revision"]


def public_name(path: str, revision: str | None) -> str:
    """Return what a record calls a model: what opens it again, without credentials."""
    return f"{path}@{revision}" if revision else public_url(path)


def _refuse_revision(place: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(
            f"revision {revision!r} is given, but {public_url(place)} is not a model of the hub",
            "leave `model.revision` out, or give org/name of the hub as `model.path`",
        )
