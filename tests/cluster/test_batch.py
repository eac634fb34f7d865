"""Batch files on a fleet: each request a result or an error, and what readers of the API make of both."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from openai.types import ImagesResponse, Video
from PIL import Image

import framefleet
from tests.commands import command
from tests.jobs import records_of
from tests.tiny import SMALLEST, tiny
from tests.videos_server import videos_server

CPU = ("--set", "model.device=cpu", "--set", "fleet.workers=2")


def write_lines(file: Path, url: str, bodies: list[Any]) -> Path:
    lines = [
        {"custom_id": f"line {number}", "method": "POST", "url": url, "body": body}
        for number, body in enumerate(bodies)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_hundred_requests_of_which_seven_are_wrong(tmp_path: Path, ray_cluster: str) -> None:
    size = "{width}x{height}".format(**SMALLEST["wan"])
    body = {"size": size, "num_inference_steps": 1, "num_frames": 5, "max_sequence_length": 32}
    bodies: list[Any] = [{"prompt": f"ball {number}", "model": "sora-2", **body} for number in range(100)]
    bodies[10] |= {"n": 2, "seed": 7}
    wrong = {
        3: (bodies[3] | {"prompt": None}, "missing_required_parameter"),
        20: (bodies[20] | {"size": "big"}, "invalid_value"),
        31: (bodies[31] | {"height": 33, "size": None}, "invalid_value"),
        42: (bodies[42] | {"cfg": 7}, "unknown_parameter"),
        53: (bodies[53] | {"quality": "high"}, "unsupported_value"),
        64: ("a ball", "missing_required_parameter"),
        99: (bodies[99] | {"n": 1000}, "invalid_value"),
    }
    for number, (changed, _) in wrong.items():
        bodies[number] = changed
    file, results = write_lines(tmp_path / "in.jsonl", "/v1/videos", bodies), tmp_path / "out.jsonl"
    options = ("--model", tiny("wan"), *CPU, "--set", f"fleet.address={ray_cluster}")
    command("batch", file, "-o", results, *options, exits=1)
    answers, refused = read(results), read(tmp_path / "out.errors.jsonl")
    numbers = [number for number in range(100) if number not in wrong]
    assert [one["custom_id"] for one in answers] == [f"line {number}" for number in numbers]
    records = {record["row_id"]: record for record in records_of(tmp_path / "out")}
    assert len(records) == 94
    for answer in answers:
        assert answer["response"]["status_code"] == 200 and answer["error"] is None
        content = answer["response"]["body"]
        for video in content["data"] if content["object"] == "list" else [content]:
            # The client's own type knows four sizes; the client takes others all the same.
            Video.model_validate(video | {"size": "1280x720"})
            record = records[video["row_id"]]
            assert (video["url"], video["size"], video["status"]) == (record["uri"], size, "completed")
            assert Path(video["url"]).is_file()
    (several,) = [one["response"]["body"]["data"] for one in answers if one["custom_id"] == "line 10"]
    assert [video["seed"] for video in several] == [7, 8]
    assert [(one["custom_id"], one["error"]["code"]) for one in refused] == [
        (f"line {number}", code) for number, (_, code) in wrong.items()
    ]
    assert {one["response"]["status_code"] for one in refused} == {400}
    before = results.read_bytes()
    again = command("batch", file, "-o", results, *options)
    assert "nothing to do" in again.stderr and results.read_bytes() == before


def test_pictures_and_edits_of_pictures(tmp_path: Path, ray_cluster: str) -> None:
    drawn = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(drawn, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}"
    sets = ["model.device=cpu", "fleet.workers=1", f"fleet.address={ray_cluster}"]
    for model, url, body in (
        ("flux", "/v1/images/generations", {"response_format": "b64_json", "n": 2}),
        ("amused_img2img", "/v1/images/edits", {"image": picture}),
    ):
        words = {name: value for name, value in SMALLEST[model].items() if name != "output_type"}
        file = write_lines(tmp_path / f"{model}.jsonl", url, [{"prompt": "a ball", **words, **body}])
        ended = framefleet.batch(file, tmp_path / f"{model}.out.jsonl", model=str(tiny(model)), sets=sets)
        assert (ended.done, ended.errors, ended.exit_code) == (1, None, 0)
        (answer,) = read(tmp_path / f"{model}.out.jsonl")
        images = ImagesResponse.model_validate(answer["response"]["body"]).data or []
        assert len(images) == body.get("n", 1)
        for image in images:
            content = (
                base64.b64decode(image.b64_json) if image.b64_json else Path(image.url or "").read_bytes()
            )
            assert Image.open(io.BytesIO(content)).format == "PNG"


def test_servers_render_a_batch(tmp_path: Path) -> None:
    size = {"size": "32x16", "fps": 8, "seconds": "0.5"}
    bodies = [{"prompt": f"a fox {number}", "model": "synthetic", **size} for number in (0, 1, 2, 2)]
    file = write_lines(tmp_path / "in.jsonl", "/v1/videos", [*bodies, {"prompt": "a fox", "cfg": 3}])
    with videos_server("sglang") as server:
        options = ["--engine", server.url, "--set", "engine.poll_s=0.05", "-o", tmp_path / "out.jsonl"]
        ended = command("batch", file, *options)
        assert ended.exit_code == 1, ended.output
        assert [one["response"]["body"]["num_frames"] for one in read(tmp_path / "out.jsonl")] == [4] * 4
        assert len(records_of(tmp_path / "out")) == 3, "two lines ask for the same clip"
        (error,) = read(tmp_path / "out.errors.jsonl")
        assert error["error"]["code"] == "unknown_parameter"
        for where, num_lines, left in (
            ("prompt = 'a fox 0'", 5, [1, 2, 3]),
            ("", 6, [1, 2, 3, 5]),
            ("true", 6, []),
        ):
            if where:
                framefleet.forget(str(tmp_path / "out"), where=where)
            write_lines(file, "/v1/videos", [*bodies, {"prompt": "a fox", "cfg": 3}, bodies[3]][:num_lines])
            again = command("batch", file, *options, exits=1 if left else 2)
            assert "left; run it again" not in again.stderr
            codes = {one["custom_id"]: one["error"]["code"] for one in read(tmp_path / "out.errors.jsonl")}
            gone = {f"line {number}": "forgotten" for number in range(num_lines) if number not in left}
            assert codes == gone | {"line 4": "unknown_parameter"}
        assert len(server.ids()) == 3
