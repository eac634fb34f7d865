"""A loaded pipeline in, copies of it out: the same networks, with schedulers, guiders and notes of their own.

All is copied but networks, configs, tokenizers, processors, modules of Python and loggers, and what cannot be
copied. Not covered: what networks keep in themselves, and classes in themselves.
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

# What `copy` returns as it is.
_CODE = (type, types.FunctionType, types.BuiltinFunctionType)
_CONSTANT = (nn.Module, nn.Parameter, FrozenDict, types.ModuleType, logging.Logger)


class OwnPipelines:
    """Copies of one pipeline, or of one part. What they share is found with the first: another takes a
    fraction of a millisecond."""

    def __init__(self, pipe: Any, *, tells: bool = True, shares_tools: bool = True) -> None:
        """tells: in the log, what cannot be copied. shares_tools: tokenizers and processors, as calls set all
        that they go by, and to copy a fast tokenizer takes milliseconds."""
        from transformers import FeatureExtractionMixin, ImageProcessingMixin, ProcessorMixin
        from transformers.tokenization_utils_base import PreTrainedTokenizerBase

        self._pipe = pipe
        tools = (PreTrainedTokenizerBase, ProcessorMixin, FeatureExtractionMixin, ImageProcessingMixin)
        self._constant = (*_CONSTANT, *tools) if shares_tools else _CONSTANT
        self._level = logging.WARNING if tells else logging.DEBUG

    @cached_property
    def _shared(self) -> list[Any]:
        """What copies share: all that the pipeline holds of constant types, and weights of networks."""
        objects = list(_objects_in(self._pipe, self._constant))
        networks = [value for value in objects if isinstance(value, nn.Module)]
        weights = {id(tensor) for net in networks for tensor in (*net.parameters(), *net.buffers())}
        return [value for value in objects if isinstance(value, self._constant) or id(value) in weights]

    def make(self, **components: Any) -> Any:
        """Return a copy; what is shared stands for itself wherever a copy holds it.

        components: that stand in place of the pipeline's own, wherever it holds those.
        """
        try:
            return self._copy(components)
        except Exception as error:  # whatever a class raises that is not meant to be copied
            if is_out_of_memory(error):
                raise
            objects = _objects_in(self._pipe, self._constant)
            mutable = (value for value in objects if not isinstance(value, self._constant))
            stuck = [value for value in mutable if not _can_reduce(value)]
            stuck += [v for v in vars(self._pipe).values() if not _can_copy(v, [*self._shared, *stuck])]
            kinds = ", ".join(sorted({type(value).__qualname__ for value in stuck}))
            message = "%s holds what cannot be copied, so that rows share it: %s"
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
            setattr(own, name, component)  # the pipeline notes its class
        return own


def own_settings(pipe: Any) -> dict[str, Any]:
    """Return copies of tokenizers by name: calls of LTX-2 and Sana change the side of their padding."""
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    copies = {}
    for name, part in pipe.components.items():
        if isinstance(part, PreTrainedTokenizerBase):
            copies[name] = object.__new__(type(part))
            vars(copies[name]).update(vars(part))
    return copies


def _objects_in(pipe: Any, constant: tuple[type, ...]) -> Iterator[Any]:
    """Yield all that a pipeline holds, in its objects and theirs, down to networks and constants."""
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
        copy.deepcopy(value, {id(one): one for one in shared})
    except Exception as error:  # whatever a class raises that is not meant to be copied
        if is_out_of_memory(error):
            raise
        return False
    return True


def _can_reduce(value: Any) -> bool:
    """Whether `copy` can take one object apart, whatever becomes of its parts."""
    if isinstance(value, Tensor):
        return value.is_leaf  # torch copies no tensor that was computed with gradients on
    try:
        value.__reduce_ex__(4)
    except Exception:  # TypeError for locks, files and the like; classes of C++ raise others
        return False
    return True
