"""A loaded pipeline in, copies of it out: the same networks, but separate schedulers, guiders and attributes.

Everything is copied except networks, configs, tokenizers, processors, Python modules, loggers, and objects
that cannot be copied. Not covered: state inside of networks and classes.
"""

from __future__ import annotations

import copy
import gc
import logging
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from framefleet.pipeline.memory import is_out_of_memory

log = logging.getLogger(__name__)

# Types whose values `copy` returns unchanged.
_CODE = (type, types.FunctionType, types.BuiltinFunctionType)
_CONSTANT = (nn.Module, nn.Parameter, FrozenDict, types.ModuleType, logging.Logger)


class OwnPipelines:
    """Makes copies of one pipeline, or of one part. The first finds out what copies share; others take a
    fraction of a millisecond."""

    def __init__(self, pipe: Any, *, tells: bool = True, shares_tools: bool = True) -> None:
        """tells: log a warning about what cannot be copied. shares_tools: share tokenizers and processors:
        each call sets what it needs of them, and copying a fast tokenizer takes milliseconds."""
        from transformers import FeatureExtractionMixin, ImageProcessingMixin, ProcessorMixin
        from transformers.tokenization_utils_base import PreTrainedTokenizerBase

        self._pipe = pipe
        tools = (PreTrainedTokenizerBase, ProcessorMixin, FeatureExtractionMixin, ImageProcessingMixin)
        self._constant = (*_CONSTANT, *tools) if shares_tools else _CONSTANT
        self._level = logging.WARNING if tells else logging.DEBUG

    @cached_property
    def _shared(self) -> list[Any]:
        """What copies share: all objects of constant types in the pipeline, and the networks' weights."""
        objects = list(_objects_in(self._pipe, self._constant))
        networks = [value for value in objects if isinstance(value, nn.Module)]
        weights = {id(tensor) for net in networks for tensor in (*net.parameters(), *net.buffers())}
        return [value for value in objects if isinstance(value, self._constant) or id(value) in weights]

    def make(self, **components: Any) -> Any:
        """Return a copy; shared objects are the same in every place of the copy.

        components: replacements for the pipeline's own, wherever it refers to those.
        """
        try:
            return self._copy(components)
        except Exception as error:  # a class that is not meant to be copied may raise anything
            if is_out_of_memory(error):
                raise
            objects = _objects_in(self._pipe, self._constant)
            mutable = (value for value in objects if not isinstance(value, self._constant))
            stuck = [value for value in mutable if not _can_reduce(value)]
            stuck += [v for v in vars(self._pipe).values() if not _can_copy(v, [*self._shared, *stuck])]
            kinds = ", ".join(sorted({type(value).__qualname__ for value in stuck}))
            message = "%s has objects that cannot be copied, so rows share them: %s"
            log.log(self._level, message, type(self._pipe).__name__, kinds)
            self._shared.extend(stuck)
        return self._copy(components)

    def _copy(self, components: Mapping[str, Any]) -> Any:
        kind: Any = type(self._pipe)
        own = kind.__new__(kind)
        instead = {id(getattr(self._pipe, name)): component for name, component in components.items()}
        memo = {id(value): value for value in self._shared} | {id(self._pipe): own} | instead
        vars(own).update(copy.deepcopy(vars(self._pipe), memo))
        for name, component in components.items():
            setattr(own, name, component)  # the pipeline stores its class
        return own


def own_settings(pipe: Any) -> dict[str, Any]:
    """Return copies of tokenizers by name, because calls of LTX-2 and Sana change their padding side."""
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    copies = {}
    for name, part in pipe.components.items():
        if isinstance(part, PreTrainedTokenizerBase):
            copies[name] = object.__new__(type(part))
            vars(copies[name]).update(vars(part))
    return copies


def _objects_in(pipe: Any, constant: tuple[type, ...]) -> Iterator[Any]:
    """Yield all objects in a pipeline, recursively, down to networks and constants."""
    seen, waiting = {id(pipe)}, list(vars(pipe).values())
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _CODE):
            continue
        seen.add(id(value))
        yield value
        if not isinstance(value, constant):
            waiting += gc.get_referents(value)


def _can_copy(value: Any, shared: Iterable[Any]) -> bool:
    try:
        copy.deepcopy(value, {id(constant): constant for constant in shared})
    except Exception as error:  # a class that is not meant to be copied may raise anything
        if is_out_of_memory(error):
            raise
        return False
    return True


def _can_reduce(value: Any) -> bool:
    """Return whether `copy` can take an object apart, even if it cannot copy the parts."""
    if isinstance(value, Tensor):
        return value.is_leaf  # torch cannot copy tensors that were computed with gradients
    try:
        value.__reduce_ex__(4)
    except Exception:  # TypeError for locks, files and the like; C++ classes raise others
        return False
    return True
