"""Remember what a text encoder returned: a thousand seeds of one prompt encode it once.

Keyed by all tensors and values of the call. The caller makes sure that the encoder is as it was loaded.
Bounded by bytes; the entry that was not asked for longest goes. `Embeddings` remembers it beyond the process.
What is found there is encoded again and compared, until one entry of the encoder was right. A call that takes
or returns anything else, such as a cache of keys and values, is not remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.render.encoders.embeddings import Embeddings, Encoded
from framefleet.pipeline.render.fused.calls import digest_of, is_private
from framefleet.pipeline.render.fused.cross_check import are_equal

# 64 prompts of a 4,096-wide encoder at 512 tokens in bf16.
_MAX_BYTES = 256 * 2**20


class Memo:
    """Put around an encoder's `forward` by `intercept`."""

    def __init__(self, kept: Embeddings | None = None, *, max_bytes: int = _MAX_BYTES) -> None:
        self._kept = kept
        self._max_bytes = max_bytes
        self._known: OrderedDict[Hashable, tuple[list[Any], Hashable, int]] = OrderedDict()
        self._bytes = 0
        self._proven: set[Hashable] = (
            set()
        )  # places whose entries of other runs are right, as one of them was

    def __call__(self, place: Hashable, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """place: what is called, by name and weights; `Embeddings` wants (encoder, LoRAs ...)."""
        given, nesting = flatten((args, kwargs))
        if is_private() or not _are_values(given):
            return forward(*args, **kwargs)
        key = (place, nesting, tuple(digest_of(v) if isinstance(v, Tensor) else (type(v), v) for v in given))
        found = self._kept.find(key) if self._kept and key not in self._known else None
        if found is not None and place in self._proven:
            self._remember(key, *found)
        elif key not in self._known:
            output = forward(*args, **kwargs)
            leaves, structure = flatten(output)
            if not _are_values(leaves):
                return output
            self._remember(key, leaves, structure)
            if self._kept:
                self._keep(key, (leaves, structure), found)
        self._known.move_to_end(key)
        leaves, structure, _ = self._known[key]
        self._forget()
        return unflatten(structure, [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves])

    def _keep(self, key: tuple[Hashable, ...], output: Encoded, found: Encoded | None) -> None:
        """Have what was encoded written. found: what was kept of the same call, by another run."""
        assert self._kept is not None
        is_equal = found is not None and found[1] == output[1] and are_equal(found[0], output[0])
        if is_equal:
            self._proven.add(key[0])
        else:
            self._kept.keep(key, output, is_instead=found is not None)

    def _remember(self, key: Hashable, leaves: list[Any], structure: Hashable) -> None:
        size = sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
        self._known[key] = (leaves, structure, size)
        self._bytes += size

    def _forget(self) -> None:
        while self._bytes > self._max_bytes:
            _, (_, _, size) = self._known.popitem(last=False)
            self._bytes -= size


def _are_values(leaves: list[Any]) -> bool:
    """Whether nothing among them has a state of its own."""
    return all(leaf is None or isinstance(leaf, Tensor | bool | int | float | str) for leaf in leaves)
