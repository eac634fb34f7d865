"""Which of a file's weights each weight of a converted LoRA is made of.

diffusers' converters rename, split, join and scale weights, and drop some without a word. New names do not
show which, so the tensors carry the names that they come from through whatever is computed with them. One of
which a number is read, like an `alpha` that others are multiplied by, counts as used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_READ = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__)
_LIKE = (torch.zeros_like, torch.ones_like, torch.empty_like)  # which take a shape and no value


class Sourced(Tensor):
    """A tensor that knows the names of the weights that it is made of."""

    names: frozenset[str]
    read: set[str]

    @classmethod
    def of(cls, name: str, tensor: Tensor, read: set[str]) -> Sourced:
        """read: where names are noted of which a number is read."""
        return _named(tensor.as_subclass(cls), frozenset([name]), read)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Sourced)]
        names = frozenset[str]()
        if function not in _LIKE:
            names = names.union(*(getattr(source, "names", ()) for source in sources))
        read = next((source.read for source in sources if hasattr(source, "read")), set[str]())
        if function in _READ:
            read |= names
        # what is changed in place is the first argument, which some calls do not return
        for leaf in tree_leaves((result, args[:1] if function is Tensor.__setitem__ else ())):
            if isinstance(leaf, Sourced):
                _named(leaf, names, read)
        return result


def _named(tensor: Sourced, names: frozenset[str], read: set[str]) -> Sourced:
    tensor.names, tensor.read = names, read
    return tensor


def sources_of(weights: Iterable[Any]) -> set[str]:
    """Return the names that these are made of."""
    return {name for weight in weights if isinstance(weight, Sourced) for name in weight.names}
