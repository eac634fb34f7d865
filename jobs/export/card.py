"""From the records of an output to the card of a dataset of its clips: the models, and their licenses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from framefleet.pipeline.errors import StoreConflict
from framefleet.pipeline.model.license import License
from framefleet.pipeline.outputs.parts.part_names import Part
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.stores.store import Store

DATASET_CARD = "README.md"
_COLUMNS = ("model", "license")
_MAX_MODELS = 20


def write_card(store: Store, place: Store, parts: Sequence[Part]) -> None:
    """Write the card, unless the dataset has one: somebody may have written more into it."""
    with suppress(StoreConflict):
        place.create(DATASET_CARD, _card(_models(store, parts)).encode())


def _models(store: Store, parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Return each model that rendered a clip, with its license; the first ones of many."""
    names = [name for name in _COLUMNS if name in record_schema_of(store, parts).names]
    found: dict[tuple[str, str], None] = {}
    for table in record_tables(store, names, parts):
        if "license" not in names:
            table = table.append_column("license", pa.nulls(len(table), pa.string()))
        for row in table.group_by(list(_COLUMNS)).aggregate([]).to_pylist():
            found[row["model"], row["license"] or "unknown"] = None
    return list(found)[:_MAX_MODELS]


def _card(models: Sequence[tuple[str, str]]) -> str:
    licenses = {name for _, name in models}
    name = next(iter(licenses)) if len(licenses) == 1 else "several"
    head = f"---\nlicense: other\nlicense_name: {_plain(name)}\ntags:\n- synthetic\n---\n"
    lines = [f"- `{_plain(model)}`: {_plain(_said(license))}" for model, license in models]
    return (
        f"{head}\n# Clips rendered with framefleet\n\nModels, and the licenses of their weights:\n\n"
        + "\n".join([*lines, ""])
    )


def _said(name: str) -> str:
    terms = License(name=name, source="card").terms
    return f"{name}: {'; '.join(terms.unusual())} ({terms.text})" if terms and terms.unusual() else name


def _plain(text: str) -> str:
    """Return text of anybody's on one line, without what ends a code span."""
    return " ".join(text.replace("`", "'").split())
