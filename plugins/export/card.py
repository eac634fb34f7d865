"""Describe a dataset: a card with the models and their licenses, and Croissant metadata.

Croissant 1.0: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

import pyarrow as pa
import yaml

from framefleet.api.outputs import Store
from framefleet.api.texts import without_folder
from framefleet.pipeline.errors import StoreConflict
from framefleet.plugins.forecast.license_terms import terms_of

# Not .json: `datasets` would read it as the data of a folder with few clips. `configs` in the card would
# help, but then `datasets` caches by the folder's name alone, and may open another folder of that name.
DATASET_CARD, CROISSANT = "README.md", "croissant.jsonld"
_MAX_MODELS = 20
# License names of the hub that known models have: https://huggingface.co/docs/hub/repositories-licenses
_HUB_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "creativeml-openrail-m", "openrail++", "unknown")

_TASKS = {"image": "text-to-image", "video": "text-to-video", "audio": "text-to-audio"}  # names of the hub
_ROWS = "data/**/metadata.parquet"
_TERMS = "column dataType extract field fileSet includes recordSet source"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}
_KINDS = {
    "sc:Text": pa.types.is_string,
    "sc:Integer": pa.types.is_integer,
    "sc:Float": pa.types.is_floating,
    "sc:Boolean": pa.types.is_boolean,
    "sc:Date": pa.types.is_timestamp,
}


def write_card(
    place: Store,
    licensed: Iterable[tuple[str, str]],
    *,
    columns: Sequence[pa.Field],
    endings: Collection[str],
    num_rows: int,
    feature: str,
    language_models: Sequence[tuple[str, str]] = (),
) -> None:
    """Write card and metadata, unless the dataset has them, since somebody may have edited them.

    licensed: (model, license) pairs. columns: as named in the dataset. endings: of its clips, e.g. ".mp4".
    feature: of the clips, in `datasets`. language_models: (section of the job, model) pairs.
    """
    public = ((without_folder(model), license) for model, license in licensed)
    models = list(dict.fromkeys(public))[:_MAX_MODELS]
    card = _card(models, language_models, num_rows=num_rows, feature=feature)
    metadata = json.dumps(_croissant(models, columns, endings), indent=2, ensure_ascii=False)
    for path, text in ((DATASET_CARD, card), (CROISSANT, metadata + "\n")):
        with suppress(StoreConflict):
            place.create(path, text.encode())


def _croissant(
    models: Sequence[tuple[str, str]], columns: Sequence[pa.Field], endings: Collection[str]
) -> dict[str, object]:
    """Return the metadata. Columns of lists and structs are not described."""
    kinds = {field.name: kind for field in columns for kind, is_of in _KINDS.items() if is_of(field.type)}
    clips = [f"data/**/*{ending}" for ending in sorted(endings)]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "clips",
        "description": f"Clips rendered with framefleet by {', '.join(model for model, _ in models)}",
        "license": sorted({license for _, license in models}),
        "distribution": [
            {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": kind, "includes": paths}
            for name, kind, paths in (
                ("rows", "application/x-parquet", [_ROWS]),
                ("clips", "application/octet-stream", clips),
            )
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "row",
                "name": "row",
                "field": [
                    {
                        **{"@type": "cr:Field", "@id": f"row/{name}", "name": name, "dataType": kind},
                        "source": {"fileSet": {"@id": "rows"}, "extract": {"column": name}},
                    }
                    for name, kind in kinds.items()
                ],
            }
        ],
    }


def _card(
    models: Sequence[tuple[str, str]],
    language_models: Sequence[tuple[str, str]],
    *,
    num_rows: int,
    feature: str,
) -> str:
    licenses = {name for _, name in models}
    name = next(iter(licenses)) if len(licenses) == 1 else "several"
    # A library writes the head that the hub reads, as license names may contain anything.
    is_of_hub = name.lower() in _HUB_LICENSES
    license_keys = (
        {"license": name.lower()} if is_of_hub else {"license": "other", "license_name": _plain(name)}
    )
    values = {**license_keys, "tags": ["synthetic"], "size_categories": [_size_category(num_rows)]}
    if task := _TASKS.get(feature):
        values["task_categories"] = [task]
    head = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1 << 20)
    lines = []
    for model, license in models:
        terms = terms_of(license)
        unusual = f": {'; '.join(terms.unusual())} ({terms.text})" if terms and terms.unusual() else ""
        lines.append(f"- `{_plain(model)}`: {_plain(license + unusual)}")
    if language_models:
        lines += ["", "Language models that the job used, by section:", ""]
        for section, name in language_models:
            lines.append(f"- {_plain(section)}: `{_plain(without_folder(name))}`")
    return (
        f"---\n{head}---\n\n# Clips rendered with framefleet\n\n"
        "Models, and the licenses of their weights:\n\n" + "\n".join([*lines, ""])
    )


def _size_category(num_rows: int) -> str:
    """Return the hub's name for a dataset of this size."""
    edges = [*(f"{10**power}{unit}" for unit in ("K", "M", "B") for power in range(3)), "1T"]
    number = max(0, len(str(num_rows)) - 3)
    if number == 0:
        return "n<1K"
    return f"{edges[number - 1]}<n<{edges[number]}" if number < len(edges) else f"n>{edges[-1]}"


def _plain(text: str) -> str:
    """Return untrusted text on one line, without backquotes, which would end a code span."""
    return " ".join(text.replace("`", "'").split())
