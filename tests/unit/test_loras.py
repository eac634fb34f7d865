"""What a job declares and what a row may ask of it: text in, one checked value out, or why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import framefleet
from framefleet.jobs.job.file import load_job, places
from framefleet.jobs.job.schema import LoraSection
from framefleet.pipeline.errors import JobError, Refused
from framefleet.pipeline.model.lora import Lora, adapters_in, check_loras, loras_of, without_loras
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow

DECLARED = {
    "style": Lora(path="a.safetensors", sha256="aa"),
    "detail": Lora(path="b.safetensors", sha256="bb", component="transformer_2"),
}
STYLE = {"sha256": "aa", "weight": 0.8}
DETAIL = {"sha256": "bb", "weight": -1.0, "component": "transformer_2"}
JOB = {"table": "t", "output": "o", "model": "m"}


def rows(spec: PipelineSpec, cells: list[str | None], **job: Any) -> list[CheckedRow | InvalidRow]:
    batch = pa.RecordBatch.from_pydict({"prompt": ["a"] * len(cells), "lora": pa.array(cells, pa.string())})
    return list(plan_rows(batch.schema, spec, **{"loras": DECLARED, **job}).rows(0, batch))


def asked(spec: PipelineSpec, cells: list[str | None], **job: Any) -> list[Any]:
    found = rows(spec, cells, **job)
    return [row.request.arguments.get("lora") for row in found if isinstance(row, CheckedRow)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("style", {"style": STYLE | {"weight": 1.0}}),
        ("style:0.8", {"style": STYLE}),
        ("detail:-1 + style : .8", {"style": STYLE, "detail": DETAIL}),
        ("style:-0", {"style": STYLE | {"weight": 0.0}}),
        ("", {}),
        ("none", {}),
    ],
)
def test_a_row_names_loras_with_weights(text: str, expected: dict[str, Any]) -> None:
    found = check_loras(text, DECLARED)
    assert found == expected
    assert "-0.0" not in repr(found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stile", "declares no LoRA 'stile'"),
        ("style+", "declares no LoRA ''"),
        ("<lora:style:0.8>", "has angle brackets"),
        ("style:nan", "'nan' is not a weight"),
        ("style:1e999", "'1e999' is not a weight"),
        ("style:0.5:0.5", "'0.5:0.5' is not a weight"),
        ("style+style:0.5", "names 'style' twice"),
        (0.8, "must be text"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: Any, reason: str) -> None:
    found = check_loras(text, DECLARED)
    assert isinstance(found, Refused)
    assert reason in found.reason


def test_a_null_cell_takes_the_default_and_none_takes_no_lora(wan: PipelineSpec) -> None:
    cells = [None, "none", "", "detail:-1"]
    assert asked(wan, cells) == [None, None, None, {"detail": DETAIL}]
    defaults = {"lora": "style:0.8"}
    assert asked(wan, cells, defaults=defaults) == [{"style": STYLE}, None, None, {"detail": DETAIL}]
    assert asked(wan, [None], defaults={"lora": None}) == [None]


def test_a_bad_cell_is_told_with_its_column_and_a_bad_default_with_its_place(wan: PipelineSpec) -> None:
    (row,) = rows(wan, ["stile"])
    assert isinstance(row, InvalidRow)
    (problem, fix) = row.messages()[0]
    assert problem == "row 0: lora is 'stile', but the job declares no LoRA 'stile'"
    assert fix == "did you mean 'style'?"
    with pytest.raises(JobError, match=r"defaults\.lora is 'stile', but the job declares no LoRA 'stile'"):
        rows(wan, [None], defaults={"lora": "stile"})
    (row,) = rows(wan, ["style"], loras={})
    assert isinstance(row, InvalidRow)
    assert "the job declares no LoRA" in str(row.problems[0])
    assert "loras: {style: ...}" in row.problems[0].why.fix


def test_equal_rows_of_other_loras_get_other_seeds_and_one_shape(wan: PipelineSpec) -> None:
    found = [row for row in rows(wan, [None, "none", "style"]) if isinstance(row, CheckedRow)]
    assert found[0].request == found[1].request
    assert found[0].request.seed != found[2].request.seed
    assert found[0].shape == found[2].shape


def test_adapters_are_added_in_the_order_of_their_names_however_a_row_names_them() -> None:
    arguments = {"prompt": "a", "lora": {"style": STYLE, "detail": DETAIL}}
    assert adapters_in(arguments) == (("adapter_detail", -1.0), ("adapter_style", 0.8))
    assert adapters_in({"prompt": "a"}) == ()
    assert without_loras(arguments) == {"prompt": "a"}


def test_a_job_declares_a_lora_as_a_path_or_a_mapping(tmp_path: Path) -> None:
    job = load_job(JOB | {"loras": {"style": "a.safetensors", "x": {"path": "org/x", "revision": "v1"}}})
    assert job.loras["style"] == LoraSection(path="a.safetensors")
    assert job.loras["x"] == LoraSection(path="org/x", revision="v1")
    path = tmp_path / "job.yaml"
    path.write_text("table: t\noutput: o\nmodel: m\nloras: {style: ./a}\n", encoding="utf-8")
    changed = load_job(path, ["loras.style.file=b.safetensors", "loras.other=./c"])
    assert changed.loras["style"] == LoraSection(path=str(tmp_path / "a"), file="b.safetensors")
    assert changed.loras["other"] == LoraSection(path="./c")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"file": "a"}, "no `loras.style.path`"),
        ({"path": "a", "flie": "b"}, "unknown key `loras.style.flie`\nhint: did you mean `loras.style.file`"),
        ({"path": "a", "component": "vae"}, "`loras.style.component` is 'vae'"),
        (7, "`loras.style` is 7"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_told_with_its_key(section: Any, problem: str) -> None:
    with pytest.raises(JobError, match=problem):
        framefleet.plan(JOB | {"loras": {"style": section}})


def test_names_that_no_row_could_give_and_places_without_a_name_are_refused() -> None:
    for name in ("none", "a b", "a+b", "a:b", "", "a.b"):  # which no row could give
        with pytest.raises(JobError, match="cannot be a LoRA's name"):
            loras_of({name: "a.safetensors"})
    assert places(["style=./a=b.safetensors"], "--lora") == {"style": "./a=b.safetensors"}  # of moved ones
    with pytest.raises(JobError, match="not name=place"):
        places(["style"], "--lora")
