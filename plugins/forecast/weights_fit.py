"""Check that a model's weights match its networks, without reading weights.

The libraries load sparse files with the names and shapes of the real weights, in a separate process, so their
conversions, tied weights and exceptions apply. Only headers are read, also from remote files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from framefleet.api.errors import ModelError
from framefleet.api.models import SAFETENSORS, by_component
from framefleet.pipeline.guards.sandbox import Ended, bound_memory
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.folder_source import Source
from framefleet.pipeline.model.sources.headers import Notes, Tensor, read_header
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.model.sources.leftovers import check_whole_numbers
from framefleet.pipeline.model.sources.packing import packed_components
from framefleet.pipeline.model.sources.parts import PartFile
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.pipeline.model.specs.model_index import MODEL_INDEX

log = logging.getLogger(__name__)

# Memory limit, not counting the mapped files. Without it, a config could use up all memory.
_MAX_BYTES = 4 << 30
_PARTS = ".parts"  # folder for single files; no component has this name
_Error = tuple[str, str]  # problem, fix
_Errors = tuple[_Error | None, _Error | None]  # if no weights may be left over, and if some may


def check_weights_fit(
    source: Source,
    files: Collection[str],
    components: Sequence[Component],
    *,
    parts: Collection[PartFile] = (),
    allow_unmatched: bool,
) -> None:
    """Raise ModelError if loading the model would refuse its weights; log weights that it would ignore.

    files: all that loading reads from the source. parts: single files that replace components' weights. Does
    not check pickles and packed weights, whose names are only known once they are unpacked, nor what cannot
    be loaded here.
    """
    settings = sorted(file for file in files if not is_weights(file))
    folder = source.fetch(settings)
    # The headers of packed weights and pickles have no names and shapes.
    pickled = (file for file in files if is_weights(file) and not file.endswith(SAFETENSORS))
    unknown = {file.partition("/")[0] for file in pickled} | packed_components(folder, files).keys()
    compared = {one.name: one for one in components if one.has_weights and unknown.isdisjoint(one.folders)}
    if not compared:
        return
    singles = {name: part for name, part in by_component(parts, components).items() if name in compared}
    inside = tuple(f"{name}/" for one in compared.values() for name in one.folders)
    weights = sorted(file for file in files if is_weights(file) and file.startswith(inside))

    @cache  # some are remote
    def header_of(file: str) -> tuple[list[Tensor], Notes]:
        """Return tensors and notes. Raises ModelError for a truncated file, or packed weights."""
        where = f"{source.name}/{file}"
        size = Path(source.path, file).stat().st_size if source.is_local else source.files[file].size
        tensors, notes = read_header(partial(source.read, file), where, size)
        check_whole_numbers(where, tensors)
        return tensors, notes

    def identity(file: str) -> str:
        """Return text that changes with the file: the SHA-256 from its store, or else its tensors."""
        sha256 = None if source.is_local else source.files[file].sha256
        return sha256 or json.dumps([asdict(tensor) for tensor in header_of(file)[0]])

    request = {
        "where": source.name,
        "components": [asdict(one) for one in components],
        "compared": sorted(compared),
        "parts": {name: (part.key, part.where) for name, part in singles.items()},
    }
    content = [
        request,
        [(file, sha256_of(folder / file)) for file in settings],
        [(file, identity(file)) for file in weights],
        [[*map(asdict, one.tensors)] for one in singles.values()],
    ]

    def write(place: Path) -> None:
        for file in settings:
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).symlink_to((folder / file).resolve())
        for file in weights:
            write_hollow(place / file, *header_of(file))
        for part in singles.values():  # a GGUF file becomes safetensors with the same names and shapes
            tensors = [replace(one, dtype="F32") if part.is_gguf else one for one in part.tensors]
            write_hollow(place / _PARTS / f"{part.key}{SAFETENSORS}", tensors)

    try:
        strict, lenient = _errors(hashlib.sha256(json.dumps(content).encode()).hexdigest(), request, write)
    except Ended as ended:  # loading it will show the library's error
        log.debug("%s: its weights cannot be compared: %s", source.name, ended)
        return
    if refusal := lenient if allow_unmatched else strict:
        raise ModelError(*refusal)
    if strict:
        log.warning("%s", strict[0])


@disk_cached(TypeAdapter(_Errors), decided_by=lambda content, *_: [content])
def _errors(content: str, request: dict[str, Any], write: Callable[[Path], None]) -> _Errors:
    with tempfile.TemporaryDirectory(prefix="framefleet-") as place:
        write(Path(place))
        return TypeAdapter(_Errors).validate_python(LIBRARY_PROCESS.ask(_errors_in_bounds, place, request))


def write_hollow(path: Path, tensors: Iterable[Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write a sparse safetensors file with these tensors, but without values.

    Floating-point tensors become float32, the type in which they are loaded, so that nothing is copied.
    """
    header: dict[str, Any] = {"__metadata__": notes} if notes else {}
    end = 0
    for tensor in tensors:
        is_float = tensor.dtype.startswith(("F", "BF"))
        length = 4 * tensor.num_parameters if is_float else tensor.end - tensor.begin
        kind = "F32" if is_float else tensor.dtype
        header[tensor.name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [end, end + length]}
        end += length
    content = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)


def _errors_in_bounds(folder: str, request: Mapping[str, Any]) -> _Errors:
    place, compared = Path(folder), request["compared"]
    components = TypeAdapter(list[Component]).validate_python(request["components"])
    for component in components:
        class_of(component.library, component.class_name)  # import it before memory is limited
    bound_memory(sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) + _MAX_BYTES)
    where = Path(request["where"])
    return errors_of(place, components, compared=compared, parts=request["parts"], where=where)


def errors_of(
    place: Path,
    components: Sequence[Component],
    *,
    compared: Collection[str],
    parts: Mapping[str, tuple[str, str]] = {},
    where: Path = Path(),
) -> _Errors:
    """Return the errors of loading these files: if no weights may be left over, and if some may.

    compared: names of components; the others get no weights. parts: by component, a single file's name and
    its name in messages. where: name of `place` in messages.
    """
    import torch

    from framefleet.api.models import inspect_model
    from framefleet.pipeline.model.sources import network_loading  # imports the libraries
    from framefleet.pipeline.model.sources.single_file import SingleFile
    from framefleet.pipeline.model.sources.verified_folder import alone, bounded_modules

    files = {
        key: SingleFile(place / _PARTS / f"{key}{SAFETENSORS}", False, name) for key, name in parts.values()
    }

    def refusal(*, allow_unmatched: bool) -> _Error | None:
        try:
            for file in files.values():
                file.check_all_placed(allow_unmatched=allow_unmatched)
            network_loading.check_loaded(loaded, allow_unmatched=allow_unmatched)
        except ModelError as error:
            return error.problem, error.fix
        return None

    try:
        with alone(), bounded_modules(place):
            networks, loaded = network_loading.load_networks(
                place,
                [one for one in components if one.name in compared],
                dtype=torch.float32,
                use_safetensors=True,
                parts={name: files[key] for name, (key, _) in parts.items()},
                allow_unmatched=True,
                where=where,
            )
            if refusal(allow_unmatched=False) and (place / MODEL_INDEX).is_file():
                # Some pipelines share layers that only one of their networks has in its file.
                left = [one for one in components if one.has_weights and one.name not in compared]
                networks |= {one.name: network_loading.blank_network(one, place) for one in left}
                network_loading.assembled(place, inspect_model(place), components, networks=networks)
            return refusal(allow_unmatched=False), refusal(allow_unmatched=True)
    except ModelError as error:
        return (error.problem, error.fix), (error.problem, error.fix)
