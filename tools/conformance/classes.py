"""The pipeline classes of the installed diffusers that make videos or images, as their code says."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Literal

import diffusers

from framefleet.pipeline.model.registry import exported

Kind = Literal["video", "image"]
_FIELDS: dict[str, Kind] = {"frames": "video", "video": "video", "images": "image"}
# What `__call__` returns at its end: `return WanPipelineOutput(frames=video)`.
_RETURNED = re.compile(rf"return \w+Output\(\s*({'|'.join(_FIELDS)})=")


@functools.cache
def classes_by_kind() -> dict[Kind, list[str]]:
    """Return the names of all, sorted; without those that diffusers calls deprecated."""
    found: dict[Kind, list[str]] = {"video": [], "image": []}
    for name, kind in _classes():
        found[kind].append(name)
    return found


def _classes() -> Iterator[tuple[str, Kind]]:
    for name in sorted(dir(diffusers)):
        found = exported(diffusers, name) if name.endswith("Pipeline") else None
        if isinstance(found, type) and ".deprecated." not in found.__module__ and "__call__" in vars(found):
            returned = _RETURNED.search(inspect.getsource(vars(found)["__call__"]))
            if returned:
                yield name, _FIELDS[returned[1]]
