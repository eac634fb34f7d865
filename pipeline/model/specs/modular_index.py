"""From the entries of modular_model_index.json to the classes of the components that lie in its folder.

An entry says where its component comes from, and that may be anywhere: another repository, another folder,
another revision. diffusers would fetch it. Here all that is loaded lies next to the index, and is hashed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError

SUFFIX = "ModularPipeline"  # of all their classes
OWN_BLOCKS = "modular_config.json"  # names the code that blocks of a model's own are of
LOADED_FROM = ("diffusers", "transformers")  # any other would be imported by the name it has here
_KEYS = {"type_hint", "pretrained_model_name_or_path", "repo", "subfolder", "variant", "revision"}
_WHOLE = (
    "bring it into one folder: pipe = ModularPipeline.from_pretrained(MODEL); pipe.load_components(); "
    "pipe.save_pretrained(FOLDER)"
)


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
