"""What a loaded model was before any row: what calls change in it, or in the code that it runs, is undone.

Of networks: their modules, hooks and weights. Identities and version counters show it in a fraction of a
millisecond, so every row is looked at. Changes through `weight.data` move no counter. They show in sums of
the weights' bits, which take as long as reading the weights once. Of all parts: the code of their classes
(`code_marks.py`), torch's modes (`torch_modes.py`), and the words that tokenizers know.

Not covered: attributes and buffers of networks, which `network_state.py` compares, and what the user's own
modules hold, which is compared in `render/process_state.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.hooks.intercept import own_method
from framefleet.pipeline.model.code_marks import CodeMarks
from framefleet.pipeline.model.own_pipeline import is_tokenizer
from framefleet.pipeline.model.torch_modes import TorchModes

# Libraries put hooks on their own networks in a first forward (transformers, to record what layers return).
_LIBRARIES = ("transformers.", "diffusers.", "accelerate.", "torch.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Pristine:
    """A pipeline's parts as they were when this was made."""

    def __init__(
        self,
        pipe: Any,
        networks: Mapping[str, nn.Module],
        *,
        switched: Collection[nn.Module] = (),
        moving: Collection[str] = (),
    ) -> None:
        """switched: LoRA layers, whose adapters are set for each row. moving: networks whose weights are
        swapped or moved in between, so that only their modules and hooks are compared.
        """
        adapters = {part for layer in switched for part in layer.modules()}
        self._networks = {
            name: _Network(name, network, adapters, is_moving=name in moving)
            for name, network in networks.items()
        }
        parts = [type(part) for part in pipe.components.values()]
        inner = [type(module) for network in networks.values() for module in network.modules()]
        self._code = CodeMarks({type(pipe), *parts, *inner})
        self._tools = {name: part for name, part in pipe.components.items() if is_tokenizer(part)}
        self._words = {name: _words_of(part) for name, part in self._tools.items()}
        self._modes = TorchModes()

    def sum_weights(self) -> None:
        """Note sums of all weights, once, before a row may change them: values are compared with these."""
        for network in self._networks.values():
            network.sum_weights()

    def difference(self, *, values: bool = False, expected: Collection[str] = ()) -> str | None:
        """Return what differs, in words, or None. values: sums of weights too. expected: what may differ."""
        return next((what for what in self.differences(values=values) if what not in expected), None)

    def is_untouched(self, name: str, *, values: bool) -> bool:
        """Whether one network, and all code, are as they were."""
        network = self._networks.get(name)
        if network is None or next(network.differences(values=values), None):
            return False
        return not any(self._code.differences())

    def restore(self, *, twins: Any, values: bool = False) -> list[str]:
        """Put back what differs; return networks whose weights hold other values, which is not undone here.

        twins: holds a copy of each tokenizer, by its name, as it was.
        """
        changed = [name for name, network in self._networks.items() if network.restore(values=values)]
        self._code.restore()
        self._modes.restore()
        for name, tool in self._tools.items():
            if _words_of(tool) != self._words[name]:
                vars(tool).clear()
                vars(tool).update(copy.deepcopy(vars(getattr(twins, name))))
        return changed

    def settle(self, name: str) -> None:
        """The weights of a network hold again what they held."""
        self._networks[name].settle()

    def differences(self, *, values: bool = False) -> Iterator[str]:
        """Yield all that differs, in words."""
        for network in self._networks.values():
            yield from network.differences(values=values)
        yield from self._modes.differences()  # one of which is a function of torch's, too
        yield from self._code.differences()
        for name, tool in self._tools.items():
            if _words_of(tool) != self._words[name]:
                yield f"the words of {name}"


class _Network:
    """One network: its modules with all that they register, and the marks of its weights."""

    def __init__(
        self, name: str, network: nn.Module, adapters: Collection[nn.Module], *, is_moving: bool
    ) -> None:
        self._name, self._network, self._is_moving = name, network, is_moving
        self._methods = _own_methods(network)
        self._modules = [
            _Module(".".join(filter(None, (name, path))), part) for path, part in network.named_modules()
        ]
        own = [(path, module) for path, module in network.named_modules() if module not in adapters]
        weights = [(f"{name}.{path}", weight) for path, weight in network.named_parameters()]
        self._names = [path for path, _ in weights]
        self._weights = [weight for _, weight in weights]
        self._graded = [weight for _, module in own for weight in module.parameters(recurse=False)]
        self._grades = [weight.requires_grad for weight in self._graded]
        self._marks = self._now()
        self._sums: list[int] | None = None

    def differences(self, *, values: bool) -> Iterator[str]:
        if (methods := _own_methods(self._network)) != self._methods:
            changed = {name for name, _ in methods.items() ^ self._methods.items()}
            yield from (f"{self._name}.{name}" for name in changed)
        for module in self._modules:
            if module.has_moved():
                yield from module.differences()
        if self._is_moving:
            return
        if self._now() != self._marks:
            pairs = zip(self._names, self._marks, self._now(), strict=True)
            yield from (f"the weight {name}" for name, then, now in pairs if then != now)
        if [weight.requires_grad for weight in self._graded] != self._grades:
            yield f"whether weights of {self._names[0]} and others want gradients"
        if values:
            yield from (f"the values of {name}" for name in self._revalued())

    def restore(self, *, values: bool) -> bool:
        """Put back what is known of; return whether weights hold other values."""
        for name in _own_methods(self._network).keys() - self._methods.keys():
            del vars(self._network)[name]
        vars(self._network).update(self._methods)
        for module in self._modules:
            module.restore()
        if self._is_moving:
            return False
        for weight, grade in zip(self._graded, self._grades, strict=True):
            weight.requires_grad_(grade)
        has_moved = self._now() != self._marks
        if self._sums is None or not (has_moved or values):
            return has_moved
        is_changed = any(self._revalued())
        if not is_changed:  # changed and changed back
            self.settle()
        return is_changed

    def settle(self) -> None:
        self._marks = self._now()

    def sum_weights(self) -> None:
        if self._sums is None and not self._is_moving:
            self._sums = _sums_of(self._weights)

    def _now(self) -> list[int]:
        return [-1 if weight.is_inference() else weight._version for weight in self._weights]

    def _revalued(self) -> Iterator[str]:
        """Yield the weights whose values differ from those that were summed."""
        if self._sums is not None:
            sums = zip(self._names, self._sums, _sums_of(self._weights), strict=True)
            yield from (name for name, then, now in sums if then != now)


class _Module:
    """What one module consists of, besides the values of its weights."""

    __slots__ = (
        *("_forward", "_held", "_hooks", "_inner", "_kind", "_module", "_name", "_parts", "_training"),
        "_weights",
    )

    def __init__(self, name: str, module: nn.Module) -> None:
        self._name, self._module, self._held = name, module, vars(module)
        self._kind, self._training = type(module), module.training
        self._forward = own_method(module)
        self._parts = {key: dict(self._held[key]) for key in ("_modules", "_parameters")}
        self._inner = [*self._held["_modules"].values()]
        self._weights = [*map(id, self._held["_parameters"].values())]
        self._hooks = {key: dict(self._held[key]) for key in _HOOKS}

    def has_moved(self) -> bool:
        """Whether something may differ, which is seen fast: there are hundreds of modules."""
        held = self._held
        return (
            type(self._module) is not self._kind
            or held["training"] is not self._training
            or held.get("forward") is not self._forward
            or [*held["_modules"].values()] != self._inner
            or [*map(id, held["_parameters"].values())] != self._weights
            or bool(held["_forward_hooks"])
            or bool(held["_forward_pre_hooks"])
        )

    def differences(self) -> Iterator[str]:
        held = self._held
        if type(self._module) is not self._kind or held["training"] is not self._training:
            yield f"the class or mode of {self._name}"
        if own_method(self._module) is not self._forward:
            yield f"the forward of {self._name}"
        for key, parts in self._parts.items():
            if not _is_same(held[key], parts):
                changed = (
                    name for name in {**parts, **held[key]} if held[key].get(name) is not parts.get(name)
                )
                yield f"{self._name}.{next(changed, key)}"
        for key, hooks in self._hooks.items():
            if any(_is_foreign(hook) and hook not in hooks.values() for hook in held[key].values()):
                yield f"the hooks of {self._name}"

    def restore(self) -> None:
        module, held = self._module, self._held
        module.__class__, module.training = self._kind, self._training
        if own_method(module) is not self._forward:
            held.pop("forward", None)
            if self._forward is not None:
                held["forward"] = self._forward
        for key, parts in self._parts.items():
            known = held[key]
            if not _is_same(known, parts):
                for name in [*parts, *known]:
                    held.pop(name, None)  # an attribute that was put in its place
                known.clear()
                known.update(parts)
        for key, hooks in self._hooks.items():
            for handle in [handle for handle, hook in held[key].items() if _is_foreign(hook)]:
                if handle not in hooks:
                    del held[key][handle]


def _own_methods(network: nn.Module) -> dict[str, Any]:
    """Return the methods that stand on a network itself in place of its class's, but for our own."""
    kind = type(network)
    names = [
        name for name, held in vars(network).items() if callable(held) and callable(getattr(kind, name, None))
    ]
    found = {name: own_method(network, name) for name in names if name != "forward"}
    return {name: method for name, method in found.items() if method is not None}


def _is_same(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    return len(now) == len(then) and all(
        mine is theirs for mine, theirs in zip(now.values(), then.values(), strict=True)
    )


def _is_foreign(hook: Callable[..., Any]) -> bool:
    """Whether a hook is none of the libraries' own."""
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return not f"{module}.".startswith(_LIBRARIES)


def _words_of(tool: Any) -> tuple[Any, ...]:
    """Return what a tokenizer knows, and how it cuts and fills up texts."""
    return len(tool), tool.model_max_length, tool.padding_side, tool.truncation_side


def _sums_of(weights: Sequence[Tensor]) -> list[int]:
    """Return for each tensor a sum of its bits, taken as whole numbers; 0 for what holds none."""
    found = [_sum_of(weight) for weight in weights]
    if not found:
        return []
    sums: list[int] = torch.stack([one.to(found[0].device) for one in found]).tolist()
    return sums


def _sum_of(weight: Tensor) -> Tensor:
    if weight.is_meta or type(weight) not in (Tensor, nn.Parameter):
        return torch.zeros((), dtype=torch.int64)
    return weight.detach().contiguous().view(_INTEGERS[weight.element_size()]).sum(dtype=torch.int64)
