"""A model as it was loaded, and what its calls have changed since: found when a row ends, and put back.

Modules, hooks and methods, by their identities: this takes a fraction of a millisecond, so every row of
framefleet's recipes is looked at. Not covered: values of weights, and attributes and buffers, which
`network_state.py` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

from torch import nn

from framefleet.pipeline.hooks.intercept import own_method
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.network_state import NetworkState
from framefleet.pipeline.model.own_pipeline import OwnPipelines

# Libraries put hooks on their own networks in a first forward (transformers, to record what layers return).
_LIBRARIES = ("transformers.", "diffusers.", "accelerate.", "torch.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Loaded:
    """What calls may change of a model, as it was before any of them. Takes some 50 ms to note."""

    def __init__(self, model: Model, states: Mapping[str, NetworkState]) -> None:
        """states: of networks, as far as they were noted; by their names."""
        self._pipe = OwnPipelines(model.pipe, tells=False, shares_tools=False).make()
        self._networks = networks = model.networks()
        self._states = [states.get(name) or NetworkState(network) for name, network in networks.items()]
        self._methods = {name: _own_methods(network) for name, network in networks.items()}
        self._modules = {
            name: [_Module(f"{name}.{path}".rstrip("."), part) for path, part in network.named_modules()]
            for name, network in networks.items()
        }

    def difference(self, *, expected: Collection[str] = ()) -> str | None:
        """Return what differs, in words, or None. expected: what may differ."""
        return next((what for what in self.differences() if what not in expected), None)

    def differences(self) -> Iterator[str]:
        """Yield all that differs, in words."""
        for name in self._networks:
            yield from self._differences_of(name)

    def is_untouched(self, name: str) -> bool:
        """Whether a network is as it was: what it returned before stands for what it would return."""
        return next(self._differences_of(name), None) is None

    @cached_property
    def pipelines(self) -> OwnPipelines:
        """Copies of a copy that no row sees: found when one is called for, as tokenizers take long."""
        return OwnPipelines(self._pipe, tells=False, shares_tools=False)

    @contextmanager
    def networks(self) -> Iterator[None]:
        """Let networks hold what they did when they were loaded, and afterwards what they held before."""
        with ExitStack() as stack:
            for state in self._states:
                stack.enter_context(state.restored())
            yield

    def take_off_hooks(self) -> None:
        """Put networks back that got hooks of transformers: those of a recipe would come after them."""
        for state in self._states:
            if not state.has_its_hooks():
                state.restore()

    def restore(self) -> None:
        """Put the networks back to what they were."""
        for name, network in self._networks.items():
            for method in _own_methods(network).keys() - self._methods[name].keys():
                del vars(network)[method]
            vars(network).update(self._methods[name])
            for module in self._modules[name]:
                module.restore()
        for state in self._states:
            state.restore()

    def _differences_of(self, name: str) -> Iterator[str]:
        if (methods := _own_methods(self._networks[name])) != self._methods[name]:
            yield from {f"{name}.{method}" for method, _ in methods.items() ^ self._methods[name].items()}
        for module in self._modules[name]:
            if module.has_moved():
                yield from module.differences()


class _Module:
    """What one module consists of, besides the values of its weights."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self._name, self._module, self._held = name, module, vars(module)
        self._kind, self._training = type(module), module.training
        self._forward = own_method(module)
        self._parts = {key: dict(self._held[key]) for key in ("_modules", "_parameters")}
        self._ids = [id(part) for parts in self._parts.values() for part in parts.values()]
        self._hooks = {key: dict(self._held[key]) for key in _HOOKS}

    def has_moved(self) -> bool:
        """Whether something may differ, which is seen fast: there are hundreds of modules."""
        registered = self._held
        return (
            type(self._module) is not self._kind
            or registered["training"] is not self._training
            or registered.get("forward") is not self._forward
            or [*map(id, registered["_modules"].values()), *map(id, registered["_parameters"].values())]
            != self._ids
            or bool(registered["_forward_hooks"])
            or bool(registered["_forward_pre_hooks"])
        )

    def differences(self) -> Iterator[str]:
        registered = self._held
        if type(self._module) is not self._kind or registered["training"] is not self._training:
            yield f"the class or mode of {self._name}"
        if own_method(self._module) is not self._forward:
            yield f"the forward of {self._name}"
        for key, parts in self._parts.items():
            now = registered[key]
            if not _is_same(now, parts):
                changed = (name for name in {**parts, **now} if now.get(name) is not parts.get(name))
                yield f"{self._name}.{next(changed, key)}"
        for key, hooks in self._hooks.items():
            if any(_is_foreign(hook) and hook not in hooks.values() for hook in registered[key].values()):
                yield f"the hooks of {self._name}"

    def restore(self) -> None:
        """Put back what differs, but for hooks, which are among what `NetworkState` puts back."""
        module, registered = self._module, self._held
        module.__class__, module.training = self._kind, self._training
        if own_method(module) is not self._forward:
            registered.pop("forward", None)
            if self._forward is not None:
                registered["forward"] = self._forward
        for key, parts in self._parts.items():
            now = registered[key]
            if not _is_same(now, parts):
                for name in [*parts, *now]:
                    registered.pop(name, None)  # an attribute that was put in its place
                now.clear()
                now.update(parts)


def _own_methods(network: nn.Module) -> dict[str, Any]:
    """Return the methods that stand on a network itself in place of its class's, but for our own."""
    kind, values = type(network), vars(network).items()
    names = [name for name, value in values if callable(value) and callable(getattr(kind, name, None))]
    methods = {name: own_method(network, name) for name in names if name != "forward"}
    return {name: method for name, method in methods.items() if method is not None}


def _is_same(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    pairs = zip(now.values(), then.values(), strict=False)
    return len(now) == len(then) and all(mine is theirs for mine, theirs in pairs)


def _is_foreign(hook: Callable[..., Any]) -> bool:
    """Whether a hook is none of the libraries' own."""
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return not f"{module}.".startswith(_LIBRARIES)
