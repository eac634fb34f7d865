"""What text encoders returned, kept in the output: `embeddings/ab/<sha256>.safetensors`, named by the call.

An entry is written once, in the background, and replaced only where it turns out to be wrong. One that is not
written, or not read in time, since the store is slow or the process ends, costs an encode and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from torch import Tensor

from framefleet.pipeline.errors import StoreConflict, StoreError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.stores.deadline import Soon
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.encoders.embedding_file import Encoded, embedding_bytes, from_bytes, name_of

log = logging.getLogger(__name__)

# What of `environment` decides an encoder's bits. The rest (PyAV, framefleet itself, ...) does not.
_DECISIVE = (
    *("torch", "transformers", "device", "dtype", "threads", "cpu"),
    *("gpu", "compute_capability", "cuda", "cudnn", "tf32", "matmul"),
)
# Entries of earlier versions may come from encoders that a recipe had changed for its call.
_ENTRIES = "of untouched encoders"
# Of outputs that wait to be written: those of a slow store must not fill the GPU.
MAX_WAITING_BYTES = 256 * 2**20


class Embeddings:
    """The entries of one output, for one model. `find` and `keep` are for one thread.

    Keyed by the encoder's own files, not the model's: models that share an encoder may share entries.
    """

    def __init__(self, store: Store, model: Model, numerics: Mapping[str, Any]) -> None:
        """numerics: of the job; quantised weights, for one, return other bits."""
        self._store = store
        self._device = model.environment["device"]
        environment = {name: model.environment.get(name) for name in _DECISIVE}
        environment["entries"] = _ENTRIES
        self._contexts = {
            name: {"files": _files_digest(name, model), "numerics": numerics, "environment": environment}
            for name in model.text_encoders()
        }
        self._soon = Soon("embeddings-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="embeddings")
        self._waiting: deque[tuple[Future[None], int]] = deque()

    def find(self, call: tuple[Hashable, ...]) -> Encoded | None:
        """Return the output of a call, on the model's device; None where it is not kept, damaged, or late.

        call: the place (the encoder's name, then its LoRAs), then all that was passed: types, tensors by
        digest, values.
        """
        found = self._soon.ask(partial(self._read, self._key(call)))
        if found is None:
            return None
        leaves, structure = found
        return [leaf.to(self._device) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure

    def _read(self, key: str) -> Encoded | None:
        try:
            return from_bytes(key, self._store.read(_path(key)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s is encoded again: %s", self._store.url_of(_path(key)), error)
            self._store.delete(_path(key))
            return None

    def keep(self, call: tuple[Hashable, ...], output: Encoded, *, is_instead: bool = False) -> None:
        """Have an output written, soon. Raises StoreError when an earlier one could not be.

        is_instead: in place of an entry that is wrong.
        """
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()[0].result()
        if sum(size for _, size in self._waiting) < MAX_WAITING_BYTES:
            size = sum(leaf.nbytes for leaf in output[0] if isinstance(leaf, Tensor))
            writing = self._writer.submit(self._write, self._key(call), output, is_instead=is_instead)
            self._waiting.append((writing, size))

    def _write(self, key: str, output: Encoded, *, is_instead: bool) -> None:
        content = embedding_bytes(key, output)
        if content is None:
            return
        try:
            if is_instead:
                log.warning("%s was not what is encoded now: it is replaced", self._store.url_of(_path(key)))
                self._store.delete(_path(key))
            with contextlib.suppress(StoreConflict):  # another worker was first, with an entry as good
                self._store.create(_path(key), content)
        except StoreError as error:
            log.warning("not kept: %s", error.problem)  # there may be no later `keep` to raise it
            raise

    def _key(self, call: tuple[Hashable, ...]) -> str:
        place = call[0]
        assert isinstance(place, tuple)
        content = canonical_json({"call": _spelled(call), "encoder": self._contexts[place[0]]})
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _path(key: str) -> str:
    return f"embeddings/{key[:2]}/{key}.safetensors"


def _files_digest(encoder: str, model: Model) -> str:
    own = {file: sha256 for file, sha256 in model.digests.items() if file.startswith(f"{encoder}/")}
    assert own, f"{encoder} has no files"
    return model_digest(own)


def _spelled(value: Any) -> Any:
    """Return what a call consists of as JSON, in which 1, 1.0, True and "1" differ."""
    if isinstance(value, tuple):
        return [_spelled(part) for part in value]
    if isinstance(value, type):
        return name_of(value)
    return value.hex() if isinstance(value, bytes) else repr(value)
