"""From a table to rows that can be trained on: what is taken, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from framefleet import Inputs, JobError, Store, TableError
from framefleet.api.clips import Media, decode, encode
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.train.dataset.batches import TrainingRows, buckets_of, choose_bucket
from framefleet.plugins.train.dataset.columns import column_kinds, plan_columns, table_folder
from framefleet.plugins.train.dataset.prepared_cache import fitted_frames, read_frames
from framefleet.plugins.train.dataset.survey import survey
from framefleet.plugins.train.job import TrainedPart
from framefleet.plugins.train.task import NO_FRAMES, Bucket
from tests.configs import SD, write_model
from tests.lerobot_dataset import CAMERAS, LENGTHS, dataset
from tests.media_files import image_file, sha256
from tests.rows import RECORD
from tests.web_server import WebServer, web

__all__ = ["web"]  # a fixture
SIZES = [[5, 32, 32], [9, 32, 48]]
TEXTS = {"prompt": "a ball", "paraphrase": "球", "contrast": "a star"}
PROMPT = {"prompt": "a ball"}


def clip(path: Path, num_frames: int = 9, height: int = 32, width: int = 48) -> bytes:
    frames = np.random.default_rng(num_frames).integers(0, 256, (num_frames, height, width, 3), np.uint8)
    content = encode(frames, media=Media(format="mkv"), fps=8, metadata={})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def write_table(path: Path, rows: list[dict[str, Any]]) -> str:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return str(path)


class Surveyor:
    """Surveys one table after the other into one output."""

    def __init__(self, spec: PipelineSpec, output: Path) -> None:
        self.spec, self.store = spec, Store(str(output))
        self.refused: list[InvalidRow] = []
        self.checked: list[int] = []
        self.opened: list[str] = []

    def __call__(
        self,
        location: str,
        part: TrainedPart = "denoiser",
        *,
        sizes: list[list[int]] = SIZES,
        roots: Sequence[str] = (),
        **job: Any,
    ) -> TrainingRows:
        table = open_table(location, arguments=column_kinds(self.spec, job.get("columns", {})))
        columns = plan_columns(table, self.spec, part, **job)
        inputs = Watched([table_folder(location, table.schema), *roots], opened=self.opened)
        buckets = buckets_of(sizes, self.spec)

        def refuse(row: InvalidRow, cells: pa.RecordBatch) -> None:
            assert cells.num_rows == 1
            self.refused.append(row)

        rows = survey(columns, buckets, inputs, store=self.store, refused=refuse, checked=self.checked.append)
        return TrainingRows(rows)

    def told(self) -> list[str]:
        return [f"{problem}; {fix}" for row in self.refused for problem, fix in row.messages()]


class Watched(Inputs):
    def __init__(self, roots: list[str], opened: list[str]) -> None:
        super().__init__(roots)
        self._opened = opened

    def read(self, uri: str) -> bytes:
        self._opened.append(Path(uri).name)
        return super().read(uri)


@pytest.fixture
def surveyor(wan: PipelineSpec, tmp_path: Path) -> Surveyor:
    return Surveyor(wan, tmp_path / "out")


def test_rows_carry_their_video_its_digest_their_arguments_and_the_bucket_it_fills(
    surveyor: Surveyor, tmp_path: Path
) -> None:
    content = clip(tmp_path / "clips/a.mkv")
    clip(tmp_path / "clips/b.mkv", num_frames=8)
    rows = [
        {"video": "clips/a.mkv", "prompt": "a ball", "max_sequence_length": 64, "note": "x"},
        {"video": "clips/b.mkv", "prompt": "一个球", "max_sequence_length": "", "note": "y"},
    ]
    first, second = surveyor(write_table(tmp_path / "t.csv", rows), defaults={"max_sequence_length": 32})
    assert first.video == str(tmp_path / "clips/a.mkv") and first.sha256 == sha256(content)
    assert first.arguments == {"prompt": "a ball", "max_sequence_length": 64}
    assert first.bucket == Bucket(num_frames=9, height=32, width=48)
    assert second.arguments == {"prompt": "一个球", "max_sequence_length": 32}
    assert second.bucket == Bucket(num_frames=5, height=32, width=32)
    assert surveyor.checked == [2] and not surveyor.refused


def test_a_default_of_null_leaves_the_argument_out(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    table = write_table(tmp_path / "t.csv", [{"video": "a.mkv", **PROMPT}])
    (row,) = surveyor(table, defaults={"max_sequence_length": None})
    assert row.arguments == PROMPT


PART = {"file": "a.mkv", "from": 0.25, "to": 0.875}


@pytest.mark.parametrize(
    "cells",
    [
        {"video": "a.mkv#frames=2,7"},
        {"video": " a.mkv#t=0.25,0.875 "},
        {"video": PART},
        {"video": "a.mkv", "video_from_s": 0.25, "video_to_s": 0.875},
        {"video": "a.mkv", "video_from_frame": 2, "video_to_frame": 7},
    ],
)
def test_a_row_trains_on_the_part_of_a_video_that_it_names(
    cells: dict[str, Any], surveyor: Surveyor, tmp_path: Path
) -> None:
    frames = decode(clip(tmp_path / "a.mkv"))
    pq.write_table(pa.Table.from_pylist([cells | PROMPT]), tmp_path / "t.parquet")
    (row,) = surveyor(str(tmp_path / "t.parquet"))
    assert (row.video, row.first_frame, row.bucket.num_frames) == (str(tmp_path / "a.mkv"), 2, 5)
    right = fitted_frames(map(Image.fromarray, frames[2:7]), row.bucket)
    assert np.array_equal(read_frames(row, lambda path: Path(path).read_bytes()), right)
    surveyor.opened.clear()
    assert [*surveyor(str(tmp_path / "t.parquet"))] == [row] and not surveyor.opened


def test_a_part_of_a_video_on_the_web_is_read(surveyor: Surveyor, tmp_path: Path, web: WebServer) -> None:
    web.answers["/a.mkv"] = clip(tmp_path / "a.mkv")
    table = write_table(tmp_path / "t.csv", [{"video": f'"{web.url}/a.mkv?sig=s#frames=2,7"', "prompt": "x"}])
    (row,) = surveyor(table, roots=[web.url])
    assert (row.video, row.first_frame) == (f"{web.url}/a.mkv?sig=s", 2)


def test_parts_of_one_video_are_other_content(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    rows = [
        {"video": f'"a.mkv{part}"', "prompt": "x"}
        for part in ("", "#frames=0,9", "#frames=0,5", "#frames=2,7")
    ]
    tables = [surveyor(write_table(tmp_path / "t.csv", [row])) for row in rows]
    whole, same, start, middle = (table.digest() for table in tables)
    assert whole == same and len({whole, start, middle}) == 3
    seeds = [table[0].seed for table in tables]
    assert seeds[0] == seeds[2] != seeds[3]


def test_parts_that_cannot_be_read_are_refused(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    videos = [PART | {"to": 9.0}, PART | {"from": -1.0}]
    pq.write_table(
        pa.Table.from_pylist([{"video": video} | PROMPT for video in videos]), tmp_path / "t.parquet"
    )
    assert not surveyor(str(tmp_path / "t.parquet"))
    beyond, negative = surveyor.told()
    assert "it has 9 frames, the last at 1 s, and the part ends later" in beyond
    assert "it must be the path or URL of a video; write {file: a.mp4, from: 1.5, to: 3}" in negative
    table = write_table(tmp_path / "t.csv", [{"clip": "a.mkv", "video_from_s": 0.5, "prompt": "x"}])
    with pytest.raises(
        TableError, match=r"'video_from_s' is about a column 'video'(.|\n)*call it 'clip_from_s'"
    ):
        surveyor(table, columns={"video": "clip"})


def test_episodes_of_a_lerobot_dataset_are_rows(surveyor: Surveyor, tmp_path: Path) -> None:
    rows = surveyor(f"lerobot://{dataset(tmp_path / 'robot')}")
    firsts = [sum(LENGTHS[:number]) for number in range(len(LENGTHS))]
    assert [row.first_frame for row in rows] == [first for first in firsts for _ in CAMERAS]
    assert [row.bucket.num_frames for row in rows] == [9, 9, 5, 5, 9, 9]


def test_rows_that_cannot_share_a_forward_are_of_two_buckets(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    row = {"video": "a.mkv", "prompt": "max_sequence_length"}
    table = write_table(tmp_path / "t.csv", [row | {"max_sequence_length": n} for n in (64, "", 32, 64)])
    first, without, short, last = surveyor(table).buckets()
    assert first == last and len({first, without, short}) == 3
    assert str(short) == '9 x 32 x 48 with {"max_sequence_length":32}' and str(without) == "9 x 32 x 48"


def test_no_place_of_a_video_is_kept_in_the_output(surveyor: Surveyor, tmp_path: Path) -> None:
    """It may be a signed URL."""
    clip(tmp_path / "s3cr3t.mkv")
    surveyor(write_table(tmp_path / "t.csv", [{"video": "s3cr3t.mkv", "prompt": "x"}]))
    kept = pa.concat_tables(pq.read_table(file) for file in (tmp_path / "out/survey").iterdir())
    assert kept.num_rows == 1 and "s3cr3t" not in str(kept.to_pylist())


def test_a_video_that_was_refused_is_looked_at_again(surveyor: Surveyor, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [{"video": "a.mkv", "prompt": "x"}])
    clip(tmp_path / "a.mkv", num_frames=2)
    assert not [*surveyor(table)] and len(surveyor.refused) == 1
    clip(tmp_path / "a.mkv", num_frames=9)
    assert [row.bucket.num_frames for row in surveyor(table)] == [9]
    assert [row.bucket.num_frames for row in surveyor(table)] == [9] and len(surveyor.opened) == 2


def test_rows_say_how_often_an_epoch_has_them(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    row = {"video": "a.mkv", "prompt": "a ball"}
    table = write_table(tmp_path / "t.csv", [row | {"times": cell} for cell in ("3", "", "0", "1.5")])
    once = surveyor(table)
    for part in ("denoiser", "autoencoder"):
        rows = surveyor(table, part, columns={"repeats": "times"})
        assert rows.repeats() == [3, 1] and [row.repeats for row in rows] == [3, 1]
        assert "repeats" not in rows[0].arguments
    assert once.repeats() == [1] * 4 and once.digest() != rows.digest()
    assert surveyor.told()[:2] == [
        "row 2: times is '0', but it must be from 1 to 10,000; use 1, or leave the row out",
        "row 3: times is '1.5', but it must be a whole number; use a whole number in digits, e.g. 42",
    ]


def test_every_bad_row_is_told_with_the_value_and_the_fix(surveyor: Surveyor, tmp_path: Path) -> None:
    content = clip(tmp_path / "good.mkv")
    (tmp_path / "cut.mkv").write_bytes(content[:-200])
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html>")
    clip(tmp_path / "short.mkv", num_frames=4)
    clip(tmp_path / "small.mkv", height=16, width=16)
    (tmp_path / "picture.png").write_bytes(image_file())
    names = ["good.mkv", "gone.mkv", "cut.mkv", "page.mp4", "short.mkv", "small.mkv", "picture.png", ""]
    names += ["../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/a.mp4"]
    rows = [{"video": name, "prompt": "x"} for name in names] + [{"video": "good.mkv", "prompt": "  "}]
    found = surveyor(write_table(tmp_path / "t.csv", rows))
    assert [row.index for row in found] == [0]
    assert [row.index for row in surveyor.refused] == list(range(1, len(rows)))
    told = surveyor.told()
    expected = (
        "video is 'gone.mkv', but it does not exist; check the path",
        "video is 'cut.mkv', but it cannot be decoded: damaged, cut off or in a rare format; write it again",
        "video is 'page.mp4', but it is a web page, not a video; use a video",
        "video is 'short.mkv', but it is 4 x 32 x 48 (frames x height x width), and training needs "
        "5 x 32 x 32 or 9 x 32 x 48; use a longer or larger one, or set train.sizes to [[4, 32, 48]]",
        "video is 'small.mkv', but it is 9 x 16 x 16 (frames x height x width), and training needs "
        "5 x 32 x 32 or 9 x 32 x 48; use a longer or larger one",
        "video is 'picture.png', but it is an image (png), not a video",
        "video is empty, but every row needs a video; write its path or URL",
        "video is '../../etc/passwd', but it lies outside of inputs.roots",
        "video is 'file:///etc/passwd', but it lies outside of inputs.roots",
        "video is 'http://127.0.0.1/a.mp4', but 127.0.0.1 is at 127.0.0.1, which is not a public address",
        "prompt is '  ', but it is blank; write a prompt",
    )
    for line, start, row in zip(told, expected, surveyor.refused, strict=True):
        assert line.startswith(f"row {row.index}: {start}"), line


def test_a_missing_column_is_told_with_those_there_are(surveyor: Surveyor, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [{"clip": "a.mp4", "text": "x"}])
    with pytest.raises(TableError) as refused:
        surveyor(table)
    assert refused.value.problem == "the table has no column 'prompt' and none 'video'; it has clip, text"
    assert refused.value.fix == "add it, or say which one it is with `columns: {prompt: ...}`"
    clip(tmp_path / "a.mp4")
    assert len(surveyor(table, columns={"video": "clip", "prompt": "text"})) == 1
    for columns, problem in (
        ({"promt": "prompt"}, r"columns\.promt: training reads no 'promt'"),
        ({"prompt": "words"}, r"columns\.prompt names the column 'words', but the table has none"),
    ):
        with pytest.raises(JobError, match=problem):
            surveyor(table, columns=columns)


def test_what_was_surveyed_is_not_read_again(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    clip(tmp_path / "b.mkv", num_frames=5)
    rows = [{"video": name, "prompt": "x"} for name in ("a.mkv", "b.mkv", "gone.mkv")]
    table = write_table(tmp_path / "t.csv", rows)
    first = surveyor(table)
    assert sorted(surveyor.opened) == ["a.mkv", "b.mkv", "gone.mkv"]
    surveyor.opened.clear()
    clip(tmp_path / "gone.mkv")
    again = surveyor(table)
    assert surveyor.opened == ["gone.mkv"] and len(again) == 3
    assert list(again)[:2] == list(first)


def test_the_digest_is_of_what_is_trained_on_and_not_of_where_it_lies(
    surveyor: Surveyor, tmp_path: Path
) -> None:
    def digest(name: str, prompt: str, num_frames: int = 9) -> str:
        clip(tmp_path / name, num_frames=num_frames)
        return surveyor(write_table(tmp_path / "t.csv", [{"video": name, "prompt": prompt}])).digest()

    assert digest("a.mkv", "x") == digest("moved/a.mkv", "x")
    assert len({digest("a.mkv", "x"), digest("a.mkv", "y"), digest("b.mkv", "x", 5)}) == 3


def write_records(output: Path, path: str, *changes: dict[str, Any]) -> str:
    """Write a clip into an output, and a record of it for each of the changes; return their folder."""
    clip(output / path)
    record = {name: getattr(RECORD, name) for name in RECORD.__dataclass_fields__}
    (output / "records").mkdir()
    rows = [record | {"uri": f"/somewhere/else/{path}", "path": path} | changed for changed in changes]
    pq.write_table(pa.Table.from_pylist(rows), output / "records/part-1.parquet")
    return str(output / "records")


@pytest.mark.parametrize(
    ("record", "arguments"),
    [
        ({"shape": "ball"}, {"guidance_scale": 5.0, "max_sequence_length": 512}),
        (
            {"image": "x.png", "max_sequence_length": 512, **PROMPT},
            {"image": {"uri": "x.png"}, "max_sequence_length": 512},
        ),
    ],
)
def test_a_render_jobs_records_are_a_table_of_prompts_also_when_its_output_was_moved(
    record: dict[str, Any], arguments: dict[str, Any], surveyor: Surveyor, tmp_path: Path
) -> None:
    record = record | {"arguments": json.dumps(PROMPT | arguments)}
    (row,) = surveyor(write_records(tmp_path / "rendered", "clips/00/0-aa.mkv", record))
    assert row.video == str(tmp_path / "rendered/clips/00/0-aa.mkv") and row.arguments == PROMPT


def test_a_column_that_the_job_names_takes_the_place_of_the_prompt_of_the_record(
    surveyor: Surveyor, tmp_path: Path
) -> None:
    record = PROMPT | {"arguments": json.dumps(PROMPT)}
    captions = ({"caption": "a red ball rolls"}, {"caption": None})
    records = write_records(tmp_path / "rendered", "clips/00/0.mkv", *(record | one for one in captions))
    (row,) = surveyor(records, columns={"prompt": "caption"})
    assert row.arguments == {"prompt": "a red ball rolls"}
    assert "every row needs a prompt" in surveyor.told()[0]


def test_text_that_is_no_utf8_or_too_long_refuses_its_row_alone(surveyor: Surveyor, tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv")
    prompts = pa.array(["a ball", "ein café".encode("latin-1"), "x" * 70_000, "a star"], pa.binary())
    cells = {"video": ["a.mkv"] * 4, "prompt": prompts.view(pa.string())}
    pq.write_table(pa.table(cells), tmp_path / "t.parquet")
    assert [row.index for row in surveyor(str(tmp_path / "t.parquet"))] == [0, 3]
    not_text, too_long = surveyor.told()
    assert "row 1: prompt is 'ein caf\ufffd', but it is not UTF-8" in not_text
    assert "row 2" in too_long and "longer than 65,536 bytes" in too_long


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("[" * 60_000, "prompt is empty"),
        ("not JSON", "prompt is empty"),
        ('{"prompt": ["a", "b"]}', "prompt is ['a', 'b'], but it must be text"),
        ('{"prompt": "\\ud800"}', None),
    ],
)
def test_records_are_no_more_trusted_than_other_tables(
    arguments: str, problem: str | None, surveyor: Surveyor, tmp_path: Path
) -> None:
    rows = surveyor(write_records(tmp_path, "clips/00/0.mkv", {"arguments": arguments}))
    assert len(rows) == (problem is None)
    assert all(f"row 0: {problem}" in line for line in surveyor.told())


@pytest.mark.parametrize("part", ["autoencoder", "text_encoder"])
def test_a_part_asks_only_for_the_columns_it_trains_on(
    part: TrainedPart, surveyor: Surveyor, tmp_path: Path
) -> None:
    clip(tmp_path / "a.mkv")
    is_of_texts = part == "text_encoder"
    table = write_table(tmp_path / "t.csv", [TEXTS if is_of_texts else {"video": "a.mkv"}])
    (row,) = surveyor(table, part)
    assert row.arguments == (TEXTS if is_of_texts else {})
    assert (row.video is None, row.bucket == NO_FRAMES) == (is_of_texts, is_of_texts)


def test_an_image_model_trains_on_images(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path / "sd", "StableDiffusionPipeline", SD))
    (tmp_path / "a.png").write_bytes(image_file())
    surveyor = Surveyor(spec, tmp_path / "out")
    table = write_table(tmp_path / "t.csv", [{"image": "a.png", "prompt": "x"}])
    (row,) = surveyor(table, sizes=[[1, 48, 64]])
    assert row.bucket == Bucket(num_frames=1, height=48, width=64)


def test_sizes_that_the_model_does_not_render_are_refused(wan: PipelineSpec, surveyor: Surveyor) -> None:
    for size, said in (
        ([9, 60, 64], "height 60 will not do: Wan renders multiples of 16"),
        ([8, 64, 64], r"num_frames 8 will not do: Wan renders 4k \+ 1 frames"),
    ):
        with pytest.raises(JobError, match=said):
            buckets_of([size], wan)
    assert buckets_of([], wan) == (Bucket(num_frames=81, height=480, width=832),)


@pytest.mark.parametrize(
    ("video", "bucket"),
    [
        ((100, 1080, 1920), "49 x 480 x 832"),
        ((100, 1920, 1080), "49 x 832 x 480"),
        ((100, 1000, 1000), "49 x 624 x 624"),
        ((20, 1000, 1000), "9 x 480 x 832"),
        ((49, 480, 832), "49 x 480 x 832"),
    ],
)
def test_a_video_goes_to_the_bucket_that_keeps_most_of_it(video: tuple[int, int, int], bucket: str) -> None:
    sizes = [(49, 480, 832), (49, 832, 480), (49, 624, 624), (9, 480, 832)]
    buckets = [Bucket(num_frames=t, height=h, width=w) for t, h, w in sizes]
    num_frames, height, width = video
    described = Described(sha256="", num_frames=num_frames, height=height, width=width)
    assert str(choose_bucket(buckets, described)) == bucket


def pictures(height: int, width: int, count: int = 3) -> Iterator[Image.Image]:
    """Yield pictures whose red is the column, whose green is the row and whose blue is their number."""
    for number in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0], frame[..., 1], frame[..., 2] = np.arange(width), np.arange(height)[:, None], number
        yield Image.fromarray(frame)


def test_frames_are_taken_from_the_start_and_the_middle_as_they_are() -> None:
    made = fitted_frames(pictures(16, 32, count=5), Bucket(num_frames=3, height=16, width=32))
    assert made.dtype == np.uint8 and made.shape == (3, 16, 32, 3)
    assert (made == np.stack([np.asarray(picture) for picture in pictures(16, 32)])).all()
    made = fitted_frames(pictures(32, 64), Bucket(num_frames=1, height=32, width=32))
    assert (made[0, 0, :, 0] == np.arange(16, 48)).all(), "the middle of a wider picture"


def test_a_larger_picture_is_made_smaller_without_aliasing() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    made = fitted_frames([Image.fromarray(stripes)], Bucket(num_frames=1, height=16, width=16))
    assert (abs(made[:, 2:-2, 2:-2].astype(int) - 127) < 8).all()
