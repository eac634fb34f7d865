"""What the caller of a replay says, because no output is trusted with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Where things are now, and what may be opened."""

    model: str | None = None  # where the model is now
    models: Mapping[str, str] = field(default_factory=dict)  # the same by name, if a job has several models
    parts: Mapping[str, str] = field(default_factory=dict)  # where files of components are now, by name
    loras: Mapping[str, str] = field(default_factory=dict)  # where these are now, by name
    ip_adapter: str | None = None  # where it is now
    second_models: Mapping[str, str] = field(default_factory=dict)  # where these are now, by name
    recipe: str | None = None  # one of a module, which the record must name too
    attention: str | None = None  # a kernel that is fetched from the hub, which the record must name too
    # Folders and URLs below which images and videos may be read, on private networks too.
    roots: tuple[str, ...] = ()
    allow_pickle: bool = False  # load pickles of tensors
    audit: str | None = None  # an output with audits between machines, in place of the row's own
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # as in the job


NOTHING = Given()
