"""The server of the videos API that other tests run: what they rely on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
import requests

from tests.videos_clips import Frames, is_spoilt, synthetic_frames
from tests.videos_server import VideosServer, videos_server

WORDS = {"prompt": "a red ball", "seed": 7, "width": 32, "height": 16, "num_frames": 5, "fps": 8}
HEADERS = {"Authorization": "Bearer sk-1", "Idempotency-Key": "row-1"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[VideosServer]:
    with videos_server("gateway", key="sk-1") as server:
        yield server


def send(server: VideosServer, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, f"{server.url}{path}", headers=HEADERS, timeout=60, **options)


def create(server: VideosServer, **words: Any) -> requests.Response:
    body = WORDS | words
    form = {name: (None, str(value)) for name, value in body.items()}
    return send(server, "POST", "/videos", **{"files": form} if server.dialect == "vllm" else {"json": body})


def finish(server: VideosServer, **words: Any) -> dict[str, Any]:
    """Return what a poll says of a new job that is over."""
    id = create(server, **words).json()["id"]
    while True:
        job: dict[str, Any] = send(server, "GET", f"/videos/{id}").json()
        if job["progress"] == 100 or job["error"]:
            return job


def content(server: VideosServer, id: str) -> requests.Response:
    return send(server, "GET", f"/videos/{id}/content")


def frames_of(clip: bytes) -> Frames:
    with av.open(io.BytesIO(clip), "r") as file:
        return np.stack([frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in file.decode(video=0)])


@pytest.mark.parametrize(
    ("dialect", "status"), [("vllm", "completed"), ("sglang", "completed"), ("gateway", "succeeded")]
)
def test_a_clip_is_lossless_and_outlives_the_process_unless_its_id_is_forgotten(
    dialect: str, status: str
) -> None:
    with videos_server(dialect, key="sk-1") as server:
        job = finish(server)
        clip = content(server, job["id"]).content
        assert job["status"] == status
        assert np.array_equal(frames_of(clip), synthetic_frames(WORDS))
        server.restart(forget=False)
        assert content(server, job["id"]).content == clip
        server.restart()
        assert send(server, "GET", f"/videos/{job['id']}").status_code == 404
        assert server.ids() == [job["id"]]
        assert server.posts_by_key() == {"row-1": 1}
        assert not any(entry["has_key"] for entry in server.log("elsewhere"))


def test_a_field_that_it_does_not_know_is_refused_unless_the_dialect_ignores_it(
    gateway: VideosServer,
) -> None:
    with videos_server("vllm") as vllm, videos_server("sglang") as sglang:
        detail = create(vllm, eta=1).json()["detail"]
        assert detail == [{"type": "extra_forbidden", "loc": ["body", "eta"], "msg": detail[0]["msg"]}]
        assert create(sglang, eta=1).status_code == 200
        assert create(gateway, num_inference_steps=4).status_code == 400
        page = requests.get(f"{vllm.url.removesuffix('/v1')}/openapi.json", timeout=60).json()
        fields = page["components"]["schemas"]["Body_create_video_v1_videos_post"]["properties"]
        assert fields["num_frames"] == {"type": "integer"}
        assert "eta" not in fields


def test_faults_are_met_by_the_requests_that_they_are_for(gateway: VideosServer) -> None:
    gateway.set_faults(
        busy={"first": 1, "value": 3}, failed={"prompt": "bad", "value": "no"}, idempotent=False
    )
    refused = create(gateway)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
    assert finish(gateway)["status"] == "succeeded"
    assert finish(gateway, prompt="a bad ball")["error"]["message"] == "no"


def test_a_post_whose_answer_is_lost_has_made_a_job_that_its_key_finds(gateway: VideosServer) -> None:
    gateway.set_faults(drop_answer={"first": 1})
    with pytest.raises(requests.ConnectionError):
        create(gateway, prompt="lost")
    assert create(gateway, prompt="lost").json()["id"] == gateway.posts()[-2]["id"]


def test_content_is_not_always_a_clip(gateway: VideosServer) -> None:
    gateway.set_faults(idempotent=False)
    id = finish(gateway)["id"]
    whole = content(gateway, id).content
    for fault, size in {"empty": 0, "half": len(whole) // 2, "octet": len(whole)}.items():
        gateway.set_faults(**{fault: True})
        assert content(gateway, id).content == whole[:size]
    for fault, type in {
        "octet": "application/octet",
        "json_content": "application/json",
        "html": "text",
    }.items():
        gateway.set_faults(**{fault: True})
        answer = content(gateway, id)
        assert (answer.status_code, answer.headers["Content-Type"][: len(type)]) == (200, type)


def test_a_spoilt_server_spoils_the_clips_that_is_spoilt_names(gateway: VideosServer) -> None:
    gateway.set_faults(level=4, idempotent=False)
    for seed in range(8):
        frames = frames_of(content(gateway, finish(gateway, seed=seed)["id"]).content)
        differing = np.abs(frames.astype(int) - synthetic_frames(WORDS | {"seed": seed})).sum()
        assert differing == is_spoilt("level", 4, prompt="a red ball", seed=seed)
    assert {is_spoilt("level", 4, prompt="a red ball", seed=seed) for seed in range(8)} == {False, True}
