"""Read InvokeAI's metadata."""

from __future__ import annotations

from typing import Any

from framefleet.plugins.metadata.cells import Told, Unreadable, told

_NAMES = {
    "prompt": "positive_prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "height": "height",
    "width": "width",
}
_CARRIED = ("scheduler", "app_version", "generation_mode")


def read_invokeai(values: Any) -> Told:
    """Return the settings in InvokeAI's JSON. Raises Unreadable for other JSON."""
    if not isinstance(values, dict):
        raise Unreadable("its InvokeAI metadata is not a JSON object")
    others = {name: values[name] for name in _CARRIED if isinstance(values.get(name), str)}
    if isinstance(model := values.get("model"), dict) and isinstance(model.get("name"), str):
        others["model"] = model["name"]
    return told("InvokeAI", {name: values.get(theirs) for name, theirs in _NAMES.items()}, others)
