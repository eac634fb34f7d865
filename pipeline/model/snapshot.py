"""Find what calls have changed in a model since it was loaded, and restore it.

Modules, hooks and methods are compared by identity, which takes a fraction of a millisecond: so this is done
after every row of framefleet's recipes. Not covered: values of weights; and attributes and buffers, which
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

# Libraries add hooks to their own networks in a first forward (transformers, to record layers' outputs).
_LIBRARIES = ("transformers.", "diffusers.", "accelerate.", "torch.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Loaded:
    """A model's state before any call, as far as calls may change it. Taking it takes about 50 ms."""

    def __init__(self, model: Model, states: Mapping[str, NetworkState]) -> None:
        """states: already known states of networks, by name."""
        self._pipe = OwnPipelines(model.pipe, tells=False, shares_tools=False).make()
        self._networks = networks = model.networks()
        self._states = [states.get(name) or NetworkState(network) for name, network in networks.items()]
        self._methods = {name: _own_methods(network) for name, network in networks.items()}
        self._modules = {
            name: [_Module(f"{name}.{path}".rstrip("."), part) for path, part in network.named_modules()]
            for name, network in networks.items()
        }

    def difference(self, *, expected: Collection[str] = ()) -> str | None:
        """Return the first difference, in words, or None. expected: differences that are allowed."""
        return next((what for what in self.differences() if what not in expected), None)

    def differences(self) -> Iterator[str]:
        for name in self._networks:
            yield from self._differences_of(name)

    def is_untouched(self, name: str) -> bool:
        """Return whether a network is unchanged, so that it would return the same as before."""
        return next(self._differences_of(name), None) is None

    @cached_property
    def pipelines(self) -> OwnPipelines:
        """Copies of a copy that no row sees. Made only when needed, because tokenizers take long."""
        return OwnPipelines(self._pipe, tells=False, shares_tools=False)

    @contextmanager
    def networks(self) -> Iterator[None]:
        """Restore the networks' state as loaded for the block, and afterwards their state before it."""
        with ExitStack() as stack:
            for state in self._states:
                stack.enter_context(state.restored())
            yield

    def take_off_hooks(self) -> None:
        """Restore networks that got hooks of transformers: hooks of a recipe would come after these."""
        for state in self._states:
            if not state.has_its_hooks():
                state.restore()

    def restore(self) -> None:
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
    """The state of one module, besides the values of its weights."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self._name, self._module, self._held = name, module, vars(module)
        self._kind, self._training = type(module), module.training
        self._forward = own_method(module)
        self._parts = {key: dict(self._held[key]) for key in ("_modules", "_parameters")}
        self._ids = [id(part) for parts in self._parts.values() for part in parts.values()]
        self._hooks = {key: dict(self._held[key]) for key in _HOOKS}

    def has_moved(self) -> bool:
        """Return quickly whether something may differ: there are hundreds of modules."""
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
        """Restore what differs, except for hooks, which `NetworkState` restores."""
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
                    registered.pop(name, None)  # an attribute that replaced it
                now.clear()
                now.update(parts)


def _own_methods(network: nn.Module) -> dict[str, Any]:
    """Return the methods that a network has in place of its class's, apart from our interceptions."""
    kind, values = type(network), vars(network).items()
    names = [name for name, value in values if callable(value) and callable(getattr(kind, name, None))]
    methods = {name: own_method(network, name) for name in names if name != "forward"}
    return {name: method for name, method in methods.items() if method is not None}


def _is_same(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    pairs = zip(now.values(), then.values(), strict=False)
    return len(now) == len(then) and all(mine is theirs for mine, theirs in pairs)


def _is_foreign(hook: Callable[..., Any]) -> bool:
    """Return whether a hook does not come from the libraries."""
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return not f"{module}.".startswith(_LIBRARIES)
