"""The server that other tests speak the videos API with: what they rely on."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
import requests

from tests.videos_clips import Frames, made_frames
from tests.videos_server import VideosServer, videos_server

WORDS: dict[str, Any] = {
    "prompt": "a red ball",
    "seed": 7,
    "width": 32,
    "height": 16,
    "num_frames": 5,
    "fps": 8,
}
KEY = {"Authorization": "Bearer sk-1", "Idempotency-Key": "row-1"}


def created(server: VideosServer, **words: Any) -> requests.Response:
    body = WORDS | words
    form = {name: (None, str(value)) for name, value in body.items()}
    sent = {"files": form} if server.dialect == "vllm" else {"json": body}
    return requests.post(f"{server.url}/videos", headers=KEY, timeout=60, **sent)


def finished(server: VideosServer, job: str) -> dict[str, Any]:
    while True:
        answer = requests.get(f"{server.url}/videos/{job}", headers=KEY, timeout=60)
        body = answer.json()
        if body.get("progress", 100) == 100 or body["error"]:
            return {"code": answer.status_code, **body}


def content(server: VideosServer, job: str) -> requests.Response:
    return requests.get(f"{server.url}/videos/{job}/content", headers=KEY, timeout=60)


def frames_of(clip: bytes) -> Frames:
    with av.open(io.BytesIO(clip), "r") as file:
        return np.stack([frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in file.decode(video=0)])


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "gateway"])
def test_a_clip_is_lossless_and_outlives_the_process_unless_it_is_forgotten(dialect: str) -> None:
    with videos_server(dialect, key="sk-1") as server:
        job = created(server).json()["id"]
        assert finished(server, job)["status"] in ("completed", "succeeded")
        clip = content(server, job).content
        assert np.array_equal(frames_of(clip), made_frames(WORDS))
        server.restart(forget=False)
        assert content(server, job).content == clip
        server.restart()
        assert finished(server, job)["code"] == 404
        assert [post["id"] for post in server.posts()] == [job]
        assert not any(entry["has_key"] for entry in server.log("elsewhere"))
