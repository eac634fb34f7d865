"""What records show of a table and of arguments: nothing is lost, no name is two things, no secret told."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.tables.record_columns import (
    Carried,
    argument_fields,
    argument_values,
    carried_columns,
)

KINDS: dict[str, ArgumentKind] = {
    "prompt": "str",
    "guidance_scale": "float",
    "num_inference_steps": "int",
    "use_cache": "bool",
    "image": "image",
    "image_model": "model",
    "sigmas": "list[float]",
    "height": "int",
}
FIELDS = argument_fields(KINDS, taken={"height"})
SIGNED = "https://user:pass@example.com/a.png?sig=abc"


def carried(table: pa.RecordBatch, read: dict[str, str], *taken: str) -> Carried:
    return carried_columns(table.schema, read, KINDS, taken=taken)


def test_each_scalar_argument_is_a_column_of_its_own_type() -> None:
    assert {field.name: str(field.type) for field in FIELDS} == {
        "prompt": "string",
        "guidance_scale": "double",
        "num_inference_steps": "int64",
        "use_cache": "bool",
        "image": "string",
        "image_model": "string",
    }


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("prompt", "a cat", "a cat"),
        ("guidance_scale", 5, 5.0),
        ("guidance_scale", "linear(1, 5)", None),
        ("guidance_scale", 10**400, None),
        ("num_inference_steps", True, None),
        ("use_cache", True, True),
        ("use_cache", 1, None),
        ("image", {"uri": SIGNED, "sha256": "0"}, "https://example.com/a.png"),
        ("image_model", {"name": "flux", "digest": "0"}, "flux"),
    ],
)
def test_a_cell_is_the_argument_or_null(name: str, value: Any, shown: Any) -> None:
    cells = argument_values({name: value}, FIELDS)
    assert cells == dict.fromkeys(FIELDS.names) | {name: shown}
    assert pa.table({key: [cell] for key, cell in cells.items()}, schema=FIELDS)


@pytest.mark.parametrize(
    ("cells", "taken", "expected"),
    [
        ({"caption": "a"}, ["prompt"], {"caption": "a"}),  # also what is read under another name
        ({"prompt": "a"}, ["prompt"], {}),
        ({"": 0, "note": "b"}, [], {"unnamed": 0, "note": "b"}),
        ({"caption": "a", "seed": 1, "tag": "x"}, ["seed"], {"caption": "a", "source_seed": 1, "tag": "x"}),
        ({"caption": "a", "prompt": "b"}, ["prompt"], {"caption": "a", "source_prompt": "b"}),
        ({"note": "a", "uri": "c"}, ["uri"], {"note": "a", "source_uri": "c"}),
    ],
)
def test_other_columns_are_carried_under_names_that_records_have_free(
    cells: dict[str, Any], taken: list[str], expected: dict[str, Any]
) -> None:
    table = pa.RecordBatch.from_pylist([cells])
    columns = carried(table, {"prompt": "caption" if "caption" in cells else "prompt"}, *taken)
    assert columns.of(table).to_pylist() == [expected] and columns.schema(table.schema).names == [*expected]
    names = [name for name in cells if expected]
    assert columns.renamed == [pair for pair in zip(names, expected, strict=True) if pair[0] != pair[1]]


def test_a_table_that_has_both_names_is_refused() -> None:
    table = pa.RecordBatch.from_pydict({"uri": ["a"], "source_uri": ["b"]})
    with pytest.raises(TableError, match="'source_uri'") as caught:
        carried(table, {}, "uri")
    assert "rename" in caught.value.fix


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_renamed_column_of_images_shows_no_signature(kind: pa.DataType) -> None:
    cells = pa.array([SIGNED, None, "a.png"]).cast(kind)
    table = pa.RecordBatch.from_arrays([cells], ["first"])
    kept = carried(table, {"image": "first"}).of(table)
    assert kept.schema.field("first").type == kind
    assert kept["first"].to_pylist() == ["https://example.com/a.png", None, "a.png"]


def test_urls_in_a_carried_list_of_media_lose_their_secrets() -> None:
    entries = [{"image": SIGNED, "video": None}, {"image": None, "video": "b.mp4"}]
    table = pa.RecordBatch.from_pylist([{"media": entries}])
    own = Carried(names={"media": "media"}, places=frozenset({"media"})).of(table).to_pylist()
    assert own == [{"media": [{"image": "https://example.com/a.png", "video": None}, entries[1]]}]
