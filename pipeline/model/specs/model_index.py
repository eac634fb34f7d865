"""From the bytes of model_index.json to a pipeline's class and the classes of its components, by name.

Names only: nothing is imported here, and nobody may rely on what they say before it was looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json

INDEX = "model_index.json"
# The components whose forwards are most of the work, and run once for each step and row.
DENOISERS = ("transformer", "unet", "prior")
OWN_CODE = (
    "pipelines with code of their own are not loaded; use a model made for diffusers, or update diffusers"
)
# Of a file of settings. A tokenizer's, with thousands of tokens, has a tenth of it.
MAX_JSON_BYTES = 16 * 2**20


def parse_index(content: bytes, where: str) -> dict[str, Any]:
    """Return model_index.json, with a `_class_name` that is text. Raises ModelError for another thing."""
    return _of_pipeline(parse_object(content, where), where)


def read_index(folder: Path) -> dict[str, Any]:
    """Return the model_index.json of a folder, as `parse_index` does."""
    path = folder / INDEX
    fix = "give a diffusers pipeline folder, not a single checkpoint"
    return _of_pipeline(read_object(path, fix), str(path))


def _of_pipeline(index: dict[str, Any], where: str) -> dict[str, Any]:
    if isinstance(index.get("_class_name"), list) or "custom_pipeline" in index:
        raise ModelError(f"{where} names a custom pipeline", OWN_CODE)
    if not isinstance(index.get("_class_name"), str):
        raise ModelError(f"{where} names no pipeline class of diffusers", OWN_CODE)
    return index


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


def component_classes(index: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Return the library and the class of every component that is there.

    Raises ModelError for a name that is not the plain name of a folder.
    """
    found = {
        name: (entry[0], entry[1])
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)
    }
    for name in found:
        if not name.isidentifier():
            raise ModelError(f"{where}: {name!r} cannot be a component's name", "download the model again")
    return found
