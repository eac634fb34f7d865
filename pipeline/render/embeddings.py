"""What text encoders returned, kept in the output: `embeddings/ab/<sha256>.safetensors`, named by the call.

An entry is written once, in the background, and replaced only where it turns out to be wrong. One that cannot
be written or read, or not in time, costs an encode and nothing else.

Classes go by name, and only those of libraries that are imported: files must not choose what runs. Bytes that
are not whole, or not of the call that is asked for, are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
from collections import deque
from collections.abc import Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from diffusers.utils import BaseOutput
from torch import Tensor
from transformers.utils import ModelOutput

from framefleet.pipeline.errors import StoreConflict, StoreError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.hooks.tree import unflatten
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.parts import CHECKPOINT
from framefleet.pipeline.outputs.stores.retries import Soon
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.fused.concatenation import Layout
from framefleet.pipeline.render.tensor_file import add_tensor, read_tensor_file, tensor_file

log = logging.getLogger(__name__)

# What of `environment` decides an encoder's bits. The rest (PyAV, framefleet itself, ...) does not.
_DECISIVE = (
    *("torch", "transformers", "device", "dtype", "threads", "cpu"),
    *("gpu", "compute_capability", "cuda", "cudnn", "tf32", "matmul"),
)
# Entries of earlier versions may come from encoders that a recipe had changed for its call.
_ENTRIES = "of untouched encoders"
# Of an entry. The largest have all states of a language model: 49 of 1,024 tokens take 0.4 GB.
_MAX_BYTES = 1 << 30
# Of outputs that wait to be written: those of a slow store must not fill the GPU.
MAX_WAITING_BYTES = 256 * 2**20


class Embeddings:
    """The entries of one output, for one model. `find` and `keep` are for one thread.

    call: the place (the encoder's name, then its LoRAs), then all that was passed: types, tensors by digest,
    values. Keyed by the encoder's own files, not the model's: models that share an encoder may share entries.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        numerics: Mapping[str, Any],
        spending: Spending = contextlib.nullcontext,
    ) -> None:
        """numerics: of the job; quantised weights, for one, return other bits."""
        self._store = store
        self._device = model.environment["device"]
        environment = {name: model.environment.get(name) for name in _DECISIVE}
        environment["entries"] = _ENTRIES
        self._contexts = {}
        for name in model.text_encoders():
            # In its folder, and in place of its weights.
            places = (f"{name}/", f"{name}.", f"{CHECKPOINT}.")
            files = {file: sha256 for file, sha256 in model.digests.items() if file.startswith(places)}
            assert files, f"{name} has no files"
            digest = model_digest(files)
            self._contexts[name] = {"files": digest, "numerics": numerics, "environment": environment}
        self._soon = Soon("embeddings-read", spending)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="embeddings")
        self._waiting: deque[tuple[Future[None], int]] = deque()

    def find(self, call: tuple[Hashable, ...]) -> Encoded | None:
        """Return the output of a call, on the model's device; None if it is not kept, unusable, or late."""
        entry = self._soon.ask(partial(self._read, self._key(call)))
        if entry is None:
            return None
        leaves, structure = entry
        return [leaf.to(self._device) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure

    def keep(self, call: tuple[Hashable, ...], output: Encoded, *, is_instead: bool = False) -> None:
        """Write an output soon, maybe in place of a wrong one."""
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()[0].result()
        if sum(size for _, size in self._waiting) < MAX_WAITING_BYTES:
            size = sum(leaf.nbytes for leaf in output[0] if isinstance(leaf, Tensor))
            writing = self._writer.submit(self._write, call, output, is_instead=is_instead)
            self._waiting.append((writing, size))

    def _write(self, call: tuple[Hashable, ...], output: Encoded, *, is_instead: bool) -> None:
        key = self._key(call)
        try:
            content = embedding_bytes(key, output)
            if content is None or len(content) > _MAX_BYTES:
                return
            if is_instead:
                log.warning("%s differs from a new encoding; replaced", self._store.url_of(_path(key)))
                self._store.delete(_path(key))
            with contextlib.suppress(StoreConflict):  # another worker was first, with an entry as good
                self._store.create(_path(key), content)
        except StoreError as error:
            log.warning("not kept: %s", error.problem)
        except (MemoryError, RuntimeError) as error:  # no memory for it, or a broken GPU: not the next row's
            log.warning("not kept: %s", error)

    def _read(self, key: str) -> Encoded | None:
        try:
            return from_bytes(key, self._store.read(_path(key), _MAX_BYTES))
        except FileNotFoundError:
            return None
        except StoreError as error:
            log.warning("encoded again: %s", error.problem)
            return None
        except ValueError as error:
            log.warning("%s is encoded again: %s", self._store.url_of(_path(key)), error)
            with contextlib.suppress(StoreError):  # it can be read, but not removed
                self._store.delete(_path(key))
            return None

    def _key(self, call: tuple[Hashable, ...]) -> str:
        (encoder, *_), *_ = cast("Any", call)
        content = canonical_json({"call": _spelled(call), "encoder": self._contexts[encoder]})
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _path(key: str) -> str:
    return f"embeddings/{key[:2]}/{key}.safetensors"


def _spelled(value: Any) -> Any:
    """Return a call as JSON, in which 1, 1.0, True and "1" differ."""
    if isinstance(value, tuple):
        return [_spelled(part) for part in value]
    if isinstance(value, type):
        return name_of(value)
    return value.hex() if isinstance(value, bytes) else repr(value)


Encoded = tuple[list[Any], Hashable]  # leaves and structure, as `flatten` returns them

PLAIN: dict[str, type] = {"tuple": tuple, "list": list, "dict": dict}
LIBRARIES = ("transformers", "diffusers")


def embedding_bytes(key: str, output: Encoded) -> bytes | None:
    """Return the file that holds `output` under `key`; None if a file cannot hold it."""
    leaves, structure = output
    tensors: dict[str, Tensor] = {}
    try:
        notes, nesting = [_noted(leaf, tensors) for leaf in leaves], _spelled_structure(structure)
        return tensor_file({"key": key, "leaves": notes, "nesting": nesting}, tensors)
    except ValueError:  # a class that is not rebuilt, or a NaN outside of tensors
        return None


def from_bytes(key: str, content: bytes) -> Encoded:
    """Return what `embedding_bytes` was given. Raises ValueError for anything else, and for a wrong bit."""
    try:
        entry, tensors = read_tensor_file(content)
        if entry["key"] != key:
            raise ValueError("it belongs to another call")
        leaves = [_leaf(note, tensors) for note in entry["leaves"]]
        structure = _structure(entry["nesting"])
        unflatten(structure, leaves)  # fails here, and not where a row waits for it
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise ValueError(f"it is not an entry: {error}") from error
    return leaves, structure


def name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if kind not in PLAIN.values() else kind.__name__


def _noted(leaf: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a leaf as JSON, its values in `tensors` if it is a tensor."""
    if not isinstance(leaf, Tensor):
        return leaf
    own = leaf.cpu().clone()  # safetensors refuses tensors that share memory, as slices of one state do
    return {"tensor": add_tensor(tensors, own), "strides": list(own.stride())}


def _leaf(note: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(note, dict):
        return note
    tensor = tensors[note["tensor"]]
    # In the strides it had: what comes next might round differently in others.
    strides, dense = note["strides"], 1
    for stride, size in sorted(zip(strides, tensor.shape, strict=True)):
        if tensor.numel() and size > 1 and stride != dense:  # values would share memory
            raise ValueError(f"a tensor of {tuple(tensor.shape)} has no strides {strides}")
        dense *= max(size, 1)
    return Layout(tuple(tensor.shape), tuple(strides)).copy_of(tensor)


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
    kind = vars(sys.modules[module]).get(own_name) if is_theirs else None
    return kind if isinstance(kind, type) and issubclass(kind, ModelOutput | BaseOutput) else None
