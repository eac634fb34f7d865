"""A second file of each clip: larger, or with more frames; stored, found, damaged, exported and refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import framefleet
from framefleet import Clip, FramefleetError, ModelError, OutOfMemory, RenderError, Request, Store
from framefleet.api.clips import Audio, FileStep, Media, StepInput, decode, read_metadata
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.worker.blame import culprit_of
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.steps import check_steps, decisive_sections, open_steps
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.encode_clip import EncodedClip, encode_clip, encode_input, store_clip
from framefleet.pipeline.outputs.frames.frames import Frames, to_pixels
from framefleet.pipeline.outputs.parts.pending_clips import announce, finished_clips, intents_in, sweep
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.keep.damage import ClipIndex, damaged_records, strays
from framefleet.plugins.marks.settings import ClipMarks, Provider
from framefleet.plugins.marks.step import MarkStep
from framefleet.plugins.post import networks
from tests.commands import command
from tests.configs import SD, WAN, write_model
from tests.outputs import write_part
from tests.rows import row_id
from tests.unit.test_encode_clip import CLIP

FFV1 = Media(format="mkv")
needs_spandrel = pytest.mark.skipif(
    not (importlib.util.find_spec("spandrel") and importlib.util.find_spec("torchvision")),
    reason="needs spandrel and torchvision",
)


def moving(num_frames: int = 5) -> Frames:
    """A textured square that moves four pixels to the right in each frame."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    frames = np.full((num_frames, 64, 96, 3), 90, np.uint8)
    for number, frame in enumerate(frames):
        frame[24:40, 8 + 4 * number : 24 + 4 * number] = picture
    return frames


MODEL_DIGEST = "0" * 64


def clip_of(request: Request = CLIP.request, **more: Any) -> Clip:
    own_id = row_id(request, model_digest=MODEL_DIGEST, numerics={**CLIP.numerics}, recipe_digest=None)
    more = {"pixels": to_pixels(moving()), "model_digest": MODEL_DIGEST, **more}
    return replace(CLIP, row_id=own_id, request=request, **more)


ROW_ID = clip_of().row_id


def step_of(*post: dict[str, Any]) -> FileStep:
    (step,) = open_steps(job_of(*post)).values()
    return step


def job_of(*post: dict[str, Any], **more: Any) -> Any:
    return load_job({"output": "out", "model": "m", "sweep": {"prompt": "a"}, "post": [*post], **more})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network of the architecture Compact (Real-ESRGAN's), for twice the size, with random weights."""
    torch.manual_seed(0)
    save_file({name: tensor.contiguous() for name, tensor in compact().items()}, tmp_path / "x2.safetensors")
    return tmp_path / "x2.safetensors"


def compact() -> dict[str, torch.Tensor]:
    convolutions = {0: (4, 3), 2: (4, 4), 4: (12, 4)}
    tensors = {f"body.{place}.weight": torch.randn(*size, 3, 3) / 9 for place, size in convolutions.items()}
    tensors |= {f"body.{place}.bias": torch.zeros(size[0]) for place, size in convolutions.items()}
    return tensors | {f"body.{place}.weight": torch.full((4,), 0.2) for place in (1, 3)}


def by_hand(tensors: dict[str, torch.Tensor], frame: Frames) -> Frames:
    """The same network, written down: convolutions, and the enlarged picture added to what they return."""
    functional = torch.nn.functional
    pixels = hidden = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None] / 255
    for place in (0, 2, 4):
        weight, bias = (tensors[f"body.{place}.{name}"] for name in ("weight", "bias"))
        hidden = functional.conv2d(hidden, weight, bias, padding=1)
        if place < 4:
            hidden = functional.prelu(hidden, tensors[f"body.{place + 1}.weight"])
    large = functional.pixel_shuffle(hidden, 2) + functional.interpolate(pixels, scale_factor=2)
    return (large[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_frames_between_follow_the_motion_and_the_clip_lasts_as_long() -> None:
    encoded = encode_clip(clip_of(), FFV1, [step_of({"interpolate": 2})])
    assert encoded.derived is not None
    frames, record = decode(encoded.derived), encoded.record
    assert np.array_equal(frames[::2], moving()) and np.array_equal(frames[-1], frames[-2])
    for number in range(4):  # the square is half way: two pixels on
        expected = np.full((64, 96, 3), 90, np.uint8)
        expected[24:40, 10 + 4 * number : 26 + 4 * number] = moving()[0, 24:40, 8:24]
        errors = [
            np.abs(one.astype(int) - expected).mean() for one in (frames[2 * number + 1], frames[2 * number])
        ]
        assert errors[0] < errors[1] / 2
    assert (record.derived_num_frames, record.derived_fps, record.fps) == (10, 32.0, 16.0)
    assert encoded.content == encode_clip(clip_of(), FFV1).content
    assert encode_clip(clip_of(), FFV1, [step_of({"interpolate": 2})]).derived == encoded.derived


def test_sound_goes_into_both_files_in_step() -> None:
    sound = Audio(samples=np.zeros((1, 2500), np.float32), sample_rate=8000)
    clip = clip_of(audio=sound, audio_sha256="0" * 64)
    encoded = encode_clip(clip, Media(), [step_of({"interpolate": 4})])
    assert encoded.record.derived_fps == 64.0
    assert encoded.derived and b"mp4a" in encoded.derived and b"mp4a" in encoded.content


@needs_spandrel
def test_frames_are_those_of_the_network(weights: Path, tmp_path: Path) -> None:
    step = step_of({"upscale": str(weights)}, {"interpolate": 2})
    of = StepInput(clip=clip_of(), media=FFV1)
    encoded = encode_input(of, [step])
    assert encoded.derived is not None
    tensors = load_file(weights)
    frames = decode(encoded.derived)
    torch.set_num_threads(1)
    assert np.array_equal(frames[::2], np.stack([by_hand(tensors, frame) for frame in moving()]))
    assert (encoded.record.derived_height, encoded.record.derived_width) == (128, 192)
    upscale, interpolate = json.loads(str(of.values["post"]))
    assert upscale["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [upscale[name] for name in ("architecture", "upscale")] == ["RealESRGAN Compact", 2]
    assert interpolate["interpolate"] == 2
    pickle = tmp_path / "x2.pth"
    torch.save({"params_ema": tensors}, pickle)
    same = encode_clip(clip_of(), FFV1, [step_of({"upscale": str(pickle), "allow_pickle": True})])
    assert same.derived and np.array_equal(decode(same.derived), frames[::2])


@pytest.mark.parametrize("num_failures", [1, 2])
def test_upscaling_without_memory_is_tried_again(num_failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [torch.OutOfMemoryError("CUDA out of memory")] * num_failures

    def network(pixels: torch.Tensor) -> torch.Tensor:
        if failures:
            raise failures.pop()
        return torch.nn.functional.interpolate(pixels, scale_factor=2)

    monkeypatch.setattr(networks, "open_network", lambda *_: network)
    upscaling = networks.Upscaling(weights="x2.safetensors", digest="")
    if num_failures == 1:
        larger, _ = upscaling(moving(), 8.0, device="cpu")
        assert np.array_equal(larger, moving().repeat(2, axis=1).repeat(2, axis=2))
        return
    with pytest.raises(OutOfMemory, match=r"post.upscale: a frame of 96x64") as error:
        upscaling(moving(), 8.0, device="cpu")
    assert culprit_of(error.value).blame == "memory" and "model.offload" in error.value.fix


def test_the_second_file_carries_the_marks_of_the_first() -> None:
    marks = MarkStep(marks=ClipMarks(provider=Provider(name="A", code="A"), label=True))
    encoded = encode_clip(clip_of(), Media(), [step_of({"interpolate": 2}), marks])
    assert encoded.derived
    for content in (encoded.content, encoded.derived):
        assert b"ContentProducer" in content and read_metadata(content)["row_id"] == ROW_ID


@pytest.mark.parametrize(
    ("clip", "problem"),
    [
        ({"pixels": to_pixels(np.zeros((3, 64, 64, 4), np.uint8))}, "alpha"),
        ({"pixels": to_pixels(np.full((3, 64, 64, 3), 2, np.float32))}, "HDR"),
        ({"pixels": to_pixels(np.zeros((1, 64, 64, 3), np.uint8))}, "1 frame of 64x64"),
        ({"pixels": to_pixels(np.zeros((3, 16, 64, 3), np.uint8))}, "3 frames of 64x16"),
    ],
)
def test_a_clip_that_it_cannot_take_fails_its_row(clip: dict[str, Any], problem: str) -> None:
    with pytest.raises(RenderError, match=problem):
        step_of({"interpolate": 2}).second_file(StepInput(clip=clip_of(**clip), media=FFV1))


# -- In an output --


def stored(store: Store, encoded: EncodedClip) -> dict[str, Any]:
    """Store a clip and commit its record."""
    announce(store, encoded.record, was_batched=False)
    record = replace(store_clip(store, encoded), row_indices=(0,), worker="w")
    write_part(store, "records", record_schema(pa.schema([])), [values_of(record)], new_run(1))
    return values_of(record)


def damages(store: Store) -> list[tuple[str, str]]:
    index = ClipIndex()
    found = [*damaged_records(store, index, lambda _: None), *strays(store, index)]
    index.close()
    return [(damage.kind, damage.path) for damage in found]


@pytest.fixture
def encoded() -> EncodedClip:
    return encode_clip(clip_of(), FFV1, [step_of({"interpolate": 2})])


def test_a_record_names_both_files_and_damage_is_found(encoded: EncodedClip, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = stored(store, encoded)
    content = store.read(record["derived_path"])
    assert record["derived_path"] == f"derived/{ROW_ID[:2]}/{ROW_ID}.mkv" != record["path"]
    assert hashlib.sha256(content).hexdigest() == record["derived_sha256"] != record["media_sha256"]
    assert (len(content), damages(store)) == (record["derived_bytes"], [])
    for change, kind in ((content[:-1], "size"), (b"x" + content[1:], "bytes"), (None, "missing")):
        (tmp_path / record["derived_path"]).unlink()
        if change is not None:
            store.write(record["derived_path"], change)
        assert damages(store) == [(kind, record["derived_path"])]


def test_files_of_other_attempts_are_strays_and_are_swept(encoded: EncodedClip, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    other = encode_clip(clip_of(), FFV1, [step_of({"interpolate": 3})])
    announce(store, other.record, was_batched=False)
    lost = store_clip(store, other)
    record = stored(store, encoded)
    assert lost.path == record["path"]  # of equal bytes
    assert record["derived_path"] not in (lost.derived_path, None)
    assert damages(store) == [("uncommitted", lost.derived_path)]
    with DriverLock(store) as lock:
        sweep(store, intents_in(store), lock)
    assert store.list("derived") == [record["derived_path"]]
    assert (damages(store), store.list("pending")) == ([], [])


def test_a_clip_is_adopted_with_its_second_file_or_not_at_all(encoded: EncodedClip, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    announce(store, encoded.record, was_batched=False)
    record = store_clip(store, encoded)
    (adopted,) = finished_clips(store, intents_in(store), ".mkv")
    assert (adopted.record.path, adopted.record.derived_path) == (record.path, record.derived_path)
    store.delete(str(record.derived_path))
    assert [*finished_clips(store, intents_in(store), ".mkv")] == []


def test_exports_choose_the_file(encoded: EncodedClip, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    record = stored(store, encoded)
    stored(store, encode_clip(clip_of(replace(CLIP.request, seed=8)), FFV1))  # of a job without post
    command("export", tmp_path / "out", tmp_path / "to", "--format", "parquet", "--file", "derived", exits=0)
    (row,) = pq.read_table(tmp_path / "to").to_pylist()
    assert row["video"]["bytes"] == store.read(record["derived_path"])
    assert (row["num_frames"], row["fps"], row["row_id"]) == (10, 32.0, ROW_ID)
    assert framefleet.export(str(tmp_path / "out"), str(tmp_path / "both"), format="hf").num_rows == 2
    more: dict[str, Any] = {"format": "parquet", "file": "derived", "columns": ["fps", "derived_path"]}
    own = framefleet.export(str(tmp_path / "out"), str(tmp_path / "own"), **more)
    (row,) = pq.read_table(own.place.url_of("")).to_pylist()
    assert (row["fps"], row["derived_path"]) == (32.0, record["derived_path"])
    options = ("--format", "hf", "--file", "derived", "--where", "false")
    wrong = command("export", tmp_path / "out", tmp_path / "x", *options)
    assert wrong.exit_code == 2 and "only rows of a job with `post:` have a second clip" in wrong.output


# -- Of a job --


# Format, frames per second, how many times as many there are to be, and the fastest rate for that.
FASTEST = [
    ("gif", 16, (4,), 12.5),
    ("webp", 24, (8,), 12.5),
    ("mp4", 240, (8,), 125),
    ("mkv", 24, (8, 8), 15.625),
]


def refused(*post: dict[str, Any], format: str = "mp4", fps: float | None = None) -> str:
    with pytest.raises(FramefleetError) as error:
        check_steps(open_steps(job_of(*post)), [], Media(format=format, fps=fps))  # type: ignore[arg-type]
    return f"{error.value.problem}; {error.value.fix}"


def test_what_a_job_cannot_have_is_refused(weights: Path) -> None:
    assert "post" in refused({"interpolate": 1}) and "2" in refused({"interpolate": 1})
    assert "png" in refused({"interpolate": 2}, format="png")
    assert "media.format is exr.zip" in refused({"interpolate": 2}, format="exr.zip")
    for format, fps, times, most in FASTEST:
        what = f"{format} at {fps * prod(times):g} fps: "
        told = refused(*({"interpolate": one} for one in times), format=format, fps=fps)
        assert what in told and f"use {most:g} fps or less" in told
    if importlib.util.find_spec("spandrel") is None:
        assert "pip install 'framefleet[post]'" in refused({"upscale": str(weights)})
    else:
        assert "allow_pickle: true" in refused({"upscale": "x2.pth"})
        assert "x.safetensors cannot be read" in refused({"upscale": "x.safetensors"})


def refusals(arguments: dict[str, Any], *post: dict[str, Any], of: str = "WanPipeline", **more: Any) -> str:
    """What is wrong with a row, before anything is rendered."""
    configs = {"WanPipeline": WAN, "StableDiffusionPipeline": SD}[of]
    with tempfile.TemporaryDirectory() as folder:
        spec = inspect_model(write_model(Path(folder), of, configs))
    steps = [step_of(*post)] if post else []
    batch = pa.RecordBatch.from_pylist([{"prompt": "a", **arguments}])
    (row,) = plan_rows(batch.schema, spec, file_steps=steps, **more).rows(0, batch)
    return str(row.messages()) if isinstance(row, InvalidRow) else ""


def test_rows_without_frames_to_interpolate_are_refused_before_they_are_rendered() -> None:
    twice = {"interpolate": 2}
    assert refusals({}, twice) == "" == refusals({"num_frames": 1})
    single = refusals({"num_frames": 1}, twice)
    assert "row 0: post.interpolate is 2, but the row renders one frame" in single
    assert "one frame" in refusals({}, twice, defaults={"num_frames": 1})
    assert "one frame" in refusals({}, twice, of="StableDiffusionPipeline")
    assert "a side of 16 pixels" in refusals({"height": 16}, twice)
    own = replace(BUILT_IN["generate"], name="mine:clip", digest="0" * 64)
    assert refusals({"num_frames": 1}, twice, recipe=own) == ""  # which may render any number


def test_rows_that_are_too_fast_once_interpolated_are_refused_before_they_are_rendered() -> None:
    for format, fps, times, most in FASTEST:
        post = [{"interpolate": one} for one in times]
        media = Media(format=format)  # type: ignore[arg-type]
        refusal = refusals({"fps": fps}, *post, media=media)
        assert f"post.interpolate is {times[0]}, but {format} at {fps * prod(times):g} fps" in refusal
        assert f"use {most:g} fps or less" in refusal
        assert refusals({"fps": float(most)}, *post, media=media) == ""
        assert refusals({"fps": fps}, media=media) == ""
    gif = Media(format="gif")
    assert "gif at 64 fps" in refusals({}, {"interpolate": 4}, media=gif)  # the model's own rate is 16


@needs_spandrel
def test_weights_are_locked_and_a_worker_refuses_others(weights: Path) -> None:
    job = job_of({"upscale": str(weights)}, {"interpolate": 2})
    (step,) = open_steps(job).values()
    written = {**job.model_dump(), "post": step.written(job.model_dump()["post"])}
    (tensors := compact())["body.0.bias"] += 1
    moved = weights.rename(weights.with_name("moved.safetensors"))
    (other,) = open_steps(job_of({"upscale": str(moved)}, {"interpolate": 2})).values()
    elsewhere = {**written, "post": other.written(job.model_dump()["post"])}
    assert decisive_sections(written, ["post"]) == decisive_sections(elsewhere, ["post"])
    save_file(tensors, weights)
    with pytest.raises(ModelError, match="not the file of the job"):
        step.prepare()
    save_file({"a": torch.zeros(2)}, weights)
    with pytest.raises(ModelError, match="spandrel cannot load"):
        step_of({"upscale": str(weights)}).prepare()
