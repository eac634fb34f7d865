"""A server of the videos API in three dialects, with faults on demand: requests in, clips out.

A clip is computed from the words of its request, or rendered by a plain call of a tiny pipeline. Jobs and
clips are files in one folder, so they outlive the process.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from tests.videos_clips import Frames, Model, is_spoilt, png, synthetic_frames, video
from tests.videos_faults import Faults

_COMMON: dict[str, type] = {"model": str, "prompt": str, "size": str, "seconds": str, "user": str}
_COMMON |= {"width": int, "height": int, "num_frames": int, "fps": int, "seed": int, "negative_prompt": str}
_STEPS: dict[str, type] = {"num_inference_steps": int, "guidance_scale": float, "guidance_scale_2": float}
_STEPS |= {"flow_shift": float, "true_cfg_scale": float}
_SGLANG: dict[str, type] = {"generator_device": str, "output_quality": str, "num_outputs_per_prompt": int}
_IMAGES: dict[str, type] = {"n": int, "response_format": str}
_PICTURES = ("input_reference", "image")
# The fields of each dialect, after the code of vllm-omni 0.30 and SGLang 0.5.23; a dict holds more words, as
# JSON. Both ignore fields that they do not know; here vllm refuses them, as a strict server does.
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


_STATES = ("queued", "in_progress", "completed")
_GATEWAY_STATES = ("pending", "processing", "succeeded")
_PAGE = "<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"


@dataclass(slots=True, kw_only=True)
class VideoJob:
    """words: of the call. picture: what it starts from, in base64. state: an index into _STATES."""

    id: str
    words: dict[str, Any]
    picture: str
    idempotency_key: str
    created_at: int = field(default_factory=lambda: int(time.time()))
    state: int = 0
    error: str = ""

    @property
    def prompt(self) -> str:
        return str(self.words["prompt"])


class Service:
    """One server. options: those of `serve`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._dialect, self._port = options.dialect, options.port
        self._key, self._log = options.key, options.log
        self._faults = Faults(options.faults)
        self._model_id = options.model.name if options.model else "synthetic"
        self._model = Model(options.model) if options.model else None
        self._folder: Path = options.state or Path(tempfile.mkdtemp(prefix="videos-"))
        self._folder.mkdir(exist_ok=True)
        files = sorted(self._folder.glob("*.json"))
        self._jobs = {file.stem: VideoJob(**json.loads(file.read_text())) for file in files}
        self._num_renders: Counter[str] = Counter()  # by request
        self._rendering = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._other_host = ""

    async def run(self) -> None:
        app = web.Application(client_max_size=1 << 28, middlewares=[self._guard])
        app.router.add_post("/v1/videos", self._create)
        app.router.add_get("/v1/videos/{id}", self._poll)
        app.router.add_get("/v1/videos/{id}/content", self._content)
        app.router.add_post("/v1/images/{step:generations|edits}", self._images)
        for path in ("/v1/models", "/models", "/health", "/openapi.json"):
            app.router.add_get(path, self._facts)
        other = web.Application()
        other.router.add_route("*", "/{path:.*}", self._elsewhere)
        self._other_host = f"http://localhost:{await _listen(other, 0)}"
        for job in self._jobs.values():
            self._start(job)
        await _listen(app, self._port)
        print(f"http://127.0.0.1:{self._port}/v1", flush=True)
        await asyncio.Event().wait()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if self._faults.is_loading():
                raise Refused(503, "the model is loading")
            is_open = request.path in ("/health", "/openapi.json")
            if self._key and not is_open and request.headers.get("Authorization") != f"Bearer {self._key}":
                raise Refused(401, "the key is not valid")
            return await handler(request)
        except Refused as refused:
            body = refused.body(self._dialect, self._echoing(refused.message))
            return self._answer(body, refused.status, refused.headers)

    def _answer(
        self, body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        if self._faults.value("echo_key"):
            body = body | {"request": {"headers": {"authorization": f"Bearer {self._key}"}}}
        return web.json_response(body, status=status, headers=headers)

    def _echoing(self, message: str) -> str:
        return f"{message} (Authorization: Bearer {self._key})" if self._faults.value("echo_key") else message

    def _note(self, event: str, **facts: Any) -> None:
        if self._log:
            with open(self._log, "a") as file:
                file.write(json.dumps({"event": event, **facts}) + "\n")

    # Requests for clips and images.

    async def _create(self, request: web.Request) -> web.StreamResponse:
        entry, words, picture = await self._accept(request)
        key = request.headers.get("Idempotency-Key", "")
        is_idempotent = self._faults.value("idempotent", words["prompt"])
        if is_idempotent is None:
            is_idempotent = self._dialect == "gateway"
        earlier = [job for job in self._jobs.values() if key and is_idempotent and job.idempotency_key == key]
        text = base64.b64encode(picture).decode()
        new = VideoJob(id=f"video_{uuid.uuid4().hex}", words=words, picture=text, idempotency_key=key)
        job = earlier[0] if earlier else new
        status = 202 if self._dialect == "gateway" else 200
        self._note("post", **entry, status=status, id=job.id, is_new=job is new)
        if job is new:
            self._jobs[job.id] = job
            self._keep(job)
            self._start(job)
        if self._faults.value("drop_answer", job.prompt):
            assert request.transport is not None
            request.transport.close()
        tail = "0" * (self._faults.value("long_id", job.prompt) or 0)
        return self._answer(self._shown(job) | {"id": job.id + tail}, status)

    async def _images(self, request: web.Request) -> web.StreamResponse:
        entry, words, picture = await self._accept(request)
        self._note("post", **entry, status=200)
        fields, images = entry["body"], []
        for number in range(int(fields.get("n", 1))):
            seed = {"seed": words["seed"] + number} if "seed" in words else {}
            async with self._rendering:
                image = png((await asyncio.to_thread(self._frames, words | seed, picture))[0])
            if fields.get("response_format") == "url" or self._faults.value("as_url"):
                name = f"{uuid.uuid4().hex}.png"
                (self._folder / name).write_bytes(image)
                link = self._faults.value("link", words["prompt"])
                images.append({"url": link or f"{self._other_host}/files/{name}"})
            else:
                images.append({"b64_json": base64.b64encode(image).decode()})
        return self._answer({"created": int(time.time()), "data": images})

    async def _accept(self, request: web.Request) -> tuple[dict[str, Any], dict[str, Any], bytes]:
        """Return what the log says of a POST, the words of the call, and the picture. Raises Refused."""
        fields, picture = await fields_of(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        entry = {"path": request.path, "headers": headers, "body": fields}
        prompt = str(fields.get("prompt", ""))
        are_images = request.path != "/v1/videos"
        try:
            if self._faults.value("redirect_create", prompt):
                raise web.HTTPFound(f"{self._other_host}{request.path}")
            if self._faults.value("html", prompt, "create"):
                raise web.HTTPOk(text=_PAGE, content_type="text/html")
            self._be_busy(prompt, "create")
            if status := self._faults.value("status", prompt, "create"):
                raise Refused(status, "Internal Server Error")
            if (name := self._faults.value("bill_422", prompt)) is not None:
                raise Refused(422, "Extra inputs are not permitted", str(name), "extra_forbidden")
            if not are_images and request.content_type not in CONTENT_TYPES[self._dialect]:
                raise Refused(415, f"use {' or '.join(CONTENT_TYPES[self._dialect])}")
            words = call_words(self._dialect, fields, are_images=are_images)
            if request.path.endswith("edits") and not picture:
                raise Refused(400, "an edit needs an image", "image", "missing")
        except (Refused, web.HTTPException) as error:
            self._note("post", **entry, status=error.status)
            raise
        return entry, words, picture

    def _be_busy(self, prompt: str, step: str) -> None:
        wait = self._faults.value("busy", prompt, step)
        if wait is not None:
            raise Refused(429, "too many requests", retry_after=None if wait is True else wait)

    # Rendering.

    def _start(self, job: VideoJob) -> None:
        if job.state < 2 and not job.error:
            task = asyncio.get_running_loop().create_task(self._render(job))
            self._tasks.add(task)  # asyncio itself holds none
            task.add_done_callback(self._tasks.discard)

    async def _render(self, job: VideoJob) -> None:
        job.state = 1
        await asyncio.sleep(self._faults.value("slow_s", job.prompt) or 0)
        if self._faults.value("never_done", job.prompt):
            return
        message = self._faults.value("failed", job.prompt)
        if message is not None:
            job.error = "out of memory" if message is True else message
        else:
            try:
                async with self._rendering:
                    clip = await asyncio.to_thread(self._clip, job.words, base64.b64decode(job.picture))
                (self._folder / f"{job.id}.mp4").write_bytes(clip)
                self._note("render", id=job.id)
                job.state = 2
            except Exception as error:  # whatever went wrong: the job fails, and the server goes on
                job.error = f"{type(error).__name__}: {error}"
        if job.id in self._jobs:  # not forgotten meanwhile
            self._keep(job)

    def _clip(self, words: dict[str, Any], picture: bytes) -> bytes:
        prompt = words["prompt"]
        changed = dict(words)
        if (size := self._faults.value("size", prompt)) is not None:
            changed["width"], changed["height"] = map(int, size.split("x"))
        if (more := self._faults.value("frames", prompt)) is not None:
            changed["num_frames"] += more
        frames = self._frames(changed, picture)
        one_of = self._faults.value("level", prompt)
        if one_of is not None and is_spoilt("level", one_of, prompt=prompt, seed=words.get("seed")):
            frames[0, 0, 0, 0] ^= 1
        fps = self._faults.value("fps", prompt) or words.get("fps", 8)
        return video(frames, fps=fps)

    def _frames(self, words: dict[str, Any], picture: bytes) -> Frames:
        frames = self._model.frames(words, picture) if self._model else synthetic_frames(words, picture)
        request = hashlib.sha256(json.dumps(words, sort_keys=True).encode() + picture).hexdigest()
        if self._faults.value("unsteady", words["prompt"]):
            frames[:, :8, :8] += np.uint8(16 * self._num_renders[request] % 256)
        self._num_renders[request] += 1
        return frames

    # Requests about a job.

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        self._note("poll", id=job.id)
        self._be_busy(job.prompt, "poll")
        if self._faults.value("absent", job.prompt, "poll"):
            raise Refused(404, "Video not found")
        if (status := self._faults.value("status", job.prompt, "poll")) is not None:
            return self._not_now(status)
        if self._faults.value("html", job.prompt, "poll"):
            return web.Response(text=_PAGE, content_type="text/html")
        if state := self._faults.value("state", job.prompt, "poll"):
            return self._answer(self._shown(job) | {"status": state})
        is_error = job.error and self._dialect == "vllm"  # it puts failures into the status code, too
        return self._answer(self._shown(job), 500 if is_error else 200)

    async def _content(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        self._note("content", id=job.id)
        if job.state < 2 or job.error:
            raise Refused(404, "there is no video")
        if self._dialect == "gateway":
            link = self._faults.value("link", job.prompt) or f"{self._other_host}/files/{job.id}.mp4"
            return web.Response(status=302, headers={"Location": link})
        return await self._send(request, job)

    async def _send(self, request: web.Request, job: VideoJob) -> web.StreamResponse:
        def fault(name: str) -> Any:
            return self._faults.value(name, job.prompt, "content")

        if (status := fault("status")) is not None:
            return self._not_now(status)
        clip = b"" if fault("empty") else (self._folder / f"{job.id}.mp4").read_bytes()
        if fault("html"):
            return web.Response(text=_PAGE, content_type="text/html")
        if fault("json_content"):
            return self._answer({"error": {"message": "the file is gone", "code": "internal_error"}})
        response = web.StreamResponse()
        response.content_type = "application/octet-stream" if fault("octet") else "video/mp4"
        sent = clip[: len(clip) // 2] if fault("half") else clip
        response.content_length = len(sent)
        await response.prepare(request)
        await response.write(sent)
        return response

    def _not_now(self, status: int) -> web.Response:
        return self._answer({"status": "error", "message": "not now"}, status, {"Retry-After": "0.1"})

    def _job(self, request: web.Request) -> VideoJob:
        job = self._jobs.get(request.match_info["id"])
        if job and request.method == "GET":
            expiry = self._faults.value("expire", job.prompt) if job.state == 2 else None
            if expiry == "status":
                job.error = "expired"
            elif expiry or self._faults.value("forget", job.prompt):
                self._note("forget", id=job.id)
                self._forget(job)
                job = None
        if not job:
            raise Refused(404, "Video not found")
        return job

    def _forget(self, job: VideoJob) -> None:
        del self._jobs[job.id]
        for file in self._folder.glob(f"{job.id}.*"):
            file.unlink()

    def _keep(self, job: VideoJob) -> None:
        file = self._folder / f"{job.id}.new"
        file.write_text(json.dumps(asdict(job)))
        file.rename(file.with_suffix(".json"))  # whole, whenever the process is killed

    def _shown(self, job: VideoJob) -> dict[str, Any]:
        is_gateway = self._dialect == "gateway"
        shown: dict[str, Any] = {
            "id": job.id,
            "object": "video",
            "model": self._model_id,
            "status": (_GATEWAY_STATES if is_gateway else _STATES)[job.state],
            "progress": 50 * job.state,
            "created_at": job.created_at,
            "error": None,
        }
        if job.error:
            shown["status"] = "expired" if job.error == "expired" else "failed"
            code, _, message = job.error.rpartition(": ")
            shown["error"] = {"code": code or "generation_failed", "message": self._echoing(message)}
        if is_gateway:
            shown["polling_url"] = f"http://127.0.0.1:{self._port}/v1/videos/{job.id}"
        if self._dialect == "sglang":
            shown["file_path"] = f"outputs/{job.id}.mp4"
        return shown

    # What the server is, and its other host, which should never see a key.

    async def _facts(self, request: web.Request) -> web.StreamResponse:
        model = {"id": self._model_id, "object": "model", "created": 0, "owned_by": self._dialect}
        pages = {"/v1/models": {"object": "list", "data": [model]}, "/health": {"status": "ok"}}
        if self._dialect == "sglang":
            pages["/models"] = {"model_path": self._model_id, "dit_precision": "fp32"}
        if self._dialect != "gateway":
            pages["/openapi.json"] = openapi(self._dialect)
        if request.path not in pages:
            raise web.HTTPNotFound
        return self._answer(pages[request.path])

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        has_key = "Authorization" in request.headers
        self._note("elsewhere", method=request.method, path=request.path, has_key=has_key)
        name = Path(request.path).name
        if job := self._jobs.get(name.removesuffix(".mp4")):
            return await self._send(request, job)
        if not name.endswith(".png") or not (self._folder / name).exists():
            raise web.HTTPNotFound
        if (status := self._faults.value("status", "", "content")) is not None:
            return self._not_now(status)
        return web.Response(body=(self._folder / name).read_bytes(), content_type="image/png")


async def _listen(app: web.Application, port: int) -> int:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    return int(runner.addresses[0][1])


def serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dialect", choices=FIELDS, required=True)
    parser.add_argument("--key", default="")
    for option in ("--model", "--faults", "--log", "--state"):
        parser.add_argument(option, type=Path)
    asyncio.run(Service(parser.parse_args()).run())
