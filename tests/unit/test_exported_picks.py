"""The picks of a gallery and the records of its output are tables of the very same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import Clip
from framefleet.pipeline.model.lora import Lora
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS
from framefleet.pipeline.rows.tables.record_columns import argument_values
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.pages.gallery.gallery import write_gallery
from tests.configs import WAN, write_model
from tests.gallery_output import write_output
from tests.gallery_scripts import exported_picks
from tests.unit.test_row_inputs import SHELF, Shelf

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
