"""What a trainer needs of an export: few columns, captions, labels, a split by prompt, no duplicates."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet.api.outputs import RECORD_FIELDS, Store
from framefleet.pipeline.errors import JobError, count_text
from framefleet.plugins.export.selection import split_of
from tests.commands import command
from tests.small_output import rendered

COLUMNS = {
    "prompt": ["a cat", "a dog", "a cat", "a dog", "a cat", "a bird"],
    "style": ["oil", None, "ink", "oil", "ink", "oil"],
    "guidance_scale": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5],  # an argument of the pipeline
    "sharpness": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    "empty": [None] * 6,
}


def scene(number: int, num_frames: int = 3) -> Any:
    """Return a picture of big blocks; 0, 2 and 4 are the same one, with a little noise."""
    seed = 0 if number in (0, 2, 4) else number
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).repeat(16, 0).repeat(16, 1)
    noise = np.random.default_rng(number).integers(-4, 5, (num_frames, *blocks.shape))
    return np.clip(blocks + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    return rendered(Store(str(tmp_path / "out")), 6, carried=COLUMNS, frames_of=scene)


def exported(tmp_path: Path, to: str = "to", **asked: Any) -> tuple[list[dict[str, Any]], Any]:
    found = framefleet.export(str(tmp_path / "out"), str(tmp_path / to), **({"format": "parquet"} | asked))
    return pq.read_table(tmp_path / to).to_pylist() if asked.get("format") is None else [], found


def write_picks(tmp_path: Path, *lines: dict[str, Any]) -> str:
    path = tmp_path / "picks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_by_default_columns_are_what_a_trainer_needs(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    rows, found = exported(tmp_path)
    size, varied = {"height", "width", "num_frames", "fps", "duration_s"}, {"guidance_scale"}
    assert set(rows[0]) == {"row_id", "prompt", "style", "sharpness", "seed", "video", *size, *varied}
    assert {*found.columns_left_out} == {*RECORD_FIELDS.names, "marks", "empty"} - {*rows[0]}
    content = b"".join(path.read_bytes() for path in (tmp_path / "to").glob("*.parquet"))
    table = pq.read_table(tmp_path / "to").drop_columns(["video"])
    for name in ("model", "node", "worker", "uri"):
        assert records[0][name] and records[0][name] not in str(table.to_pylist())
        assert records[0][name].encode() not in content or name == "worker"


def test_all_columns_are_there_when_asked_for(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    rows, found = exported(tmp_path, columns="all")
    assert {*rows[0]} == {*RECORD_FIELDS.names, "marks", *COLUMNS, "video"}
    assert found.columns_left_out == ()
    result = command("export", tmp_path / "out", tmp_path / "cli", "--format=parquet", "--columns=all")
    assert (result.exit_code, "columns of the records" in result.stderr) == (0, False)
    result = command("export", tmp_path / "out", tmp_path / "lean", "--format=parquet")
    num = len(rows[0]) - len(pq.read_schema(tmp_path / "lean/shard-000000.parquet"))
    assert f"left out: {num} columns of the records; --columns all adds them" in result.stderr


def test_stars_and_notes_of_picks_are_columns(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    one, other, plain = (records[number]["row_id"] for number in (4, 1, 2))
    picks = write_picks(
        tmp_path,
        {"row_id": one, "stars": 5, "note": "sharp, 一只猫"},
        {"row_id": other, "stars": 2, "note": ""},
        {"row_id": plain},
    )
    rows, _ = exported(tmp_path, picks=picks)
    labels = {row["row_id"]: (row["stars"], row["note"]) for row in rows}
    assert labels == {one: (5, "sharp, 一只猫"), other: (2, ""), plain: (None, None)}
    with pytest.raises(JobError, match="picks is"):  # into the same place
        exported(tmp_path, picks=write_picks(tmp_path, {"row_id": one, "stars": 2}))
    for number, (key, value) in enumerate([("stars", "many"), ("stars", 6), ("stars", True), ("note", 3)]):
        with pytest.raises(JobError, match=f"line 1: {key} is"):
            exported(tmp_path, f"bad{number}", picks=write_picks(tmp_path, {"row_id": one, key: value}))


def test_columns_of_the_table_that_are_called_like_labels_stay(tmp_path: Path) -> None:
    carried = {"note": ["mine"] * 2, "caption": ["theirs"] * 2}
    records = rendered(Store(str(tmp_path / "out")), 2, carried=carried)
    picks = write_picks(tmp_path, {"row_id": records[0]["row_id"], "note": "new"})
    (row,), _ = exported(tmp_path, picks=picks, caption="{caption}!")
    assert (row["note"], row["note_of_row"]) == ("new", "mine")
    assert (row["caption"], row["caption_of_row"]) == ("theirs!", "theirs")


def test_captions_follow_the_template(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    import datasets

    exported(tmp_path, format="hf", caption="{prompt}, {style} {{{seed}}}")
    loaded = datasets.load_dataset(str(tmp_path / "to"), split="train", cache_dir=str(tmp_path / "cache"))
    captions = loaded.select_columns(["row_id", "caption"]).to_list()
    by_row = {row["row_id"]: row["caption"] for row in captions}
    assert [by_row[record["row_id"]] for record in records[:2]] == ["a cat, oil {0}", "a dog,  {1}"]
    framefleet.export(str(tmp_path / "out"), str(tmp_path / "tar"), format="webdataset", caption="{style}")
    with tarfile.open(tmp_path / "tar/shard-000000.tar") as tar:
        assert tar.extractfile(f"{records[0]['row_id']}.txt").read() == b"oil"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("template", "problem", "fix"),
    [
        ("{promt}", "no column 'promt'", "did you mean 'prompt'"),
        ("{prompt.__class__}", r"no column 'prompt\.__class__'", "prompt"),
        ("{prompt:>9}", "'prompt' has a format", "name of a column"),
        ("{prompt", "is not a template", "{prompt}, {style}"),
        ("{}", "no column ''", "use one of"),
    ],
)
def test_a_template_that_fits_no_columns_is_refused(
    tmp_path: Path, records: list[dict[str, Any]], template: str, problem: str, fix: str
) -> None:
    with pytest.raises(JobError, match=problem) as caught:
        exported(tmp_path, caption=template)
    assert fix in caught.value.fix
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("format", ["parquet", "hf"])
def test_no_prompt_is_in_both_splits(tmp_path: Path, format: Any) -> None:
    import datasets

    prompts = [f"prompt {number % 10}" for number in range(30)]
    rendered(Store(str(tmp_path / "out")), 30, carried={"prompt": prompts})
    _, found = exported(tmp_path, format=format, validation=0.3, shard_rows=5)
    loaded = datasets.load_dataset(str(tmp_path / "to"), cache_dir=str(tmp_path / "cache"))
    of_split = {name: set(loaded[name]["prompt"]) for name in ("train", "validation")}
    assert of_split["train"] | of_split["validation"] == set(prompts)
    assert not of_split["train"] & of_split["validation"]
    assert {name: len(loaded[name]) for name in of_split} == found.splits


def test_webdataset_has_shards_of_each_split(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    import webdataset

    arguments = ("export", tmp_path / "out", tmp_path / "to", "--format=webdataset", "--validation=0.5")
    result = command(*arguments, "--shard-rows=1", exits=0)
    shown = {}
    for split in ("train", "validation"):
        shards = sorted(map(str, (tmp_path / "to").glob(f"{split}-*.tar")))
        assert shards[0].endswith(f"{split}-000000.tar")
        samples = webdataset.WebDataset(shards, shardshuffle=False).decode()
        shown[split] = [sample["txt"] for sample in samples]
        assert f"{split}: {count_text(len(shown[split]), 'row')}\n" in result.stderr
    assert sorted(shown["train"] + shown["validation"]) == sorted(COLUMNS["prompt"])
    again = command(*arguments, "--shard-rows=1")
    assert f"train: {count_text(len(shown['train']), 'row')}\n" in again.stderr
    few = command("export", tmp_path / "out", tmp_path / "few", "--format=hf", "--validation=0.000001")
    assert "validation: 0 rows: too few prompts for this --validation" in few.stderr


def test_the_share_of_prompts_is_near_what_is_asked_for() -> None:
    splits = [split_of(f"prompt {number}", 0.05) for number in range(10_000)]
    assert 400 < splits.count("validation") < 600


def test_near_duplicates_are_left_out_and_reported_with_what_they_resemble(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    ids = [record["row_id"] for record in records]
    rows, found = exported(tmp_path, near_duplicates=6)
    assert [row["row_id"] for row in rows] == [ids[0], ids[1], ids[3], ids[5]]
    assert [(near.row_id, near.kept) for near in found.near_duplicates] == [
        (ids[2], ids[0]),
        (ids[4], ids[0]),
    ]
    result = command("export", tmp_path / "out", tmp_path / "to", "--format=parquet", "--near-duplicates=6")
    assert result.exit_code == 0, result.output  # the same export
    assert f"row {ids[2]} is left out: near duplicate of {ids[0]}" in result.stderr
    assert len(exported(tmp_path, "both")[0]) == 6


def test_clips_that_differ_in_one_frame_only_are_kept_and_those_without_frames_not_compared(
    tmp_path: Path,
) -> None:
    def frames_of(number: int, num_frames: int) -> Any:
        frames = scene(0, num_frames)
        frames[number] = scene(7 + number, 1)[0]
        return frames

    rendered(Store(str(tmp_path / "out")), 3, frames_of=frames_of)
    assert len(exported(tmp_path, near_duplicates=6)[0]) == 3
    rendered(Store(str(tmp_path / "sounds/out")), 3, format="flac")
    rows, found = exported(tmp_path / "sounds", near_duplicates=6)
    assert (len(rows), found.num_not_compared) == (3, 3)
