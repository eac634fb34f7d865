"""Calls of LoRA layers by rows of different LoRAs: the layer below once for all rows, adapters row by row.

peft adds `B(A(x)) * weight` to what the layer below returns. Where a forward holds several rows, the layer
below runs once for all of them, pinned and proven like any other module; then peft's own forward runs for
each row on the row's slice, with the row's adapters switched on, and with the row's slice of that result in
place of the layer below. So every product with an adapter is that of a one-row run, for any adapters and
weights.

peft's own way to mix adapters in a batch, `adapter_names`, knows neither weights nor several adapters of
one row, and joins the rows of one adapter in one product, which may round differently.

Layers inside of a compiled block are left alone: the compiler puts an adapter's products together with
others, and makes a graph for each set of adapters and weights. So these layers are set before the forward of
the network, in which all rows must have the same.

Rows must be outermost in what a layer is given, as they are in the denoisers of diffusers; a forward whose
rows do not divide it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from framefleet.pipeline.hooks.adapters import Adapters, working_rows
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.options.regions import compiled_in
from framefleet.pipeline.render.fused.joining import OUTERMOST, row_slice, stack

_Forward = Callable[..., Tensor]


class LoraLayers:
    """The LoRA layers of a model, to be put around by `intercept`.

    layers: outside of compiled blocks, by name; it goes around their `forward`. networks: those that have
    some inside; `around` goes around theirs.
    """

    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        self._all: dict[str, Any] = dict(_adapted(components))
        self.networks: dict[str, nn.Module] = {}
        self._compiled: dict[str, list[Any]] = {}  # layers, by network
        self.layers = dict(self._all)
        for component, module in components.items():
            regions = tuple(f"{component}.{region}" for region in compiled_in(module))
            inside = [name for name in self.layers if name.startswith(regions)]
            if inside:
                self.networks[component] = module
                self._compiled[component] = [self.layers.pop(name) for name in inside]

    def __call__(self, name: str, forward: _Forward, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer, rows = self.layers[name], working_rows()
        if not rows:  # nobody's row: as the caller of the pipeline has set it
            return forward(x, *args, **kwargs)
        own = [_present(layer, row) for row in rows]
        if len(rows) == 1 or not any(own):
            _switch_on(layer, own[0])
            return forward(x, *args, **kwargs)
        if x.shape[0] % len(rows):
            raise ValueError(f"{name} is given {tuple(x.shape)}, which is not {len(rows)} rows")
        below = layer.base_layer(x, *args, **kwargs)
        outputs = []
        for row, adapters in enumerate(own):
            output = row_slice(below, row, len(rows), None)
            if adapters:
                _switch_on(layer, adapters)
                with intercept({name: layer.base_layer}, lambda *_, given=output, **__: given):
                    output = forward(row_slice(x, row, len(rows), None), *args, **kwargs)
            outputs.append(output)
        joined: Tensor = stack(outputs, OUTERMOST)
        return joined

    def around(self, component: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a network that has compiled layers, set for the rows that it works on."""
        rows = working_rows()
        assert all(row == rows[0] for row in rows), "forwards of compiled blocks are of equal LoRAs"
        for layer in self._compiled[component] if rows else ():
            _switch_on(layer, _present(layer, rows[0]))
        return forward(*args, **kwargs)

    def switch_on(self, row: Adapters) -> None:
        """Set all layers for a row, as `pipe.set_adapters` does."""
        for layer in self._all.values():
            _switch_on(layer, _present(layer, row))

    def used_in(self, component: str, row: Adapters) -> Adapters:
        """Return those of a row's adapters that change what this component returns."""
        layers = [layer for name, layer in self._all.items() if name.startswith(f"{component}.")]
        return tuple(pair for pair in row if any(pair[0] in layer.r for layer in layers))


def _adapted(components: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for component, module in components.items():
        from peft.tuners.tuners_utils import BaseTunerLayer  # takes seconds, and most models have no LoRAs

        for name, layer in module.named_modules():
            if isinstance(layer, BaseTunerLayer):
                yield f"{component}.{name}", layer


def _present(layer: Any, row: Adapters) -> Adapters:
    return tuple(pair for pair in row if pair[0] in layer.r)


def _switch_on(layer: Any, adapters: Adapters) -> None:
    """Do to one layer what `pipe.set_adapters` does to each.

    Gradients included: whether weights want them chooses how torch multiplies, also where none are kept
    (`should_fold` in ATen's LinearAlgebra.cpp).
    """
    names = [name for name, _ in adapters]
    if layer.active_adapters != names:
        layer.set_adapter(names)
    for name, weight in adapters:
        layer.set_scale(name, weight)
