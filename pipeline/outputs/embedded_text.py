"""From a clip to the tags of its file: what other tools read of how it was made, and its row_id.

The text is that of AUTOMATIC1111's web UI, which most tools read: the prompt, the negative prompt, and a line
of fields. Its last field is JSON, with the row_id and what the text has no field for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import framefleet
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.media.media_settings import COMMENT, Embed

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.clips import Clip

FIELD = "framefleet"  # of the text's last line, with JSON
NEGATIVE = "Negative prompt:"
_PROMPTS = ("prompt", "negative_prompt")
# What the web UI calls noise schedulers, by their names in rows; others keep these names.
_SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
    "dpm2_karras": "DPM2",
    "dpmpp_2m_karras": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_karras": "DPM++ 2M SDE",
    "euler_karras": "Euler",
    "heun_karras": "Heun",
    "lms_karras": "LMS",
    "unipc_karras": "UniPC",
}
_ROW_ID = re.compile(r'"row_id\\*":\s*\\*"([0-9a-f]{32})\\*"')  # also in JSON that is a text of JSON


def file_tags(clip: Clip, embed: Embed, *, fps: float | None = None) -> dict[str, str]:
    """Return the tags of a clip's file: nothing that differs between two renders of one row.

    fps: what the row itself asks for, if its record has that too.
    """
    if embed == "none":
        return {}
    if embed == "id":
        return {"row_id": clip.row_id, COMMENT: canonical_json({"row_id": clip.row_id})}
    tags = {
        "row_id": clip.row_id,
        "prompt": str(clip.request.arguments.get("prompt", "")),
        "seed": str(clip.request.seed),
        "model_digest": clip.model_digest,
        "framefleet": framefleet.__version__,
    }
    return tags if embed == "tags" else tags | {COMMENT: generation_text(clip, fps=fps)}


def generation_text(clip: Clip, *, fps: float | None = None) -> str:
    """Return how a clip was made, as other tools read it. Without inputs: their paths may be private."""
    request = clip.request
    prompt, negative = (str(request.arguments.get(name) or "") for name in _PROMPTS)
    fields: dict[str, object] = {"Steps": request.arguments.get("num_inference_steps")}
    sampler = (request.scheduler or "").partition("(")[0]
    fields["Sampler"] = _SAMPLERS.get(sampler, sampler)
    fields["Schedule type"] = "Karras" if sampler.endswith("_karras") else None
    scale = request.arguments.get("guidance_scale")
    fields["CFG scale"] = f"{scale:g}" if isinstance(scale, int | float) else None
    fields["Seed"] = request.seed
    if clip.frames is not None:
        fields["Size"] = f"{clip.frames.shape[2]}x{clip.frames.shape[1]}"
    fields["Model hash"] = clip.model_digest[:10]
    fields["Model"] = clip.model.partition("?")[0].rstrip("/").rpartition("/")[2]
    loras: Mapping[str, Any] = request.arguments.get("lora") or {}
    fields["Lora hashes"] = ", ".join(f"{name}: {lora['sha256'][:12]}" for name, lora in loras.items())
    fields["Version"] = f"framefleet {framefleet.__version__}"
    fields[FIELD] = canonical_json(_row(clip, fps))
    texts = {name: str(value) for name, value in fields.items() if value not in (None, "")}
    line = ", ".join(f"{name}: {_quoted(text)}" for name, text in texts.items())
    return "\n".join([*filter(None, [prompt, negative and f"{NEGATIVE} {negative}"]), line])


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search("[,:\n]", value) else value


def _row(clip: Clip, fps: float | None) -> dict[str, Any]:
    """Return what renders the row again, except prompts that the text has verbatim and inputs' values."""
    request, arguments, inputs = clip.request, dict[str, Any](), list[str]()
    for name, value in request.arguments.items():
        if name == "lora":
            arguments[name] = {lora: values["weight"] for lora, values in value.items()}
        elif not all(map(_is_scalar, value if isinstance(value, list | tuple) else [value])):
            inputs.append(name)
        elif name not in _PROMPTS or not _is_read_back(value):
            arguments[name] = value
    others: dict[str, Any] = {"scheduler": request.scheduler, "inputs": inputs, "fps": fps}
    others["recipe"] = None if request.recipe == "generate" else request.recipe
    row = {"row_id": clip.row_id, "seed": request.seed, "arguments": arguments}
    return row | {name: value for name, value in others.items() if value}


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_read_back(prompt: object) -> bool:
    """Whether tools that read the text find exactly this prompt in it."""
    if not isinstance(prompt, str) or not prompt or "\0" in prompt:
        return False
    lines = prompt.split("\n")
    as_read = "\n".join(line.strip() for line in lines).strip()
    return prompt == as_read and not any(line.startswith(NEGATIVE) for line in lines)


def row_id_in(texts: Iterable[str]) -> str | None:
    """Return the last row_id in one of these texts, if any: a prompt before it may quote another."""
    return next((rows[-1] for text in texts if (rows := _ROW_ID.findall(text))), None)
