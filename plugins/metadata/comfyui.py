"""Read the unambiguous settings of a ComfyUI graph, in the format of its API.

Samplers and encoders are recognized by their links, so that those of extensions are also found. Values that
differ between samplers, or that a node computes, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from framefleet.api.errors import count_text
from framefleet.plugins.metadata.cells import Told, Unreadable, told

_MAX_NODES = 2000
_MAX_HOPS = 64  # from a sampler to the node with the value
_TEXTS = ("text", "prompt", "text_g", "text_l", "clip_l", "clip_g", "t5xxl")  # inputs of encoders
_LATENTS = ("latent_image", "samples", "latent", "latents")
_SAMPLERS = (("positive", "latent_image"), ("guider", "noise", "latent_image"))  # links of a sampler
_NO_NOISE = ("disable", False)

NodeInputs = Mapping[str, Any]


def read_graph(graph: Any) -> Told:
    """Return the settings of a graph. Raises Unreadable if its prompt is ambiguous."""
    if not isinstance(graph, dict) or not 0 < len(graph) <= _MAX_NODES:
        raise Unreadable(f"its ComfyUI graph does not have 1 to {_MAX_NODES:,} nodes")
    of = Graph({str(name): _inputs(node) for name, node in graph.items() if isinstance(node, dict)})
    samplers = of.samplers()
    if not (prompt := _agreed(samplers, of.prompt)):
        num = count_text(len(samplers), "sampler")
        raise Unreadable(f"the prompt in its ComfyUI graph is ambiguous: it has {num}")
    noisy = [one for one in samplers if one.get("add_noise") not in _NO_NOISE]
    is_guided = any("guidance" in inputs for inputs in of.nodes.values())  # a model's own scale, not cfg
    return told(
        "ComfyUI",
        {
            "prompt": prompt,
            "negative_prompt": _agreed(samplers, lambda one: of.prompt(one, "negative")) or None,
            "seed": _agreed(noisy, of.seed),
            "num_inference_steps": _agreed(samplers, of.steps),
            "guidance_scale": None if is_guided else _agreed(samplers, of.scale),
            "height": _agreed(samplers, lambda one: of.side(one, "height")),
            "width": _agreed(samplers, lambda one: of.side(one, "width")),
        },
    )


def _agreed(samplers: Sequence[NodeInputs], value_of: Callable[[NodeInputs], object]) -> object:
    """Return the value of all samplers; None if they differ, or one is ambiguous."""
    values = [value_of(sampler) for sampler in samplers]
    return values[0] if values and all(value == values[0] for value in values) else None


def _inputs(node: Mapping[str, Any]) -> NodeInputs:
    inputs = node.get("inputs")
    if "ZeroOut" in str(node.get("class_type")):  # removes any text before it
        return {"clip": None, "text": ""}
    return inputs if isinstance(inputs, dict) else {}


def _is_link(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)


@dataclass(frozen=True, slots=True)
class Graph:
    """The inputs of each node, by the node's name: scalars, or links [name, number of the output]."""

    nodes: Mapping[str, NodeInputs]

    def linked(self, inputs: NodeInputs, name: str) -> NodeInputs | None:
        link = inputs.get(name)
        return self.nodes.get(str(link[0])) if _is_link(link) else None

    def scalar(self, inputs: NodeInputs, name: str) -> object:
        """Return an input, or the only input of the node it is linked to; None if ambiguous."""
        value = inputs.get(name)
        if (node := self.linked(inputs, name)) is not None:
            value = next(iter(node.values())) if len(node) == 1 else None
        return value if isinstance(value, str | int | float) else None

    def samplers(self) -> list[NodeInputs]:
        return [
            inputs
            for inputs in self.nodes.values()
            if any(all(_is_link(inputs.get(name)) for name in names) for names in _SAMPLERS)
        ]

    def prompt(self, sampler: NodeInputs, side: str = "positive") -> str | None:
        """Return the text of a side, or ""."""
        node: NodeInputs | None = self.linked(sampler, "guider") if "guider" in sampler else sampler
        if node is not None and side == "negative" and side not in node:
            return ""
        for _ in range(_MAX_HOPS):
            if node is None:
                return None
            name = "conditioning" if "conditioning" in node else side
            is_second = _is_link(link := node.get(name)) and link[1] == 1
            node = self.linked(node, name)
            if node is not None and "clip" in node:  # an encoder
                texts = {self.scalar(node, text) for text in _TEXTS if text in node}
                text = texts.pop() if len(texts) == 1 else None
                return text if isinstance(text, str) else None
            if node is not None and {"positive", "negative"} <= node.keys():  # both go through this node
                side = "negative" if is_second else "positive"
        return None

    def seed(self, sampler: NodeInputs) -> object:
        of = self.linked(sampler, "noise") or sampler
        return self.scalar(of, "noise_seed" if "noise_seed" in of else "seed")

    def steps(self, sampler: NodeInputs) -> object:
        return self.scalar(self.linked(sampler, "sigmas") or sampler, "steps")

    def scale(self, sampler: NodeInputs) -> object:
        return self.scalar(self.linked(sampler, "guider") or sampler, "cfg")

    def side(self, sampler: NodeInputs, name: str) -> object:
        """Return the height or width of the denoised latents, unless a node scales them."""
        node: NodeInputs | None = sampler
        for _ in range(_MAX_HOPS):
            source = next((one for one in _LATENTS if one in (node or {})), None)
            if node is None or source is None:
                return None if node is None else self.scalar(node, name)
            if name in node:
                return None
            node = self.linked(node, source)
        return None
