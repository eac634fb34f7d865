"""What the caller of a replay allows and knows, because outputs are not trusted with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Where models and files are now, and what may be opened."""

    model: str | None = None  # where the model is now
    models: Mapping[str, str] = field(default_factory=dict)  # places by name, if a job has several models
    parts: Mapping[str, str] = field(default_factory=dict)  # places of single files, by component
    loras: Mapping[str, str] = field(default_factory=dict)  # places by name
    ip_adapter: str | None = None  # place
    second_models: Mapping[str, str] = field(default_factory=dict)  # places by name
    # User's recipe, module:function, or several; the record must name it too.
    recipe: str | Collection[str] | None = None
    attention: str | None = None  # kernel to fetch from the hub; the record must name it too
    # Folders and URLs from which images and videos may be read, also on private networks.
    roots: tuple[str, ...] = ()
    allow_pickle: bool = False  # whether to load pickled tensors
    audit: str | None = None  # output with audits between machines; None: the row's own
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # as in the job

    @property
    def recipes(self) -> tuple[str, ...]:
        """All of `recipe`, however many."""
        return (self.recipe,) if isinstance(self.recipe, str) else tuple(self.recipe or ())


NOTHING = Given()
