"""Lines of batch files: what a body means to a model, and which lines are refused, with the API's codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.plugins.batch.lines import Line, error_line, read_lines
from framefleet.plugins.batch.results import refusal_of
from framefleet.plugins.batch.words import EDITS_URL, IMAGES_URL, VIDEOS_URL, Refusal, row_of
from tests.commands import command
from tests.configs import SD, write_model
from tests.tiny import tiny


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    folder = tmp_path_factory.mktemp("models") / "sd"
    return inspect_model(write_model(folder, "StableDiffusionImg2ImgPipeline", SD))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"size": "832x480", "n": 3, "seed": 5, "seconds": "5", "fps": 8},
        {"num_inference_steps": 4, "guidance_scale": 2.5},
    ],
)
def test_a_body_is_a_row(wan: PipelineSpec, body: dict[str, Any]) -> None:
    row = {"prompt": "a fox", **body}
    assert row_of(row | {"quality": "auto", "user": "me", "n": body.get("n")}, VIDEOS_URL, wan) == row


@pytest.mark.parametrize(("error_type", "status"), [("RowError", 400), ("InputError", 400), ("OSError", 500)])
def test_a_row_that_is_refused_is_the_requests_fault(error_type: str, status: int) -> None:
    refusal = refusal_of(error_type, "answered 400: no")
    line = Line(number=1, custom_id="a")
    answer = json.loads(error_line(line, refusal))["response"]
    error = answer["body"]["error"]
    assert (answer["status_code"], error_type in error["message"]) == (status, status == 500)
    assert error["type"] == ("server_error" if status == 500 else "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "code", "name"),
    [
        ({"prompt": ""}, "missing_required_parameter", "prompt"),
        ({"prompt": 5}, "missing_required_parameter", "prompt"),
        ({"guidance": 3}, "unknown_parameter", "guidance"),
        ({"quality": "high"}, "unsupported_value", "quality"),
        ({"stream": True}, "unsupported_value", "stream"),
        ({"input_reference": "a.png"}, "unsupported_value", "input_reference"),
        ({"image": ["a.png", "b.png"]}, "invalid_value", "image"),
        ({"image": "a.png", "input_reference": "b.png"}, "invalid_value", "input_reference"),
        ({"n": "1000"}, "invalid_value", "n"),
        ({"n": 1e3}, "invalid_value", "n"),
    ],
)
def test_what_a_body_cannot_have(wan: PipelineSpec, body: dict[str, Any], code: str, name: str) -> None:
    with pytest.raises(Refusal) as raised:
        row_of({"prompt": "a fox", **body}, VIDEOS_URL, wan)
    assert (raised.value.code, raised.value.name) == (code, name)


def test_a_line_asks_for_what_the_model_renders(wan: PipelineSpec, edits: PipelineSpec) -> None:
    for url, spec in ((IMAGES_URL, wan), (VIDEOS_URL, edits)):
        with pytest.raises(Refusal, match="asks for something else"):
            row_of({"prompt": "a fox"}, url, spec)


def test_pictures_to_start_from(edits: PipelineSpec) -> None:
    for image in ("a.png", ["a.png"], {"image_url": "a.png"}, [{"image_url": {"url": "a.png"}}]):
        assert row_of({"prompt": "a fox", "image": image}, EDITS_URL, edits)["image"] == "a.png"
    for body, url, code in (
        ({}, EDITS_URL, "missing_required_parameter"),
        ({"image": "a.png", "seconds": "3"}, IMAGES_URL, "unsupported_value"),
    ):
        with pytest.raises(Refusal) as raised:
            row_of({"prompt": "a fox", **body}, url, edits)
        assert raised.value.code == code


def test_lines_that_are_no_requests(tmp_path: Path) -> None:
    good = {"custom_id": "a", "method": "POST", "url": VIDEOS_URL, "body": {"prompt": "a fox"}}
    wrong: list[tuple[Any, str]] = [
        (good, "duplicate_custom_id"),
        ([1], "invalid_json_line"),
        (good | {"custom_id": 7}, "missing_required_parameter"),
        (good | {"custom_id": "b", "priority": 1}, "unknown_parameter"),
        (good | {"custom_id": "c", "method": "GET"}, "invalid_method"),
        (good | {"custom_id": "d", "url": "/v1/chat/completions"}, "invalid_url"),
        (good | {"custom_id": "e", "body": "a fox"}, "missing_required_parameter"),
        (good | {"custom_id": "f", "body": {"prompt": "half an emoji \ud83d"}}, "invalid_json_line"),
        (good | {"custom_id": "half an emoji \ud83d"}, "invalid_json_line"),
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, [good, *(line for line, _ in wrong)])) + '\n\n{"custom_id": \n')
    first, *others = read_lines(file)
    assert first.refusal is None and first.body == good["body"]
    codes = [line.refusal.code for line in others if line.refusal]
    assert codes == [*(code for _, code in wrong), "invalid_json_line"]
    assert [line.number for line in others] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 12]
    assert all(error_line(line, line.refusal).encode() for line in others if line.refusal)


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "out"],  # the folder of clips, too
        ["-o", "in.jsonl"],
        ["-o", "out.jsonl", "--errors", "in.jsonl"],
        ["-o", "out.jsonl", "--errors", "./out.jsonl"],
        ["-o", "out.jsonl", "--output", "out.errors.jsonl"],
        ["-o", "s3://bucket/out.jsonl"],
    ],
)
def test_files_that_would_be_lost_are_refused_before_anything_is_rendered(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"custom_id": "a"}')
    ended = command("batch", "in.jsonl", *options, "--model", "nowhere")
    assert ended.exit_code == 2 and ("two of" in ended.stderr or "no file" in ended.stderr), ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ("a fox", "wan"),
        ({"prompt": "a fox", "cfg": 7}, "wan"),
        ({"prompt": "a fox", "height": 33}, "wan"),
        ({"prompt": "a fox", "image": "data:image/png;base64,é"}, "amused_img2img"),
        ({"prompt": "a fox", "image": "data:image/png;base64,!"}, "amused_img2img"),
    ],
)
def test_lines_that_are_all_refused_are_listed_in_the_file_of_errors(
    body: Any, model: str, tmp_path: Path
) -> None:
    url = VIDEOS_URL if model == "wan" else EDITS_URL
    line = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    (tmp_path / "in.jsonl").write_text(json.dumps(line))
    words = ["-o", str(tmp_path / "out.jsonl"), "--model", str(tiny(model))]
    ended = command("batch", tmp_path / "in.jsonl", *words, "--set", "model.device=cpu")
    (refused,) = (tmp_path / "out.errors.jsonl").read_text().splitlines()
    assert ended.exit_code == 2 and json.loads(refused)["response"]["status_code"] == 400, ended.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("", "it is empty"),
        (
            '{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "x"}}',
            "give --model",
        ),
    ],
)
def test_a_file_that_cannot_be_rendered_says_why(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "in.jsonl").write_text(text)
    assert said in command("batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", exits=2).stderr
