"""Images, videos and sounds in one cell, in the order in which a model is to read them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.modular_pipelines.minimax_h3 import (
    MiniMaxH3AudioReference,
    MiniMaxH3ImageReference,
    MiniMaxH3VideoReference,
)
from transformers import PaddleOCRVLProcessor

from framefleet import InputError, Inputs, Request, replay
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.frames.frames import Frames, frames_sha256
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.rows.inputs.arguments import open_arguments
from framefleet.pipeline.rows.inputs.pictures import describe
from framefleet.pipeline.rows.inputs.video_frames import num_samples
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.memory.stub_networks import grey_reference
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, records_of, write_job, write_table
from tests.media_files import image_file, sha256, video_file
from tests.modular import plain, plain_frames
from tests.tinies.encoders import VIDEO_ID
from tests.tiny import SMALLEST, tiny

PROMPT = "the subject dances"
CLASSES = {
    "image": MiniMaxH3ImageReference,
    "video": MiniMaxH3VideoReference,
    "audio": MiniMaxH3AudioReference,
}
IMAGE, VIDEO, FILM, SOUND = ({"image": "a.png"}, {"video": "b.mp4"}, {"video": "c.mkv"}, {"audio": "d.wav"})
# All kinds, and the same three in two orders: no two rows are the same.
ROWS: list[list[dict[str, str]]] = [
    [IMAGE, VIDEO, FILM, SOUND],
    [SOUND, VIDEO, IMAGE],
    [VIDEO, SOUND, IMAGE],
]


def sound_file(frames: Frames | None = None) -> bytes:
    """Return a second of noise, in a video where there are frames."""
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, (1, 32_000)).astype(np.float32)
    sound = Audio(samples=samples, sample_rate=32_000)
    media = Media(format="wav" if frames is None else "mkv")
    return encode(frames, media=media, fps=12, metadata={}, audio=sound)


def film_file() -> bytes:
    return sound_file(np.random.default_rng(2).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    contents = (image_file(), video_file(num_frames=12), film_file(), sound_file())
    for name, content in zip(("a.png", "b.mp4", "c.mkv", "d.wav"), contents, strict=True):
        (tmp_path / name).write_bytes(content)
    return tmp_path


class Pairs:
    """Of every two frames the first, as pictures: transformers' own processor of videos needs torchvision."""

    temporal_patch_size = 2

    def __init__(self, pictures: Any) -> None:
        self._pictures = pictures

    def __call__(self, videos: list[np.ndarray], **_: Any) -> dict[str, Any]:
        made = [self._pictures(images=[*frames[::2]], return_tensors="pt") for frames in videos]
        grids = [[len(one["image_grid_thw"]), *one["image_grid_thw"][0][1:].tolist()] for one in made]
        pixels = torch.cat([one["pixel_values"] for one in made])
        return {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor(grids)}


@pytest.fixture
def sees_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = property(lambda self: Pairs(self.image_processor))
    monkeypatch.setattr(PaddleOCRVLProcessor, "video_processor", pairs, raising=False)
    monkeypatch.setattr(PaddleOCRVLProcessor, "video_token_id", VIDEO_ID, raising=False)


def job_of(folder: Path, cells: list[Any]) -> dict[str, Any]:
    rows = [{"prompt": PROMPT, "seed": seed, "references": cell} for seed, cell in enumerate(cells)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", model="minimax_h3")
    return values | {"defaults": SMALLEST["minimax_h3"], "inputs": {"roots": [str(folder)]}}


@pytest.mark.usefixtures("sees_videos")
def test_rows_with_references_are_those_of_plain_calls_and_are_rendered_again(folder: Path) -> None:
    output, row_ids = render_here(job_of(folder, ROWS), is_mixed=True)
    pipe, records = plain(tiny("minimax_h3")), {record["seed"]: record for record in records_of(output)}
    for seed, entries in enumerate(ROWS):
        opened = [CLASSES[kind].from_file(folder / name) for entry in entries for kind, name in entry.items()]
        arguments = SMALLEST["minimax_h3"] | {"prompt": PROMPT, "references": opened}
        frames = plain_frames(pipe, Request(arguments=arguments, seed=seed))
        assert records[seed]["frames_sha256"] == frames_sha256(frames)
        named = json.loads(records[seed]["arguments"])["references"]
        assert [part["kind"] for part in named] == [kind for entry in entries for kind in entry]
    assert len({*row_ids}) == len({record["frames_sha256"] for record in records.values()}) == len(ROWS)
    assert replay(output, row_ids[1]).is_equal


def test_a_reference_is_what_its_class_opens(folder: Path) -> None:
    entries = [{"kind": kind, "uri": uri} for entry in ROWS[0] for kind, uri in entry.items()]
    for entry in entries:
        entry["sha256"] = sha256((folder / entry["uri"]).read_bytes())
    inputs = Inputs([str(folder)], base=str(folder))
    opened = open_arguments({"references": entries}, inputs.read, references={"references": CLASSES})
    for found, entry in zip(opened["references"], entries, strict=True):
        expected = CLASSES[entry["kind"]].from_file(folder / entry["uri"])
        assert type(found) is type(expected)
        for name, value in vars(expected).items():
            assert np.array_equal(getattr(found, name), value), name
    with pytest.raises(InputError, match="this model takes no audio there"):
        open_arguments(
            {"references": entries[-1:]}, inputs.read, references={"references": {"image": object}}
        )


@pytest.mark.parametrize("written", [json.dumps, lambda cell: cell], ids=["text", "structs"])
def test_a_cell_is_a_list_of_structs_or_json_text_and_plan_takes_both(written: Any, folder: Path) -> None:
    values = job_of(folder, [written(cell) for cell in ROWS[1:]])
    command("plan", write_job(folder / "job.yaml", values), exits=0)


def test_a_job_gives_its_rows_references(folder: Path) -> None:
    values = job_of(folder, [None])
    values["defaults"] = values["defaults"] | {"references": [IMAGE, SOUND]}
    resolved = resolve_job(load_job(write_job(folder / "job.yaml", values)), Callback())
    named = resolved.first.plan.base["references"]
    assert [part["kind"] for part in named] == ["image", "audio"]


def test_a_call_without_weights_gets_grey_ones(folder: Path) -> None:
    values = job_of(folder, [[SOUND, IMAGE]])
    ended = command("plan", "--hollow", write_job(folder / "job.yaml", values))
    assert ended.exit_code == 0 and "the pipeline accepts every shape" in ended.stderr
    classes = {made: grey_reference(made, (48, 32)) for made in CLASSES.values()}
    assert all(type(found) is made for made, found in classes.items())


REFUSED: tuple[tuple[Any, str], ...] = (
    ([{"image": "gone.png"}], "its entry 0, {'image': 'gone.png'}: it does not exist"),
    ([IMAGE, {"video": "a.png"}], "its entry 1, {'video': 'a.png'}: it is an image (png), not a video"),
    ([{"audio": "b.mp4"}], "its entry 0, {'audio': 'b.mp4'}: it has no sound"),
    ([{"audio": "a.png"}], "it is an image (png), not a sound"),
    ([{"image": "/etc/hosts"}], "its entry 0, {'image': '/etc/hosts'}: it lies outside of inputs.roots"),
    ([{"picture": "a.png"}], "an entry must name one file, as one of image, video, audio"),
    ([{"image": "a.png", "video": "b.mp4"}], "an entry must name one file"),
    ([{"image": 3}], "it must be the path or URL of an image"),
    (["a.png"], "an entry must name one file"),
    ("a.png", "it must be a list of 1 to"),
    ([], "it must be a list of 1 to"),
)


def test_cells_that_are_no_lists_of_references_are_refused(folder: Path) -> None:
    values = job_of(folder, [json.dumps(cell) if isinstance(cell, list) else cell for cell, _ in REFUSED])
    with closing(resolve_job(load_job(write_job(folder / "job.yaml", values)), Callback())) as resolved:
        ((first, batch),) = resolved.table.batches()
        for row, (_, problem) in zip(resolved.rows.read(first, batch), REFUSED, strict=True):
            assert isinstance(row, InvalidRow)
            ((message, fix),) = row.messages()
            assert problem in message and fix


def test_sound_is_described_by_its_samples_and_what_is_damaged_is_refused() -> None:
    found = describe(sound_file(), "audio")
    assert (found.width, found.height, found.num_frames) == (0, 0, 32_000)
    assert num_samples(film_file()) == 32_000
    assert num_samples(video_file()) == num_samples(video_file("gif", "gif", "rgb8")) == 0
    with pytest.raises(InputError, match="its sound cannot be decoded"):
        num_samples(sound_file()[:30])
    with pytest.raises(InputError, match="not a sound"):
        num_samples(b"#EXTM3U\nhttp://127.0.0.1/secret")
