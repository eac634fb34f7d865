"""Clips and records come out of an output as other libraries read them: all that is chosen, nothing twice."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, PluginError, Store
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, record_schema
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.plugins.export.shard_writer import ShardWriter, Target
from tests.commands import command
from tests.outputs import write_part
from tests.rows import own_row_id
from tests.small_output import PROMPT, files, rendered

FORMATS = ("webdataset", "parquet", "hf")
SHARPNESS = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, float("nan")]


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    return rendered(Store(str(tmp_path / "out")), carried={"sharpness": SHARPNESS, "note": ["x"] * 7})


def exported(tmp_path: Path, format: Any, to: str = "to", **asked: Any) -> Path:
    framefleet.export(str(tmp_path / "out"), str(tmp_path / to), format=format, **asked)
    return tmp_path / to


def test_webdataset_reads_clips_records_and_prompts(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    import webdataset

    exported(tmp_path, "webdataset", shard_rows=3, columns="all")
    shards = str(tmp_path / "to" / "shard-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [record["row_id"] for record in records]
    for number, (sample, record) in enumerate(zip(samples, records, strict=True)):
        assert sample["mp4"] == (tmp_path / "out" / record["path"]).read_bytes()
        assert sample["txt"] == f"{PROMPT} {number}"
        assert sample["json"]["seed"] == number
        assert sample["json"]["row_indices"] == [number]
        assert sample["json"]["finished_at"] == "2026-01-02T12:00:00+00:00"
    assert samples[1]["json"]["sharpness"] == 0.9
    assert samples[6]["json"]["sharpness"] is None  # JSON has no NaN


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_goes_on_holds_what_was_there_when_it_began(
    format: Any, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    whole = files(exported(tmp_path, format, shard_rows=3))
    killed = exported(tmp_path, format, "killed", shard_rows=3)
    last = sorted(files(killed))[-1]
    (killed / last).unlink()
    rendered(Store(str(tmp_path / "out")), 8, carried={"new": ["x"] * 8})
    result = command("export", tmp_path / "out", killed, "--format", format, "--shard-rows", "3")
    assert files(killed) == whole
    assert "3 parts of records, newer than this export" in result.output
    (killed / last).unlink()
    again = framefleet.export(str(tmp_path / "out"), str(killed), format=format, shard_rows=3)
    assert files(killed) == whole and again.num_newer_parts
    framefleet.compact(str(tmp_path / "out"))
    with pytest.raises(JobError, match="merged by `framefleet compact`"):
        framefleet.export(str(tmp_path / "out"), str(killed), format=format, shard_rows=3)
    again = framefleet.export(str(tmp_path / "out"), str(tmp_path / "again"), format=format)
    assert again.num_rows == 8


@pytest.mark.parametrize("format", ["parquet", "hf"])
def test_datasets_opens_videos_with_all_columns(
    tmp_path: Path, records: list[dict[str, Any]], format: Any
) -> None:
    import datasets

    folder = exported(tmp_path, format, shard_rows=3, columns="all")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["video"] == datasets.Video()
    rows = loaded.cast_column("video", datasets.Video(decode=False)).to_list()  # decoding wants torchcodec
    rows.sort(key=lambda row: row["seed"])
    assert [row["row_id"] for row in rows] == [record["row_id"] for record in records]
    for row, record in zip(rows, records, strict=True):
        video = row["video"]["bytes"] or Path(row["video"]["path"]).read_bytes()
        assert video == (tmp_path / "out" / record["path"]).read_bytes()
        assert (row["note"], row["arguments"]) == ("x", record["arguments"])


@pytest.mark.parametrize(
    ("kind", "format", "feature"),
    [("png", "hf", "Image"), ("flac", "parquet", "Audio")],  # a folder of sound wants torchcodec
)
def test_datasets_opens_images_and_sound(tmp_path: Path, kind: Any, format: Any, feature: str) -> None:
    import datasets

    rendered(Store(str(tmp_path / "out")), 3, format="png.zip")
    with pytest.raises(JobError, match=r"png\.zip(.|\n)*parquet"):
        exported(tmp_path, "hf")
    rendered(Store(str(tmp_path / "of")), 3, format=kind)
    framefleet.export(str(tmp_path / "of"), str(folder := tmp_path / "to"), format=format)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert type(loaded.features[feature.lower()]).__name__ == feature
    assert len(loaded) == 3


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("is_after", [False, True])
def test_an_export_that_is_killed_at_every_write_goes_on_to_the_same_bytes(
    tmp_path: Path,
    records: list[dict[str, Any]],
    format: Any,
    is_after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = files(exported(tmp_path, format, "whole", shard_rows=2))
    dies_at = 0
    while True:
        written: list[str] = []
        with monkeypatch.context() as patched:
            for name in ("upload", "write", "create"):
                patched.setattr(Store, name, _dying(getattr(Store, name), written, dies_at, is_after))
            try:
                exported(tmp_path, format, shard_rows=2)
                break
            except KeyboardInterrupt:
                dies_at = (dies_at + 1) % 5  # the next one dies a little later
    assert files(tmp_path / "to") == whole
    assert len(written) < len(whole)  # what was there was not written again


def _dying(method: Any, written: list[str], dies_at: int, is_after: bool) -> Any:
    def write(store: Store, path: str, content: Any) -> None:
        written.append(path)
        if len(written) == dies_at + 1 and not is_after:
            raise KeyboardInterrupt
        method(store, path, content)
        if len(written) == dies_at + 1:
            raise KeyboardInterrupt

    return write


def test_only_what_is_chosen_is_handed_on(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    picks = tmp_path / "picks.jsonl"
    chosen = [records[number]["row_id"] for number in (1, 2, 3)]
    picks.write_text("".join(json.dumps({"row_id": row_id, "stars": 3}) + "\n" for row_id in chosen))
    folder = exported(
        tmp_path, "webdataset", where="sharpness > 0.4", picks=str(picks), columns=["sharpness", "seed"]
    )
    with tarfile.open(folder / "shard-000000.tar") as tar:
        names = tar.getnames()
        told = [json.load(tar.extractfile(name)) for name in names if name.endswith(".json")]  # type: ignore[arg-type]
    assert [name[:32] for name in names[::3]] == [chosen[0], chosen[2]]
    assert [list(row) for row in told] == [["row_id", "sharpness", "seed", "stars"]] * 2
    starred = exported(tmp_path, "parquet", "starred", where="stars >= 3 AND seed > 2", picks=picks)
    assert pq.read_table(starred)["seed"].to_pylist() == [3]
    with pytest.raises(JobError, match="only picks have 'stars'") as caught:
        exported(tmp_path, "parquet", "to2", where="stars >= 3")
    assert "--picks" in caught.value.fix


def test_a_condition_on_notes_is_about_those_of_the_picks_and_not_of_the_records(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    picks = tmp_path / "picks.jsonl"
    lines = ({"row_id": records[number]["row_id"], "note": note} for number, note in enumerate(("good", "x")))
    picks.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    folder = exported(tmp_path, "parquet", where="note = 'good'", picks=picks, columns="all")
    (row,) = pq.read_table(folder).to_pylist()
    assert (row["row_id"], row["note"], row["note_of_row"]) == (records[0]["row_id"], "good", "x")
    assert pq.read_table(exported(tmp_path, "parquet", "of records", where="note = 'x'")).num_rows == 7
    picks.write_text(json.dumps({"row_id": records[0]["row_id"], "stars": 3}))
    noted = exported(tmp_path, "parquet", "without notes", where="note = 'x' AND stars = 3", picks=picks)
    assert pq.read_table(noted)["row_id"].to_pylist() == [records[0]["row_id"]]


@pytest.mark.parametrize(("format", "asked"), [("hf", {"validation": 0.5}), ("trajectories", {})])
def test_a_choice_of_no_rows_is_refused_in_every_format(
    format: Any, asked: dict[str, Any], tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    with pytest.raises(JobError, match="no rows are chosen"):
        exported(tmp_path, format, where="seed < 0", **asked)


def test_rows_that_left_the_table_can_be_left_out(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    out = Store(str(tmp_path / "out"))
    with pytest.raises(JobError, match="the table was not recorded"):
        exported(tmp_path, "parquet", in_table=True)
    row_ids = [row["row_id"] for row in records[:5]] + ["f" * 32]
    rows = pa.table({"row_index": range(6), "row_id": row_ids})
    write_part(out, "rows", rows.schema, rows.to_pylist(), new_run(0))
    everything = command("export", tmp_path / "out", tmp_path / "all", "--format=parquet")
    assert "note: 2 clips of rows that left the table; --in-table leaves them out" in everything.stderr
    present = command("export", tmp_path / "out", tmp_path / "to", "--format=parquet", "--in-table")
    assert present.exit_code == 0 and "left the table" not in present.stderr, present.stderr
    assert pq.read_table(tmp_path / "to")["row_id"].to_pylist() == row_ids[:5]
    with pytest.raises(JobError, match=r"none of the picks is a clip of .* whose row is in its table"):
        exported(tmp_path, "parquet", "to2", in_table=True, picks=[records[6]["row_id"]])


def test_picks_of_another_output_are_told(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    picks = tmp_path / "picks.jsonl"
    picks.write_text("".join(json.dumps({"row_id": row}) + "\n" for row in (records[0]["row_id"], "0" * 32)))
    for options in (["--format=hf"], ["--format=parquet", "--where", "seed >= 0"]):
        result = command("export", tmp_path / "out", tmp_path / options[0], *options, "--picks", picks)
        assert (result.exit_code, "1 pick without a record in this output" in result.stderr) == (0, True)
    for line, said in [("{", "line 2 is not JSON"), ('{"row_id": "../x"}', "line 2 has no row_id of 32")]:
        picks.write_text("\n" + line)
        result = command("export", tmp_path / "out", tmp_path / "to2", "--format=hf", "--picks", picks)
        assert (result.exit_code, said in result.stderr) == (2, True)


@pytest.mark.parametrize("damage", ["missing", "size", "bytes"])
def test_a_damaged_clip_is_left_out_and_told_until_it_is_back(
    tmp_path: Path, records: list[dict[str, Any]], damage: str
) -> None:
    path = tmp_path / "out" / records[4]["path"]
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole + b"x" if damage == "size" else whole[:-1] + b"x")
    arguments = ("export", tmp_path / "out", tmp_path / "to", "--format", "webdataset", "--shard-rows", "3")
    for _ in range(2):
        result = command(*arguments, exits=1)
        assert f"row {records[4]['row_id']} is left out" in result.stderr
        assert "6/7 clips exported" in result.stderr
    with tarfile.open(tmp_path / "to" / "shard-000001.tar") as tar:
        assert len(tar.getnames()) == 6
    path.write_bytes(whole)
    assert command(*arguments).exit_code == 0
    with tarfile.open(tmp_path / "to" / "shard-000001.tar") as tar:
        assert len(tar.getnames()) == 9


def test_a_format_without_a_writer_is_named(tmp_path: Path) -> None:
    class Lines(ShardWriter):
        @staticmethod
        def path_of(name: str) -> str:
            return f"{name}.txt"

        def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
            self.file.write_bytes(b"".join(clips))

    place = Store(str(tmp_path))
    with ThreadPoolExecutor() as copiers, pytest.raises(PluginError, match="Lines has set no"):
        target = Target(
            place=place, columns=(), added=frozenset(), feature="clip", scratch=tmp_path, copiers=copiers
        )
        Lines(target, "shard-000000").finish()


def test_another_choice_into_the_same_place_is_refused(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    exported(tmp_path, "parquet", where="seed > 2")
    with pytest.raises(JobError, match="where is seed > 2 there and seed > 1 here"):
        exported(tmp_path, "parquet", where="seed > 1")
    rendered(Store(str(tmp_path / "out")), 9)
    again = framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format="parquet", where="seed > 2")
    assert (again.num_rows, again.num_newer_parts) == (4, 3)
    command("score", tmp_path / "out", "--scores", "motion")
    with pytest.raises(JobError, match="shard_columns differ in 'motion'"):
        exported(tmp_path, "parquet", where="seed > 2")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"where": "sharpnes > 1"}, "no column 'sharpnes'"),
        ({"where": "seed > 100"}, "no rows are chosen"),
        ({"columns": ["promts"]}, "columns: there is no 'promts'"),
        ({"format": "zip"}, "format is 'zip'"),
        ({"shard_rows": 0}, "shard_rows is 0"),
        ({"picks": "gone.jsonl"}, "does not exist"),
        ({"picks": ["0" * 32]}, "none of the picks is a clip of"),
        ({"to": "out/export"}, "is not separate from the output"),
        ({"caption": "\udcff {seed}"}, "is not a template"),
        ({"validation": 0}, "validation is 0"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"near_duplicates": -1}, "near_duplicates is -1"),
        ({"near_duplicates": 33}, "near_duplicates is 33"),
    ],
)
def test_what_cannot_be_exported_is_told(
    tmp_path: Path, records: list[dict[str, Any]], asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said) as caught:
        exported(tmp_path, **({"format": "parquet"} | asked))
    assert caught.value.fix
    assert not (tmp_path / "to").exists()  # the right one may go there
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "letter.txt").write_text("dear")
    with pytest.raises(JobError, match="contains other files"):
        exported(tmp_path, "parquet")


def test_a_condition_that_chooses_other_rows_each_time_is_refused(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    with pytest.raises(JobError, match=r"have changed|no row"):
        for number in range(20):
            exported(tmp_path, "parquet", f"to{number}", where="random() < 0.5 AND seed >= 0")


def test_names_that_a_format_needs_itself_stand_beside_its_own(tmp_path: Path) -> None:
    carried = {"video": ["v"] * 3, "file_name": ["f"] * 3, "source_file_name": ["s"] * 3}
    rendered(Store(str(tmp_path / "out")), 3, carried=carried)
    row = pq.read_table(exported(tmp_path, "parquet")).to_pylist()[0]
    assert (row["video_of_row"], row["file_name"]) == ("v", "f")
    row = pq.read_table(exported(tmp_path, "hf", "hf") / "data/000000/metadata.parquet").to_pylist()[0]
    assert (row["video_of_row"], row["file_name_of_row"], row["source_file_name_of_row"]) == ("v", "f", "s")


def test_a_dataset_for_the_hub_has_a_card_with_the_licenses_and_keeps_one_that_is_there(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    card = exported(tmp_path, "hf") / "README.md"
    assert card.read_text().startswith("---\nlicense: unknown\n")
    assert f"- `{records[0]['model']}`: unknown" in card.read_text()
    card.write_text("mine")
    assert exported(tmp_path, "hf").joinpath("README.md").read_text() == "mine"
    assert not (exported(tmp_path, "webdataset", "tars") / "README.md").exists()


def test_a_card_names_the_language_models_of_the_job_and_not_those_of_others(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    asked = {"url": "http://a/v1", "model": "pen"}
    judges = [{"name": "good", "url": "http://a/v1", "model": "/models/eye"}]
    job = {"prompts": {"rewrite": asked}, "judge": judges, "captions": [], "draft": {"model": "no endpoint"}}
    (tmp_path / "out" / "job.json").write_text(json.dumps({"job": job}))
    card = (exported(tmp_path, "hf") / "README.md").read_text()
    assert "- prompts: `pen`\n" in card and "- judge: `eye`\n" in card
    assert "captions" not in card and "no endpoint" not in card


@pytest.mark.parametrize(
    ("caption", "columns", "expected"),
    [
        ("{caption}", None, {"caption", "text"}),
        ("{text}", None, {"caption", "caption_of_row"}),
        ("{text}", ["text"], {"caption", "text"}),
        ("{caption}", "all", {"caption", "caption_of_row", "text"}),
        ("a {caption}", None, {"caption", "caption_of_row", "text"}),
    ],
)
def test_a_text_that_is_the_caption_is_stored_once(
    tmp_path: Path, caption: str, columns: Any, expected: set[str]
) -> None:
    rendered(Store(str(tmp_path / "out")), 2, carried={"caption": ["a", "b"], "text": ["c", "d"]})
    to = exported(tmp_path, "parquet", caption=caption, columns=columns)
    names = {*pq.read_schema(next(to.rglob("*.parquet"))).names}
    assert names & {"caption", "caption_of_row", "text"} == expected


def test_a_folder_for_datasets_is_described_as_croissant(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    import mlcroissant

    to = exported(tmp_path, "hf", shard_rows=3, caption="{prompt}, {note}")
    described = mlcroissant.Dataset(str(to / "croissant.jsonld"))
    assert not described.metadata.issues.errors
    rows = list(described.records("row"))
    assert [row["row/seed"] for row in rows] == list(range(7))
    assert rows[1]["row/sharpness"] == 0.9
    assert rows[0]["row/caption"].decode() == f"{PROMPT} 0, x"
    (to / "croissant.jsonld").write_text("{}")
    exported(tmp_path, "hf", shard_rows=3, caption="{prompt}, {note}")
    assert (to / "croissant.jsonld").read_text() == "{}", "somebody's own stays"


def test_datasets_does_not_take_a_folder_for_another_of_its_name(tmp_path: Path) -> None:
    import datasets

    cache = str(tmp_path / "cache")
    for place, count, options in (("a", 2, {}), ("b", 2, {}), ("c", 1, {"validation": 0.999999})):
        rendered(Store(str(tmp_path / place / "out")), count)
        folder = exported(tmp_path / place, "hf", "clips", **options)
        loaded = datasets.load_dataset(str(folder), cache_dir=cache)
        (split,) = loaded
        assert split == ("validation" if options else "train")
        clips = loaded[split].cast_column("video", datasets.Video(decode=False))["video"]
        assert all(folder in Path(clip["path"]).parents for clip in clips)
        assert len(clips) == count


MAPS = pa.map_(pa.string(), pa.int64())
ENTRIES = [{"key": "a", "value": 1}]


@pytest.mark.parametrize("format", ["parquet", "hf"])
@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pa.array([[("a", 1)]], MAPS), ENTRIES),
        (pa.array([[[("a", 1)], None]], pa.list_(MAPS)), [ENTRIES, None]),
        (pa.array([[[("a", 1)]]], pa.large_list(MAPS)), [ENTRIES]),
        (pa.array([[[("a", 1)]]], pa.list_(MAPS, 1)), [ENTRIES]),
        (pa.array([{"x": [("a", 1)]}], pa.struct([("x", MAPS)])), {"x": ENTRIES}),
        (pa.array([[("a", [("a", 1)])]], pa.map_(pa.string(), MAPS)), [{"key": "a", "value": ENTRIES}]),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))), b"0" * 16),
        (pa.array([Decimal("1.5")]), Decimal("1.5")),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([7], pa.uint64()), 7),
        (pa.array([Decimal("1.5")], pa.decimal32(3, 1)), Decimal("1.5")),
        (pa.array([Decimal("1.5")], pa.decimal64(12, 1)), Decimal("1.5")),
    ],
)
def test_datasets_opens_carried_columns_of_any_type(
    tmp_path: Path, column: pa.Array, read: object, format: Any
) -> None:
    import datasets

    rendered(Store(str(tmp_path / "out")), 1, carried={"mine": column})
    folder = exported(tmp_path, format)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["mine"][0] == read
    if read == 7:
        rendered(Store(str(tmp_path / "large/out")), 1, carried={"mine": pa.array([2**63], pa.uint64())})
        with pytest.raises(JobError, match="'mine' holds 9223372036854775808"):
            exported(tmp_path / "large", "hf")
        assert exported(tmp_path / "large", "folder", "folder").exists()


def test_what_was_swept_is_among_the_columns(tmp_path: Path) -> None:
    swept = {
        "arguments": [{"prompt": "x", "guidance_scale": scale, "sigmas": [1.0]} for scale in (1.0, 2.0, 2.0)],
        "prompt": ["x"] * 3,
        "guidance_scale": [1.0, 2.0, 2.0],
    }
    kinds = {"scheduler": ["euler", "euler", "lcm"], "seed": [0, 0, 0]}
    committed(Store(str(tmp_path / "out")), swept | kinds)
    row = pq.read_table(exported(tmp_path, "parquet")).to_pylist()[0]
    assert {"guidance_scale", "scheduler", "prompt", "seed"} <= row.keys()
    assert not {"arguments", "recipe", "model_digest", "sigmas"} & row.keys()


def committed(store: Store, values: dict[str, list[Any]]) -> None:
    """Commit rows of these values as one part. Columns that records do not have are arguments."""
    rows = rendered(store, len(values["seed"]))
    store.delete_all("records")
    own = {name: column for name, column in values.items() if name not in RECORD_FIELDS.names}
    arguments = pa.schema([(name, pa.array(column).type) for name, column in own.items()])
    writer = PartWriter(store, "records", record_schema(pa.schema([]), arguments), run=new_run(1))
    for number, row in enumerate(rows):
        ours = {name: column[number] for name, column in values.items()}
        said = row | ours | {"arguments": canonical_json(ours["arguments"])}
        path = clip_path(row_id := own_row_id(said), ".mp4")
        store.create(path, store.read(row["path"]))
        writer.add(None, said | {"row_id": row_id, "path": path, "uri": path})
    writer.flush()
