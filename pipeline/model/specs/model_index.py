"""From a pipeline's index to its class and the classes of its components, by name.

Names only: nothing is imported here, and nobody may rely on what they say before it was looked up.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json

MODEL_INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
INDEXES = (MODEL_INDEX, MODULAR_INDEX)  # where a folder has both, the first counts
# The components whose forwards are most of the work, and run once for each step and row.
DENOISERS = ("transformer", "unet", "prior")
OWN_CODE = (
    "pipelines with code of their own are not loaded; use a model made for diffusers, or update diffusers"
)
# Of a file of settings. A tokenizer's, with thousands of tokens, has a tenth of it.
MAX_JSON_BYTES = 16 * 2**20

SUFFIX = "ModularPipeline"  # of all their classes
OWN_BLOCKS = "modular_config.json"  # names the code that blocks of a model's own are of
LOADED_FROM = ("diffusers", "transformers")  # any other would be imported by the name it has here
_KEYS = {"type_hint", "pretrained_model_name_or_path", "repo", "subfolder", "variant", "revision"}
_WHOLE = (
    "bring it into one folder: pipe = ModularPipeline.from_pretrained(MODEL); pipe.load_components(); "
    "pipe.save_pretrained(FOLDER)"
)


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
    return {name: (entry[0], entry[1]) for name, entry in index.items() if _is_class(entry)}


def _plain_names(found: dict[str, tuple[str, str]], where: str) -> dict[str, tuple[str, str]]:
    """Raise ModelError for a name that is not the plain name of a folder."""
    for name in found:
        if not name.isidentifier():
            raise ModelError(f"{where}: {name!r} cannot be a component's name", "download the model again")
    return found


def is_modular(class_name: str) -> bool:
    return class_name.endswith(SUFFIX)


def modular_components(index: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Return library and class of each component that is to be there.

    Raises ModelError for what diffusers would import or open besides them.
    """
    found = {
        name: _class_of(name, entry, where)
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], dict)
    }
    return {name: classes for name, classes in found.items() if classes is not None}


def check_whole(components: Mapping[str, Any], files: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for blocks of a model's own, and for a component whose folder is not there."""
    if OWN_BLOCKS in files:
        raise ModelError(
            f"{where} has blocks of its own: {OWN_BLOCKS} names their code, which is not run",
            "use a model of blocks that diffusers has",
        )
    for name in components:
        if not any(file.startswith(f"{name}/") for file in files):
            raise ModelError(f"{where}: {name} lies elsewhere, and nothing is fetched on its word", _WHOLE)


def _class_of(name: str, entry: list[Any], where: str) -> tuple[str, str] | None:
    """Return the class that is loaded, or None where the index says that nothing is."""
    *loaded, said = entry
    hint = said.get("type_hint")
    if unknown := sorted(set(said) - _KEYS):
        raise _odd(name, f"{unknown[0]!r} is not known there", where)
    for classes in (loaded, hint):  # of what is not there too: a script's loader imports it all the same
        if classes not in (None, [None, None]) and not _is_class(classes):
            raise _odd(name, f"{classes!r} names no class", where)
        if _is_class(classes) and not _is_loaded_from(classes[0]):
            raise _odd(name, f"{classes[0]!r} is none of {' and '.join(LOADED_FROM)}", where)
    if said.get("pretrained_model_name_or_path", said.get("repo")) is None:
        return None
    if said.get("subfolder") != name or said.get("variant") is not None:
        place = f"{said.get('subfolder')!r}, variant {said.get('variant')!r}"
        raise ModelError(f"{where}: {name} lies in {place[:80]}, and not in a folder of its name", _WHOLE)
    for classes in (loaded, hint):
        if _is_class(classes):
            return classes[0], classes[1]
    raise ModelError(f"{where} does not say of which class {name} is", _WHOLE)


def _is_loaded_from(library: str) -> bool:
    """Some pipelines of diffusers hold components of their own: LTX-2 its connectors."""
    places = getattr(importlib.util.find_spec("diffusers"), "submodule_search_locations", None) or []
    found = (Path(place, "pipelines", library, "__init__.py").is_file() for place in places)
    return library in LOADED_FROM or (library.isidentifier() and any(found))


def _is_class(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)


def _odd(name: str, what: str, where: str) -> ModelError:
    return ModelError(
        f"{where}: of {name}, {what}"[:300], "use a model made for diffusers, without code of its own"
    )
