"""From a pipeline's index to the names of its class and of its components' classes.

Nothing is imported here, and the names must not be trusted before they are looked up.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import FramefleetError, ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.mistakes import folder_meant
from framefleet.pipeline.model.sources.headers import HEAD_BYTES, foreign, read_first

Missing = Callable[[str, str], FramefleetError]  # from problem and fix to the error, see `Source.missing`
Configs = Mapping[str, Mapping[str, Any]]  # of a model's components, by name, and model_index.json as "index"
MODEL_INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
INDEXES = (MODEL_INDEX, MODULAR_INDEX)  # if a folder has both, the first counts
# The components that do most of the work: their forwards run once for each step and row.
DENOISERS = ("transformer", "unet", "prior")
# Their names in pipelines, also if there are several, or a combined pipeline with its prior.
_DENOISER = re.compile(rf"({'|'.join(DENOISERS)})(_\d+)?|prior_prior")
OWN_CODE = (
    "pipelines with their own code are not loaded; use a model for diffusers, update diffusers, or install "
    "the code as a plugin with a family"
)
# Of a settings file. Those of tokenizers, with thousands of tokens, have a tenth of this.
MAX_JSON_BYTES = 16 * 2**20
# A component with several networks, and the key of their number in its config.
CONTROLNETS, NETS = "MultiControlNetModel", "num_nets"
_MODULAR = "ModularPipeline"  # suffix of the names of all modular classes
_OWN_BLOCKS = "modular_config.json"  # names the code of a model's own blocks
_LOADED_FROM = ("diffusers", "transformers")  # other libraries would be imported by name
_KEYS = {"type_hint", "pretrained_model_name_or_path", "repo", "subfolder", "variant", "revision"}
_WHOLE = (
    "bring it into one folder: pipe = ModularPipeline.from_pretrained(MODEL); pipe.load_components(); "
    "pipe.save_pretrained(FOLDER)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIndex:
    class_name: str
    components: Mapping[str, tuple[str, str]]  # library and class of each
    values: Mapping[str, Any]
    where: str  # its name in messages


def is_denoiser(component: str) -> bool:
    """Return whether a component is one of DENOISERS, by its name; prior_tokenizer is not."""
    return _DENOISER.fullmatch(component) is not None


def index_file(files: Container[str]) -> str:
    """Return the name of the index among a model's files; the usual name if there is none."""
    return next((name for name in INDEXES if name in files), MODEL_INDEX)


def parse_index(content: bytes, where: str) -> ModelIndex:
    return _of_its_kind(index_of(_parse_settings(content, where), where))


def read_index(folder: Path) -> ModelIndex:
    """Return the index of a folder. Raises ModelError."""
    path = folder / index_file([name for name in INDEXES if (folder / name).is_file()])
    if not path.is_file():
        raise ModelError(f"{path} does not exist", whole_pipeline(str(folder)))
    return _of_its_kind(index_of(read_object(path), str(path)))


def whole_pipeline(folder: str) -> str:
    """Return the fix for a folder without an index."""
    fix = "use the folder of a whole diffusers pipeline, not a component or a checkpoint"
    return folder_meant(folder, INDEXES) or fix


def index_of(index: Mapping[str, Any], where: str) -> ModelIndex:
    """Return the index for parsed values. Raises ModelError."""
    if isinstance(index.get("_class_name"), list) or "custom_pipeline" in index:
        raise ModelError(f"{where} names a custom pipeline", OWN_CODE)
    if not isinstance(index.get("_class_name"), str):
        raise ModelError(f"{where} names no pipeline class of diffusers", OWN_CODE)
    components = {name: (entry[0], entry[1]) for name, entry in index.items() if _is_class(entry)}
    if is_modular(index["_class_name"]):
        components = _modular_components(index, where)
    for name in components:
        if not name.isidentifier():  # it is a folder's name
            raise ModelError(f"{where}: {name!r} cannot be a component's name", "download the model again")
    return ModelIndex(class_name=index["_class_name"], components=components, values=index, where=where)


def _parse_settings(content: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object. Raises ModelError for anything else."""
    if len(content) > MAX_JSON_BYTES:
        raise ModelError(f"{where} has more than {MAX_JSON_BYTES:,} bytes", "download the model again")
    if kind := foreign(content[:HEAD_BYTES]):
        raise ModelError(f"{where} {kind[0]}", kind[1])
    try:
        settings = parse_json(content)
    except ValueError as error:
        raise ModelError(f"{where} cannot be read: {error}", "download the model again") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{where} is not a JSON object", "download the model again")
    return settings


def read_object(path: Path, fix: str = "download the model again") -> dict[str, Any]:
    """Return the JSON object in a settings file. Raises ModelError. fix: for a missing file."""
    if not path.is_file():  # reading a pipe would wait
        raise ModelError(f"{path} does not exist", fix)
    return _parse_settings(read_first(path, MAX_JSON_BYTES + 1), str(path))


def _of_its_kind(index: ModelIndex) -> ModelIndex:
    """Raise ModelError if an index names a pipeline of the other kind, which is loaded differently."""
    wanted = MODULAR_INDEX if is_modular(index.class_name) else MODEL_INDEX
    if index.where.endswith(MODULAR_INDEX) != (wanted == MODULAR_INDEX):
        problem = f"{index.where} names the wrong kind of pipeline: {index.class_name} belongs in a {wanted}"
        raise ModelError(problem, "fetch the model again")
    return index


def is_modular(class_name: str) -> bool:
    return class_name.endswith(_MODULAR)


def has_controlnets(configs: Configs) -> bool:
    entry = configs["index"].get("controlnet")
    return isinstance(entry, list) and entry[-1:] == [CONTROLNETS]


def network_folders(name: str, folders: Collection[str]) -> list[str]:
    """Return the folders of several networks in diffusers' order: name, name_1, name_2, ..."""
    networks = [name] if name in folders else []
    while networks and f"{name}_{len(networks)}" in folders:
        networks.append(f"{name}_{len(networks)}")
    return networks


def check_whole(
    components: Mapping[str, Any], files: Mapping[str, Any], where: str, *, missing: Missing
) -> None:
    """Raise ModelError for a model's own blocks, and what `missing` makes if a component has no folder."""
    if _OWN_BLOCKS in files:
        problem = f"{where} has its own blocks: {_OWN_BLOCKS} names their code, which may not run"
        raise ModelError(problem, "use a model with blocks that diffusers has")
    for name in components:
        if not any(file.startswith(f"{name}/") for file in files):
            raise missing(f"{where}: {name} is in another place, which may not be downloaded", _WHOLE)


def _modular_components(index: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Return the required components. Raises ModelError for others that diffusers would import or open."""

    def odd(name: str, what: str) -> ModelError:
        fix = "use a model for diffusers without its own code"
        return ModelError(f"{where}: {name}: {what}"[:300], fix)

    components = {}
    for name, entry in index.items():
        if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], dict)):
            continue
        *loaded, settings = entry
        places = [classes for classes in (loaded, settings.get("type_hint")) if _is_class(classes)]
        if unknown := sorted(set(settings) - _KEYS):
            raise odd(name, f"unknown key {unknown[0]!r}")
        for classes in (loaded, settings.get("type_hint")):
            # Also for components that are missing, because a script's loader would import their library.
            if classes not in (None, [None, None]) and classes not in places:
                raise odd(name, f"{classes!r} names no class")
            if classes in places and not _is_loaded_from(classes[0]):
                raise odd(name, f"{classes[0]!r} is neither {' nor '.join(_LOADED_FROM)}")
        if settings.get("pretrained_model_name_or_path", settings.get("repo")) is None:
            continue  # the index says that nothing is loaded
        if settings.get("subfolder") != name or settings.get("variant") is not None:
            place = f"{settings.get('subfolder')!r}, variant {settings.get('variant')!r}"
            raise ModelError(f"{where}: {name} is in {place[:80]}, and not in a folder with its name", _WHOLE)
        if not places:
            raise ModelError(f"{where} does not name the class of {name}", _WHOLE)
        components[name] = (places[0][0], places[0][1])
    return components


def _is_loaded_from(library: str) -> bool:
    """Return whether a library's classes may be loaded, also those of a pipeline, e.g. LTX-2's connectors."""
    places = getattr(importlib.util.find_spec("diffusers"), "submodule_search_locations", None) or []
    files = (Path(place, "pipelines", library, "__init__.py") for place in places)
    return library in _LOADED_FROM or (library.isidentifier() and any(file.is_file() for file in files))


def _is_class(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)
