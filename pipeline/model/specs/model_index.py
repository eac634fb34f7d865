"""From the bytes of a pipeline's index to its class and the classes of its components, by name.

Names only: nothing is imported here, and nobody may rely on what they say before it was looked up.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.model.specs.modular_index import is_modular, modular_components

MODEL_INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
INDEXES = (MODEL_INDEX, MODULAR_INDEX)  # where a folder has both, the first counts
# The components whose forwards are most of the work, and run once for each step and row.
DENOISERS = ("transformer", "unet", "prior")
OWN_CODE = (
    "pipelines with code of their own are not loaded; use a model made for diffusers, or update diffusers"
)
# Of a file of settings. A tokenizer's, with thousands of tokens, has a tenth of it.
MAX_JSON_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIndex:
    """What an index says. components: library and class of each. where: what messages call it."""

    class_name: str
    components: Mapping[str, tuple[str, str]]
    values: Mapping[str, Any]
    where: str


def index_file(files: Container[str]) -> str:
    """Return the name of the index among a model's files; of the usual one where there is none."""
    return next((name for name in INDEXES if name in files), MODEL_INDEX)


def parse_index(content: bytes, where: str) -> ModelIndex:
    """Return what an index says. Raises ModelError where it is not that of a pipeline."""
    return _of_its_kind(index_of(parse_object(content, where), where))


def read_index(folder: Path) -> ModelIndex:
    """Return what the index of a folder says, as `parse_index` does."""
    path = folder / index_file([name for name in INDEXES if (folder / name).is_file()])
    fix = "give a diffusers pipeline folder, not a single checkpoint"
    return _of_its_kind(index_of(read_object(path, fix), str(path)))


def index_of(index: Mapping[str, Any], where: str) -> ModelIndex:
    """Return what parsed values say, as `parse_index` does."""
    if isinstance(index.get("_class_name"), list) or "custom_pipeline" in index:
        raise ModelError(f"{where} names a custom pipeline", OWN_CODE)
    if not isinstance(index.get("_class_name"), str):
        raise ModelError(f"{where} names no pipeline class of diffusers", OWN_CODE)
    found = modular_components if is_modular(index["_class_name"]) else _component_classes
    return ModelIndex(
        class_name=index["_class_name"],
        components=_plain_names(found(index, where), where),
        values=index,
        where=where,
    )


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object of settings. Raises ModelError for anything else."""
    if len(content) > MAX_JSON_BYTES:
        raise ModelError(f"{where} has more than {MAX_JSON_BYTES:,} bytes", "download the model again")
    try:
        found = parse_json(content)
    except ValueError as error:
        raise ModelError(f"{where} cannot be read: {error}", "download the model again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{where} is not a JSON object", "download the model again")
    return found


def read_object(path: Path, fix: str = "download the model again") -> dict[str, Any]:
    """Return what a file of settings holds. Raises ModelError; `fix` is for a file that is not there."""
    if not path.is_file():  # nor a pipe, which would be waited for
        raise ModelError(f"{path} does not exist", fix)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    return parse_object(content, str(path))


def _of_its_kind(index: ModelIndex) -> ModelIndex:
    """Raise ModelError where one kind of index names a pipeline of the other, which is loaded otherwise."""
    wanted = MODULAR_INDEX if is_modular(index.class_name) else MODEL_INDEX
    if index.where.endswith(MODULAR_INDEX) != (wanted == MODULAR_INDEX):
        raise ModelError(
            f"{index.where} has no pipeline of its kind: {index.class_name} belongs in a {wanted}",
            "fetch the model again",
        )
    return index


def _component_classes(index: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    return {
        name: (entry[0], entry[1])
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)
    }


def _plain_names(found: dict[str, tuple[str, str]], where: str) -> dict[str, tuple[str, str]]:
    """Raise ModelError for a name that is not the plain name of a folder."""
    for name in found:
        if not name.isidentifier():
            raise ModelError(f"{where}: {name!r} cannot be a component's name", "download the model again")
    return found
