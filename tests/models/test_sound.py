"""Sound as pipelines of diffusers make it: beside frames, and alone; kept, in step, and the same again."""

from __future__ import annotations

import functools
import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import pytest
import torch

import framefleet
from framefleet import JobError, Store, replay, replay_script
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.outputs.frames.result import audio_sha256, to_audio
from framefleet.pipeline.outputs.media.media import decode, decode_audio
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.outputs.parts.records import Record
from tests.here import render_here, run_script
from tests.jobs import job_values, write_table
from tests.tiny import SMALLEST, UNLIKE, tiny

ROWS: list[dict[str, Any]] = [
    {"prompt": "a red ball", "seed": 1, "num_inference_steps": 3},
    {"prompt": "一只猫", "seed": 2, "num_inference_steps": 4},
    {"prompt": "rain", "seed": 3, "num_inference_steps": 3},
]
# A second: LTX-2's sound ends some 30 ms before its frames, which in a shorter clip were more than one.
Output = tuple[str, dict[int, Record]]
CALLS = UNLIKE | {"ltx2": SMALLEST["ltx2"] | {"num_frames": 25}}


def values_of(folder: Path, model: str, **more: Any) -> dict[str, Any]:
    values = job_values(write_table(folder / "t.parquet", ROWS), folder / "out", model=model, **more)
    return values | {"defaults": CALLS[model]}


def rendered(folder: Path, model: str, *, is_mixed: bool = False, **more: Any) -> Output:
    """Render three rows in company, here; return the output and its records by seed."""
    output, row_ids = render_here(values_of(folder, model, **more), is_mixed=is_mixed)
    records = [find_record(Store(output), row_id) for row_id in row_ids]
    return output, {record.seed: record for record in records}


def content(record: Record) -> bytes:
    return Path(record.uri.removeprefix("file://")).read_bytes()


@functools.cache
def plain_pipe(model: str) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(tiny(model))


@functools.cache
def plain_call(model: str, seed: int) -> Any:
    (row,) = (row for row in ROWS if row["seed"] == seed)
    arguments = CALLS[model] | {name: value for name, value in row.items() if name != "seed"}
    generator = torch.Generator("cpu").manual_seed(seed)
    return plain_pipe(model)(**arguments, generator=generator, output_type="np")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return rendered(tmp_path_factory.mktemp("video"), "ltx2")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return rendered(tmp_path_factory.mktemp("sound"), "stable_audio", is_mixed=True)


def test_rows_in_company_have_frames_and_sound_of_plain_calls(video: Output) -> None:
    for seed, record in video[1].items():
        plain = plain_call("ltx2", seed)
        assert record.batch_size > 1
        assert record.frames_sha256 == frames_sha256(to_frames(plain))
        assert record.audio_sha256 == audio_sha256(to_audio(plain.audio, 24_000))
    assert len({record.audio_sha256 for record in video[1].values()}) == len(ROWS)


def test_an_mp4_of_ltx_2_plays_frames_and_sound_in_step(video: Output) -> None:
    for seed, record in video[1].items():
        assert (record.audio_sample_rate, record.audio_channels, record.fps) == (24_000, 2, 24.0)
        with av.open(io.BytesIO(content(record)), "r") as container:
            pictures, heard = container.streams.video[0], container.streams.audio[0]
            ends = [float(stream.duration * stream.time_base) for stream in (pictures, heard)]
            assert (pictures.start_time, heard.start_time, heard.codec.name) == (0, 0, "aac")
        assert ends == pytest.approx([record.duration_s] * 2, abs=1 / 24)
        samples, rate = decode_audio(content(record)) or (np.empty(0), 0)
        told = to_audio(plain_call("ltx2", seed).audio, 24_000).pcm()
        assert rate == 24_000
        # It is near noise, which AAC is not for.
        assert np.corrcoef(samples[: len(told), 0], told[:, 0])[0, 1] > 0.8


def test_a_replayed_row_has_the_same_sound_and_the_same_file(video: Output) -> None:
    replayed = replay(video[0], video[1][2].row_id)
    assert [name for name, _, _ in replayed.digests] == ["frames_sha256", "audio_sha256", "media_sha256"]
    assert replayed.is_equal


@pytest.mark.parametrize("kind", ["video", "sound"])
def test_a_script_makes_the_same_sound_and_says_when_it_differs(
    kind: str, request: pytest.FixtureRequest
) -> None:
    output, records = request.getfixturevalue(kind)
    digest = str(records[2].audio_sha256)
    script = replay_script(output, records[2].row_id)
    printed = run_script(script)
    assert f"the same sound: {digest}" in printed
    assert ("the same frames: " in printed) == (kind == "video")
    if kind == "sound":
        with pytest.raises(SystemExit, match="other sound: "):
            run_script(script.replace(digest, "0" * 64))


def test_sound_alone_is_a_flac_whose_record_has_nothing_of_frames(sound: Output) -> None:
    for seed, record in sound[1].items():
        plain = to_audio(plain_call("stable_audio", seed).audios, 8000)
        assert record.uri.endswith(".flac") and record.batch_size > 1
        assert record.audio_sha256 == audio_sha256(plain)
        nothing = (record.frames_sha256, record.height, record.width, record.num_frames, record.fps)
        assert nothing == (None,) * 5
        assert record.duration_s == pytest.approx(0.2)
        samples, _ = decode_audio(content(record)) or (np.empty(0), 0)
        assert np.array_equal(samples, plain.pcm())


def test_a_lossless_file_has_the_sound_of_its_record_and_none_where_the_job_wants_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "silent").mkdir()
    _, records = rendered(tmp_path, "ltx2", media={"format": "mkv"})
    _, silent = rendered(tmp_path / "silent", "ltx2", media={"audio": False})
    for seed, record in records.items():
        samples, rate = decode_audio(content(record)) or (np.empty((0, 0)), 0)
        floats = samples.T.astype(np.float32) / np.float32(32767)
        assert audio_sha256(to_audio(floats, rate)) == record.audio_sha256
        assert frames_sha256(decode(content(record))) == record.frames_sha256 == silent[seed].frames_sha256
        assert silent[seed].audio_sha256 is None and silent[seed].audio_sample_rate is None
        assert decode_audio(content(silent[seed])) is None


@pytest.mark.parametrize(
    ("model", "media", "message"),
    [
        ("stable_audio", {"format": "mp4"}, "renders sound only"),
        ("stable_audio", {"audio": False}, "only holds sound"),
        ("ltx2", {"format": "wav"}, "renders frames"),
        ("ltx2", {"fps": 30}, "would not keep step with their sound, made for 24"),
        ("ltx2", {"fps": 30, "audio": False}, None),
    ],
)
def test_media_that_cannot_hold_what_a_model_makes_is_refused_at_plan(
    model: str, media: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    values = values_of(tmp_path, model, media=media)
    with pytest.raises(JobError, match=message) if message else nullcontext():
        framefleet.plan(values)
