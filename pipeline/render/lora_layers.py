"""Calls of LoRA layers by rows of different LoRAs: the layer below once for all rows, adapters row by row.

peft adds `B(A(x)) * weight` to what the layer below returns. Where a forward holds several rows, the layer
below runs once for all of them; then peft's own forward runs for each row on the row's slice, with the row's
slice of that result in place of the layer below. What is switched on is what is in force for the row, which
its call or recipe may have changed since it began: layers are read when another row's turn comes.

Layers inside of a compiled block are set before the forward of the network, in which all rows must have the
same adapters: the compiler makes a graph for each set of adapters and weights.

Rows must be outermost in what a layer is given, as they are in the denoisers of diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from framefleet.pipeline.errors import count_text
from framefleet.pipeline.hooks.adapters import Adapters, AdaptersRescaled, RowAdapters, working_rows
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.options.regions import compiled_in
from framefleet.pipeline.render.fused.concatenation import OUTERMOST, row_slice, stack

_Forward = Callable[..., Tensor]


class _Held(NamedTuple):
    """What one layer holds of adapters. names: the active ones. scaling: of each, alpha and rank included."""

    names: tuple[str, ...]
    scaling: tuple[tuple[str, float], ...]
    is_off: bool


class LoraLayers:
    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        self._all: dict[str, Any] = {}
        for component, module in components.items():
            # Takes seconds, and most models have no LoRAs.
            from peft.tuners.tuners_utils import BaseTunerLayer

            for name, layer in module.named_modules():
                if isinstance(layer, BaseTunerLayer):
                    self._all[f"{component}.{name}"] = layer
        adapted = {name.partition(".")[0] for name in self._all}
        self._networks = {name: module for name, module in components.items() if name in adapted}
        regions: list[str] = []
        for name, module in components.items():
            regions += [f"{name}.{region}" for region in compiled_in(module)]
        self._compiled = [name for name in self._all if name.startswith(tuple(regions))]
        self._inner = {name: layer for name, layer in self._all.items() if name not in self._compiled}
        self.modules = list(self._all.values())  # the layers, which are set for each row before they run
        self._holder: RowAdapters | None = None  # whom the layers are set for

    @contextmanager
    def seen(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(intercept(self._networks, self._around))
            stack.enter_context(intercept(self._inner, self._by_row))
            stack.enter_context(intercept(self._inner, self._rescale, method="scale_layer"))
            yield

    def hold(self, row: RowAdapters) -> None:
        """Set all layers for a row, whose code runs next."""
        if self._all and self._holder is not row:
            layers = self._layers_of(row)
            self.release()
            for name, settings in layers.items():
                _put(self._all[name], settings)
            self._holder = row

    def is_as_asked(self, component: str, row: RowAdapters) -> bool:
        """Whether a component's layers are as they were when the row, which is at work, began."""
        if component not in self._networks:
            return True
        if row is not self._holder or row.first is None:
            return False
        names = [name for name in row.first if name.startswith(f"{component}.")]
        return all(_held_by(self._all[name]) == row.first[name] for name in names)

    def used_in(self, component: str, row: Adapters) -> Adapters:
        """Return the row's adapters that change what this component returns."""
        layers = [layer for name, layer in self._all.items() if name.startswith(f"{component}.")]
        return tuple(pair for pair in row if any(pair[0] in layer.r for layer in layers))

    def _around(self, component: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a network with LoRA layers, set for the rows that it works on."""
        rows = working_rows()
        if len(rows) == 1:
            self.hold(rows[0])
        elif rows:
            self.release()
            layers = [self._layers_of(row) for row in rows]
            for name in self._compiled:
                _put(self._all[name], layers[0][name])
            output = forward(*args, **kwargs)
            if any(_held_by(self._all[name]) != layers[0][name] for name in self._compiled):
                raise AdaptersRescaled(component)
            return output
        return forward(*args, **kwargs)

    def _by_row(self, name: str, forward: _Forward, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Call one layer; for several rows, each with its own adapters."""
        layer, rows = self._all[name], working_rows()
        if not rows or rows[0] is self._holder:  # nobody's row: as the caller of the pipeline has set it
            return forward(x, *args, **kwargs)
        own = [self._layers_of(row)[name] for row in rows]
        if len(rows) == 1 or not any(map(_is_on, own)):
            _put(layer, own[0])
            return forward(x, *args, **kwargs)
        if x.shape[0] % len(rows):
            raise ValueError(f"{name} is given {tuple(x.shape)}, which is not {count_text(len(rows), 'row')}")
        below = layer.base_layer(x, *args, **kwargs)
        outputs = []
        for row, layers_of_row in enumerate(own):
            output = row_slice(below, row, len(rows), None)
            if _is_on(layers_of_row):
                _put(layer, layers_of_row)
                with intercept({name: layer.base_layer}, lambda *_, given=output, **__: given):
                    output = forward(row_slice(x, row, len(rows), None), *args, **kwargs)
            outputs.append(output)
        return stack(outputs, OUTERMOST)

    def _rescale(self, name: str, scale_layer: Callable[[float], None], scale: float) -> None:
        """Let the code of one row multiply weights; in a forward of several they would be nobody's."""
        if len(working_rows()) > 1 and scale != 1:
            raise AdaptersRescaled(f"{name} is scaled by {scale}")
        scale_layer(scale)

    def _layers_of(self, row: RowAdapters) -> Mapping[str, _Held]:
        """Return what each layer holds for a row. The layers may be set for nobody afterwards."""
        if row.layers is None:
            self.release()
            for layer in self._all.values():
                # As `pipe.set_adapters` does. Gradients included: whether weights want them chooses how torch
                # multiplies, also where none are kept (`should_fold` in ATen's LinearAlgebra.cpp).
                adapters = [pair for pair in row.asked if pair[0] in layer.r]
                names = [name for name, _ in adapters]
                if layer.disable_adapters:
                    layer.enable_adapters(True)
                if layer.active_adapters != names:
                    layer.set_adapter(names)
                for name, weight in adapters:
                    layer.set_scale(name, weight)
            row.first = row.layers = {name: _held_by(layer) for name, layer in self._all.items()}
        return row.layers

    def release(self) -> None:
        """Note what the row that the layers are set for has made of them; they are nobody's then."""
        row, self._holder = self._holder, None
        if row is None:
            return
        layers = {name: _held_by(layer) for name, layer in self._all.items()}
        if layers != row.layers:
            row.layers = layers
            on = filter(_is_on, layers.values())
            row.in_force = tuple(sorted({pair for one in on for pair in one.scaling if pair[0] in one.names}))


def _held_by(layer: Any) -> _Held:
    return _Held(tuple(layer.active_adapters), tuple(layer.scaling.items()), layer.disable_adapters)


def _is_on(held: _Held) -> bool:
    return bool(held.names) and not held.is_off


def _put(layer: Any, held: _Held) -> None:
    if layer.active_adapters != list(held.names):
        layer.set_adapter(list(held.names))
    if layer.disable_adapters != held.is_off:
        layer.enable_adapters(not held.is_off)
    layer.scaling.update(held.scaling)
