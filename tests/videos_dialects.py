"""What three kinds of servers of the videos API take and answer: from the fields of a request to a call.

After the code of vllm-omni 0.30 and SGLang 0.5.23. Both ignore fields that they do not know; here vllm
refuses them, as a FastAPI server with a strict model does.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

_COMMON: dict[str, type] = {"model": str, "prompt": str, "size": str, "seconds": str, "user": str}
_COMMON |= {"width": int, "height": int, "num_frames": int, "fps": int, "seed": int, "negative_prompt": str}
_STEPS: dict[str, type] = {"num_inference_steps": int, "guidance_scale": float, "guidance_scale_2": float}
_STEPS |= {"flow_shift": float, "true_cfg_scale": float}
_SGLANG: dict[str, type] = {"generator_device": str, "output_quality": str, "num_outputs_per_prompt": int}
_IMAGES: dict[str, type] = {"n": int, "response_format": str}
_PICTURES = ("input_reference", "image")
# The fields of each dialect; a dict holds more words, as JSON.
FIELDS: dict[str, dict[str, type]] = {
    "vllm": {**_COMMON, **_STEPS, "generate_sound": bool, "extra_params": dict, "lora": dict},
    "sglang": {**_COMMON, **_STEPS, **_SGLANG, "diffusers_kwargs": dict, "extra_body": dict},
    "gateway": _COMMON,
}
_FORM, _JSON = "multipart/form-data", "application/json"
CONTENT_TYPES = {"vllm": (_FORM,), "sglang": (_FORM, _JSON), "gateway": (_JSON,)}
_FPS = 8  # of a clip whose request has none


class Refused(Exception):
    """name: of the field that is to blame. kind: as pydantic names it. retry_after: seconds."""

    def __init__(
        self, status: int, message: str, name: str = "", kind: str = "", retry_after: Any = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.name, self.kind = status, message, name, kind
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def body(self, dialect: str, message: str) -> dict[str, Any]:
        if dialect == "gateway":
            return {"error": {"message": message, "code": self.kind or str(self.status), "param": self.name}}
        if self.status != 422:
            return {"detail": message}
        return {"detail": [{"type": self.kind, "loc": ["body", self.name], "msg": message}]}


def call_words(dialect: str, fields: Mapping[str, Any], *, are_images: bool) -> dict[str, Any]:
    """Return a pipeline's arguments, fps among them. Raises Refused for what the dialect does not take."""
    known = FIELDS[dialect] | (_IMAGES if are_images else {})
    status = 400 if dialect == "gateway" else 422
    words: dict[str, Any] = {}
    for name, value in fields.items():
        if name in known:
            try:
                is_json = known[name] is dict
                words |= (
                    dict(json.loads(value) if isinstance(value, str) else value)
                    if is_json
                    else {name: known[name](value)}
                )
            except (TypeError, ValueError):
                raise Refused(
                    status, f"{value!r} is not valid", name, f"{known[name].__name__}_parsing"
                ) from None
        elif dialect != "sglang" and name not in _PICTURES:
            raise Refused(status, "Extra inputs are not permitted", name, "extra_forbidden")
    if not words.get("prompt"):
        raise Refused(status, "Field required", "prompt", "missing")
    if "size" in words:
        words["width"], words["height"] = map(int, words["size"].split("x"))
    if "seconds" in words and "num_frames" not in words:
        words["num_frames"] = round(float(words["seconds"]) * words.get("fps", _FPS))
    silent = {"model", "user", "size", "seconds", *_IMAGES, *_SGLANG}
    return {name: value for name, value in words.items() if name not in silent}


def openapi(dialect: str) -> dict[str, Any]:
    """Return the page by which FastAPI describes a function with these form fields."""
    types = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "string"}
    properties: dict[str, Any] = {name: {"type": types[kind]} for name, kind in FIELDS[dialect].items()}
    properties.pop("diffusers_kwargs", None)  # SGLang takes it, but its page does not say so
    properties["input_reference"] = {"type": "string", "format": "binary"}
    name = "Body_create_video_v1_videos_post"
    schema = {"type": "object", "title": name, "required": ["prompt"], "properties": properties}
    content = {_FORM: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    paths = {"/v1/videos": {"post": {"requestBody": {"content": content, "required": True}}}}
    return {"openapi": "3.1.0", "paths": paths, "components": {"schemas": {name: schema}}}


async def fields_of(request: web.Request) -> tuple[dict[str, Any], bytes]:
    """Return the fields, of a picture only its size and hash, and the picture. Raises Refused."""
    picture = b""
    fields: dict[str, Any] = {}
    try:
        is_json = request.content_type == _JSON
        for name, value in (json.loads(await request.read()) if is_json else await request.post()).items():
            if name in _PICTURES:
                picture = value.file.read() if isinstance(value, web.FileField) else _inline(value)
                value = {"size_bytes": len(picture), "sha256": hashlib.sha256(picture).hexdigest()}
            fields[name] = value
    except ValueError as error:
        raise Refused(400, f"invalid request: {error}") from None
    return {name: value for name, value in fields.items() if value is not None}, picture


def _inline(value: Any) -> bytes:
    url = value["image_url"] if isinstance(value, dict) else value
    if not str(url).startswith("data:"):
        raise ValueError("give a picture as a data URL")
    return base64.b64decode(url.partition(",")[2])
