"""What three kinds of servers of the videos API take and answer: from the fields of a request to a call.

After the code of vllm-omni 0.30 and SGLang 0.5.23. Both ignore fields that they do not know; here vllm
refuses them, as a FastAPI server with a strict model does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_OPENAI: dict[str, type] = {"model": str, "prompt": str, "size": str, "seconds": str, "user": str}
_SHAPES: dict[str, type] = {"width": int, "height": int, "num_frames": int, "fps": int, "seed": int}
_SHARED: dict[str, type] = {"num_inference_steps": int, "guidance_scale": float, "guidance_scale_2": float}
_SHARED |= {"flow_shift": float, "true_cfg_scale": float, "negative_prompt": str}
_SGLANG: dict[str, type] = {"generator_device": str, "output_quality": str, "num_outputs_per_prompt": int}
_IMAGES: dict[str, type] = {"n": int, "response_format": str}
_PICTURES = ("input_reference", "image")
_FPS = 8  # of a clip whose request has none


@dataclass(slots=True)
class Refused(Exception):
    """name: of the field that is to blame. kind: as pydantic names it."""

    status: int
    message: str
    name: str = ""
    kind: str = "value_error"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """words: fields that it takes. json_words: fields that hold more words, as JSON.

    states: of a job that waits, is being rendered, is done.
    """

    words: Mapping[str, type]
    json_words: tuple[str, ...] = ()
    states: tuple[str, str, str] = ("queued", "in_progress", "completed")
    takes: tuple[str, ...] = ("multipart/form-data",)
    takes_unknown: bool = False
    is_fastapi: bool = True

    def call_words(self, fields: Mapping[str, Any], *, are_images: bool) -> dict[str, Any]:
        """Return a pipeline's arguments, fps among them. Raises Refused for what it does not take."""
        known = {**self.words, **(_IMAGES if are_images else {})}
        status = 422 if self.is_fastapi else 400
        words: dict[str, Any] = {}
        for name, value in fields.items():
            if name in self.json_words:
                words |= json.loads(value) if isinstance(value, str) else value
            elif name in known:
                try:
                    words[name] = known[name](value)
                except (TypeError, ValueError):
                    kind = f"{known[name].__name__}_parsing"
                    raise Refused(status, f"{value!r} is no {name}", name, kind) from None
            elif not self.takes_unknown and name not in _PICTURES:
                raise Refused(status, "Extra inputs are not permitted", name, "extra_forbidden")
        if not words.get("prompt"):
            raise Refused(status, "Field required", "prompt", "missing")
        if "size" in words:
            words["width"], words["height"] = map(int, words["size"].split("x"))
        if "seconds" in words and "num_frames" not in words:
            words["num_frames"] = round(float(words["seconds"]) * words.get("fps", _FPS))
        silent = {"model", "user", "size", "seconds", *_IMAGES, *_SGLANG}
        return {name: value for name, value in words.items() if name not in silent}

    def refusal(self, refused: Refused, message: str) -> dict[str, Any]:
        if not self.is_fastapi:
            return {"error": {"message": message, "code": refused.kind, "param": refused.name or None}}
        if refused.status != 422:
            return {"detail": message}
        return {"detail": [{"type": refused.kind, "loc": ["body", refused.name], "msg": message}]}

    def openapi(self) -> dict[str, Any]:
        """Return the page by which FastAPI describes a function with these form fields."""
        names = {str: "string", int: "integer", float: "number", bool: "boolean"}
        properties: dict[str, Any] = {name: {"type": names[kind]} for name, kind in self.words.items()}
        hidden = "diffusers_kwargs"  # SGLang takes it, but its page does not say so
        properties |= {name: {"type": "string"} for name in self.json_words if name != hidden}
        properties["input_reference"] = {"type": "string", "format": "binary"}
        name = "Body_create_video_v1_videos_post"
        schema = {"type": "object", "title": name, "required": ["prompt"], "properties": properties}
        content = {self.takes[0]: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        paths = {"/v1/videos": {"post": {"requestBody": {"content": content, "required": True}}}}
        return {"openapi": "3.1.0", "paths": paths, "components": {"schemas": {name: schema}}}


DIALECTS = {
    "vllm": Dialect(
        words={**_OPENAI, **_SHAPES, **_SHARED, "generate_sound": bool}, json_words=("extra_params", "lora")
    ),
    "sglang": Dialect(
        words={**_OPENAI, **_SHAPES, **_SHARED, **_SGLANG},
        json_words=("diffusers_kwargs", "extra_body"),
        takes=("multipart/form-data", "application/json"),
        takes_unknown=True,
    ),
    "gateway": Dialect(
        words={**_OPENAI, **_SHAPES, "negative_prompt": str},
        states=("pending", "processing", "succeeded"),
        takes=("application/json",),
        is_fastapi=False,
    ),
}


async def fields_of(request: web.Request) -> tuple[dict[str, Any], bytes]:
    """Return the fields, of pictures only what they are, and the picture. Raises Refused."""
    picture = b""
    fields: dict[str, Any] = {}
    try:
        is_json = request.content_type == "application/json"
        sent = json.loads(await request.read()) if is_json else dict(await request.post())
        for name, value in sent.items():
            if name in _PICTURES:
                picture = value.file.read() if isinstance(value, web.FileField) else _inline_picture(value)
                value = {"size_bytes": len(picture), "sha256": hashlib.sha256(picture).hexdigest()}
            if value is not None:
                fields[name] = value
    except (ValueError, binascii.Error) as error:
        raise Refused(400, f"invalid request: {error}") from None
    return fields, picture


def _inline_picture(value: Any) -> bytes:
    url = value["image_url"] if isinstance(value, dict) else value
    if not str(url).startswith("data:"):
        raise ValueError("give a picture as a data URL")
    return base64.b64decode(url.partition(",")[2])
