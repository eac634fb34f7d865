"""One entry of `embeddings/`: what a text encoder returned, to the bytes of a safetensors file and back.

Tensors by their digests; classes by name, and only of libraries that are imported: files must not choose what
runs. Bytes that are not whole, or not of the call that is asked for, are refused.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Hashable
from typing import Any

import safetensors.torch
import torch
from diffusers.utils import BaseOutput
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import ModelOutput

from framefleet.pipeline.errors import NotLoaded
from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.hooks.tree import unflatten
from framefleet.pipeline.render.fused.calls import digest_of

Encoded = tuple[list[Any], Hashable]  # leaves and structure, as `flatten` returns them

PLAIN: dict[str, type] = {"tuple": tuple, "list": list, "dict": dict}
LIBRARIES = ("transformers", "diffusers")
METADATA = "framefleet"  # one entry: several are written in any order, and equal outputs in equal bytes


class Unkept:
    """Stands for the cache of keys and values that a language model returns, which pipelines do not use."""

    def __getattr__(self, name: str) -> Any:
        raise NotLoaded(
            "the row uses the cache of keys and values that a text encoder returned, which is not kept",
            "leave `fleet.encoders` out of the job",
        )


UNKEPT = Unkept()


def embedding_bytes(key: str, output: Encoded) -> bytes | None:
    """Return the file that holds `output` under `key`; None if a file cannot hold it."""
    leaves, structure = output
    tensors: dict[str, Tensor] = {}
    try:
        notes, nesting = [_noted(leaf, tensors) for leaf in leaves], _spelled_structure(structure)
        body = canonical_json({"key": key, "leaves": notes, "nesting": nesting})
    except ValueError:  # a class that is not rebuilt, or a NaN outside of tensors
        return None
    return safetensors.torch.save(tensors, {METADATA: f"{_sha256(body)} {body}"})


def from_bytes(key: str, content: bytes) -> Encoded:
    """Return what `embedding_bytes` was given. Raises ValueError for anything else, and for a wrong bit."""
    try:
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        digest, _, body = header["__metadata__"][METADATA].partition(" ")
        tensors = safetensors.torch.load(content)
        said = parse_json(body)
        is_whole = digest == _sha256(body) and said["key"] == key
        if is_whole and all(digest_of(tensor).hex() == name for name, tensor in tensors.items()):
            leaves, structure = [_leaf(note, tensors) for note in said["leaves"]], _structure(said["nesting"])
            unflatten(structure, leaves)  # fails here, and not where a row waits for it
            return leaves, structure
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, SafetensorError) as error:
        raise ValueError(f"it is not an entry: {error}") from error
    raise ValueError("its bytes are not those that were written")


def name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if kind not in PLAIN.values() else kind.__name__


def _noted(leaf: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a leaf as JSON, its values in `tensors` if it is a tensor."""
    if leaf is UNKEPT:
        return {"unkept": True}
    if not isinstance(leaf, Tensor):
        return leaf
    own = leaf.cpu().clone()  # safetensors refuses tensors that share memory, as slices of one state do
    name = digest_of(own).hex()
    tensors[name] = own.contiguous()
    return {"tensor": name, "strides": list(own.stride())}


def _leaf(note: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(note, dict):
        return note
    if "unkept" in note:
        return UNKEPT
    found = tensors[note["tensor"]]
    # In the strides it had: what comes next might round differently in others.
    strides = note["strides"]
    last = sum((size - 1) * stride for size, stride in zip(found.shape, strides, strict=True))
    if found.numel() and not (all(stride >= 0 for stride in strides) and last < found.numel()):
        raise ValueError(f"a tensor of {tuple(found.shape)} has no strides {strides}")
    own = torch.empty_strided(found.shape, strides, dtype=found.dtype)
    return own.copy_(found)


def _spelled_structure(structure: Any) -> Any:
    if structure is None:
        return None
    kind, keys, parts = structure
    name = name_of(kind)
    if _class(name) is not kind or not all(isinstance(key, str) for key in keys or ()):
        raise ValueError(f"{name} is not an output class")
    return [name, None if keys is None else list(keys), [_spelled_structure(part) for part in parts]]


def _structure(nesting: Any) -> Hashable:
    if nesting is None:
        return None
    name, keys, parts = nesting
    kind = _class(name)
    if kind is None:
        raise ValueError(f"no class {name} is loaded here")
    return (kind, None if keys is None else tuple(keys), tuple(_structure(part) for part in parts))


def _class(name: str) -> type | None:
    """Return the container or output class of that name. Imports nothing: files must not choose what runs."""
    if name in PLAIN:
        return PLAIN[name]
    module, _, own_name = name.rpartition(".")
    is_theirs = module.partition(".")[0] in LIBRARIES and module in sys.modules
    found = vars(sys.modules[module]).get(own_name) if is_theirs else None
    return found if isinstance(found, type) and issubclass(found, ModelOutput | BaseOutput) else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
