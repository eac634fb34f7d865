"""Pairs of a better and a worse clip, as those who train read them, and picks as tables of the same rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

import framefleet
from framefleet import Clip, JobError, Store
from framefleet.pipeline.model.lora import Lora
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS
from framefleet.pipeline.rows.tables.record_columns import argument_values
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.pages.gallery.gallery import write_gallery
from tests.commands import command
from tests.configs import WAN, write_model
from tests.gallery_output import exported_picks, write_output
from tests.small_output import rendered
from tests.unit.test_inputs import SHELF, Shelf

PROMPTS = ["a cat", "a dog", "a cat", "a dog", "a cat", "a bird", "a cat"]
CARRIED = {
    "prompt": PROMPTS,
    "sharp": [0.1, 0.2, 0.3, 0.2, 0.5, 0.9, None],
    "is_good": [True, True, False, None, True, False, None],
    "style": ["oil"] * 7,
}


def loaded(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    import datasets

    dataset = datasets.load_dataset(str(tmp_path / "to"), cache_dir=str(tmp_path / "cache"), **options)
    for side in ("chosen", "rejected"):  # decoding videos wants torchcodec
        dataset = dataset.cast_column(side, type(dataset.features[side])(decode=False))
    return dataset.to_list()


def numbers(records: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> list[tuple[int, int]]:
    rows = [record["row_id"] for record in records]
    return [(rows.index(pair["chosen_row_id"]), rows.index(pair["rejected_row_id"])) for pair in pairs]


def stars(out: Path, records: list[dict[str, Any]], given: dict[int, int]) -> None:
    lines = [{"row_id": records[row]["row_id"], "stars": number} for row, number in given.items()]
    Path(out, "stars.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (["--by", "sharp"], [(4, 0), (4, 2), (2, 0)]),  # rows 1 and 3 are equal, and row 6 has no score
        (["--by", "sharp", "--margin", "0.3"], [(4, 0)]),
        (["--by", "sharp", "--margin", "0.2"], [(4, 0), (4, 2), (2, 0)]),  # 0.3 - 0.1 is a little less
        (["--by", "sharp", "--max-pairs", "2"], [(4, 0), (4, 2)]),
        (["--by", "is_good"], [(0, 2), (4, 2)]),
        ([], [(0, 4)]),  # of those with stars
        (["--by", "stars", "--where", "sharp < 0.5"], []),
        (["--by", "picks"], [(0, 6), (0, 2), (4, 6), (4, 2)]),
    ],
)
def test_clips_of_a_prompt_are_paired_by_what_rates_them(
    options: list[str], pairs: list[tuple[int, int]], tmp_path: Path
) -> None:
    records = rendered(Store(str(tmp_path / "out")), carried=CARRIED)
    stars(tmp_path / "out", records, {0: 5, 4: 2, 5: 4, 2: 0})
    result = command("export", tmp_path / "out", tmp_path / "to", "--format", "preferences", *options)
    if not pairs:
        assert (result.exit_code, "no two clips of a prompt differ in stars" in result.stderr) == (2, True)
        return
    assert result.exit_code == 0, result.output
    assert f"{len(pairs)} pair" in result.stderr
    assert (tmp_path / "to" / "README.md").read_text().startswith("---\nlicense: unknown\n")
    (described,) = json.loads((tmp_path / "to" / "croissant.jsonld").read_text())["recordSet"]
    assert {"chosen_file_name", "rejected_rating"} < {field["name"] for field in described["field"]}
    rows = loaded(tmp_path, split="train")
    assert numbers(records, rows) == pairs
    for row, (chosen, rejected) in zip(rows, pairs, strict=True):
        assert row["prompt"] == row["caption"] == PROMPTS[chosen]
        # The columns of a set of preferences, and no others that TRL knows: data_utils.apply_chat_template.
        trls = {"prompt", "chosen", "rejected", "completion", "messages", "label"}
        assert {*row} & trls == {"prompt", "chosen", "rejected"}
        for side, number in (("chosen", chosen), ("rejected", rejected)):
            clip = Path(row[side]["path"]).read_bytes()
            assert clip == (tmp_path / "out" / records[number]["path"]).read_bytes()


def test_clips_without_a_prompt_are_paired_within_their_split(tmp_path: Path) -> None:
    carried = {"prompt": [""] * 9, "sharp": [number / 9 for number in range(9)]}
    rendered(Store(str(tmp_path / "out")), 9, carried=carried)
    to = tmp_path / "to"
    framefleet.export(str(tmp_path / "out"), str(to), format="preferences", by="sharp", validation=0.5)
    for split in ("train", "validation"):
        for row in loaded(tmp_path, split=split):
            assert all(Path(row[side]["path"]).exists() for side in ("chosen", "rejected"))


def test_pictures_are_also_in_the_columns_that_diffusers_reads(tmp_path: Path) -> None:
    records = rendered(Store(str(tmp_path / "out")), carried=CARRIED, format="png")
    to = tmp_path / "to"
    framefleet.export(str(tmp_path / "out"), str(to), format="preferences", by="sharp", caption="{style}")
    rows = loaded(tmp_path, split="train")
    # As the script opens them: the first is the better one unless label_0 is 0.
    pictures = [
        [Image.open(io.BytesIO(row[f"jpg_{side}"])).convert("RGB") for side in (0, 1)] for row in rows
    ]
    colours = [[picture.getpixel((9, 9))[0] // 8 for picture in pair] for pair in pictures]
    assert [tuple(pair) for pair in colours] == numbers(records, rows)
    assert {(row["label_0"], row["label_1"], row["caption"]) for row in rows} == {(1.0, 0.0, "oil")}


def test_what_clips_begin_with_is_the_same_in_a_pair_and_prompts_are_in_one_split(tmp_path: Path) -> None:
    images = [{"uri": f"{number}.png", "sha256": "ab"[number > 3] * 64} for number in range(7)]
    records = rendered(
        Store(str(tmp_path / "out")),
        carried={"sharp": [*range(7)], "prompt": ["a cat"] * 7},
        arguments={"image": images},
    )
    asked: dict[str, Any] = {"format": "preferences", "by": "sharp", "validation": 0.5}
    framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), **asked)
    (split,) = (path.name for path in (tmp_path / "to/data").iterdir())
    pairs = numbers(records, loaded(tmp_path, split=split))
    assert len(pairs) == 6 + 3
    assert all((chosen > 3) == (rejected > 3) for chosen, rejected in pairs)


def test_pairs_of_a_damaged_clip_are_left_out_until_it_is_back(tmp_path: Path) -> None:
    records = rendered(Store(str(tmp_path / "out")), carried=CARRIED)
    clip = tmp_path / "out" / records[2]["path"]
    content = clip.read_bytes()
    clip.unlink()
    asked = ("export", tmp_path / "out", tmp_path / "to", "--format", "preferences", "--by", "sharp")
    assert command(*asked).exit_code == 1
    assert numbers(records, loaded(tmp_path, split="train")) == [(4, 0)]
    clip.write_bytes(content)
    assert command(*asked).exit_code == 0
    assert numbers(records, loaded(tmp_path, split="train")) == [(4, 0), (4, 2), (2, 0)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "has stars"),
        ({"by": "picks"}, "has stars"),
        ({"by": "sharpe"}, "no column 'sharpe'"),
        ({"by": "style"}, "contains string, not numbers"),
        ({"by": "seed", "margin": 9}, "no two clips of a prompt differ in seed by 9"),
        ({"by": "sharp", "margin": -1}, "margin is -1"),
        ({"by": "sharp", "max_pairs": 0}, "max_pairs"),
        ({"by": "sharp", "columns": ["seed"]}, "columns is set"),
        ({"by": "sharp", "format": "parquet"}, "by is set, but format is parquet"),
    ],
)
def test_what_makes_no_pairs_is_told(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    rendered(Store(str(tmp_path / "out")), carried=CARRIED)
    with pytest.raises(JobError, match=problem):
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), **{"format": "preferences", **options})
    assert not (tmp_path / "to").exists()


LORAS = {name: Lora(path=f"{name}.safetensors", sha256=2 * name) for name in ("ink", "uri")}
ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "seed": 1, "lora": "uri:-1+ink:0.8"},
    {"prompt": "b", "seed": 2, "lora": "none", "reference_images": ["/shelf/a.png", "/shelf/b.png"]},
    {"prompt": "c", "seed": 3, "lora": "ink:0", "guidance_scale": 3.5},
]
JOB: dict[str, Any] = {"loras": LORAS, "finder": Shelf(*SHELF)}


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("vace"), "WanVACEPipeline", WAN))


def requests(spec: PipelineSpec, tables: Iterable[pa.RecordBatch], **job: Any) -> list[tuple[Any, ...]]:
    rows = [row for one in tables for row in plan_rows(one.schema, spec, **JOB | job).rows(0, one)]
    checked = [row for row in rows if isinstance(row, CheckedRow)]
    assert len(checked) == len(rows), rows
    return [(row.request.seed, dict(row.request.arguments), row.request.fps) for row in checked]


def write_picks(
    output: Path, rows: list[dict[str, Any]], change: Callable[[Clip], Clip] = lambda clip: clip
) -> list[Mapping[str, Any]]:
    """Return the lines of a picks.jsonl of all clips, which is written into the output."""
    write_gallery(write_output(output, rows, change=change))
    text = exported_picks(output, [f"{number:032x}" for number in range(len(rows))])
    (output / "picks.jsonl").write_text(text, encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def test_picks_are_the_same_rows_whatever_the_next_job_has_as_its_defaults(
    vace: PipelineSpec, tmp_path: Path
) -> None:
    rows = requests(vace, [pa.RecordBatch.from_pylist(ROWS)])
    write_picks(tmp_path, [{"seed": seed, **arguments} for seed, arguments, _ in rows])
    picks = open_table(str(tmp_path / "picks.jsonl"), arguments=argument_columns(vace, {}))
    batches = [batch for _, batch in picks.batches()]
    defaults = {"lora": "uri:1", "guidance_scale": 9.0}
    assert requests(vace, batches, defaults=defaults, reserved=RECORD_FIELDS.names) == rows


def test_an_argument_column_of_records_is_a_column_of_a_table(vace: PipelineSpec) -> None:
    table = pa.RecordBatch.from_pylist(ROWS)
    rows, plan = requests(vace, [table]), plan_rows(table.schema, vace, **JOB)
    cells = [argument_values(arguments, plan.argument_fields) | {"seed": seed} for seed, arguments, _ in rows]
    assert [cell["lora"] for cell in cells] == ["ink:0.8+uri:-1.0", "none", "ink:0.0"]
    schema = pa.schema([*plan.argument_fields, ("seed", pa.int64())])
    assert requests(vace, [pa.RecordBatch.from_pylist(cells, schema)], defaults={"lora": "uri:1"}) == rows


def test_picks_name_models_and_what_rows_have_of_their_own(tmp_path: Path) -> None:
    media = [
        {"kind": "video", "uri": "/a.mp4", "sha256": "0", "num_frames": 9},
        {"kind": "image", "uri": "/b"},
    ]
    rows = [
        {"prompt": "a", "references": media},
        {"prompt": "b", "image_model": {"name": "flux", "digest": "0"}},
    ]

    def own(clip: Clip) -> Clip:
        if clip.request.arguments["prompt"] == "b":
            return clip
        return replace(clip, request=replace(clip.request, fps=12.0, model="wan", recipe="video_to_video"))

    first, second = write_picks(tmp_path, rows, own)
    assert first["references"] == [{"video": "/a.mp4"}, {"image": "/b"}]
    assert [first[name] for name in ("fps", "model", "recipe")] == [12, "wan", "video_to_video"]
    assert (second["recipe"], second["image_model"]) == ("generate", "flux")
    assert not {"fps", "model", "lora"} & {*second}
    with pytest.raises(ValueError, match=f"arguments of row {0:032x} have more than 16384 characters"):
        write_picks(tmp_path / "long", [{"prompt": "a" * 20_000}])
