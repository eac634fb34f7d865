"""Refuse networks that their configs make far larger than their weights, before anybody builds them.

A config of one kilobyte can ask for tables and layers of any size. How large they get is for the class of a
network to say, so it is built on the meta device first, where tensors take no memory. Where its numbers are
large, a process whose memory is bounded does that, as lists and NumPy's arrays take memory there too.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.sandbox import Ended, Sandbox
from framefleet.pipeline.model.kept import kept
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.pipeline.model.specs.model_index import read_object

_PROCESS = "framefleet.pipeline.model.sources.network_sizes_process"
_MAX_SILENCE_S = 180.0  # imports take most of it
# A weight is built in 4 bytes and may be stored in one. Tables that no file holds, of positions, take less.
_TIMES_STORED, _MAX_TABLES_BYTES = 4, 2 << 30
# The largest number of a config squared; of transformers, which have thousands of words, its two largest
# multiplied. Only what is above is built in a process of its own, which takes seconds to start.
_SMALL = 20_000_000


def check_sizes(
    folder: Path, components: Iterable[Component], sizes: Mapping[str, int], *, where: str, is_built: bool
) -> None:
    """Raise ModelError for a config whose network takes far more bytes than its weights.

    folder: of the configs. sizes: of the model's files. where: what to call the model. is_built: this process
    is about to build the networks, so small numbers are looked at too.
    """
    stored: Counter[str] = Counter()
    for file in filter(is_weights, sizes):
        stored[file.partition("/")[0]] += sizes[file]
    for component in components:
        for name in component.folders if component.has_weights else ():
            path = folder / name / "config.json"
            config = read_object(path) if path.is_file() else {}
            most = _TIMES_STORED * stored[name] + _MAX_TABLES_BYTES
            if said := _said(*component.class_of_each, config, most, is_built=is_built):
                largest = heapq.nlargest(3, _numbers(config), key=lambda found: found[1])
                values = ", ".join(f"{key} {value}" for key, value in largest)
                raise ModelError(
                    f"{where}/{name}/config.json: a {component.class_of_each[1]} of these values {said}, and "
                    f"its weights have {stored[name]:,} bytes; the largest values are {values}",
                    "correct the config, or download the model again",
                )


def _said(library: str, name: str, config: Mapping[str, Any], most: int, *, is_built: bool) -> str | None:
    first, second = heapq.nlargest(2, [1, 1, *(value for _, value in _numbers(config))])
    if first * (first if library == "diffusers" else second) > _SMALL:
        return _said_in_sandbox(library, name, config, most)
    if not is_built:
        return None
    from framefleet.pipeline.model.sources.network_sizes_process import said_against  # imports torch

    return said_against(library, name, config, most)


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a config, each with its key."""
    if type(value) is int:
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, key)


@kept(TypeAdapter(str | None))
def _said_in_sandbox(library: str, class_name: str, config: Mapping[str, Any], most: int) -> str | None:
    """Return why a network is too large; None where it is not, or where it cannot be built at all."""
    asked = [library, class_name, config, most]
    box = Sandbox(_PROCESS, max_silence_s=_MAX_SILENCE_S)
    try:
        box.send(json.dumps(asked).encode())
        said: str | None = json.loads(box.receive())
    except Ended as error:
        said = f"cannot be built ({error})"
    box.end()
    return said
