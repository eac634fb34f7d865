"""Does each weight of a model have a place, and each place a weight? Before any weight is read.

The libraries load files that have the names and shapes of the real ones and holes for values, in a process
of their own, so what they convert, tie and pass over counts. Only headers are read, also of far files.
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

# Beyond the files, which are mapped and of which few values are read. A config could ask for all there is.
_MAX_BYTES = 4 << 30
_PARTS = ".parts"  # the folder of single files, which no component is called
_Error = tuple[str, str]  # problem, fix
_Errors = tuple[_Error | None, _Error | None]  # where nothing may be left over; where weights may be


def check_weights_fit(
    source: Source,
    files: Collection[str],
    components: Sequence[Component],
    *,
    parts: Collection[PartFile] = (),
    allow_unmatched: bool,
) -> None:
    """Raise ModelError for weights that loading the model would refuse; log those that it would leave out.

    files: all that loading reads of the source. parts: single files, in place of components' weights. Says
    nothing of pickles and packed weights, whose names are known once they are unpacked, nor of what cannot be
    loaded here.
    """
    settings = sorted(file for file in files if not is_weights(file))
    folder = source.fetch(settings)
    # Of packed weights and pickles the headers do not say names and shapes.
    pickled = (file for file in files if is_weights(file) and not file.endswith(SAFETENSORS))
    unknown = {file.partition("/")[0] for file in pickled} | packed_components(folder, files).keys()
    compared = {one.name: one for one in components if one.has_weights and unknown.isdisjoint(one.folders)}
    if not compared:
        return
    singles = {name: part for name, part in by_component(parts, components).items() if name in compared}
    inside = tuple(f"{name}/" for one in compared.values() for name in one.folders)
    weights = sorted(file for file in files if is_weights(file) and file.startswith(inside))

    @cache  # some are far away
    def header_of(file: str) -> tuple[list[Tensor], Notes]:
        """Return tensors and notes. Raises ModelError for a file cut short, or of packed weights."""
        where = f"{source.name}/{file}"
        size = Path(source.path, file).stat().st_size if source.is_local else source.files[file].size
        tensors, notes = read_header(partial(source.read, file), where, size)
        check_whole_numbers(where, tensors)
        return tensors, notes

    def identity(file: str) -> str:
        """Return what changes with a file: the SHA-256 that its store has, or else its tensors."""
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
        for part in singles.values():  # a GGUF file becomes an ordinary one: its names and shapes stay
            tensors = [replace(one, dtype="F32") if part.is_gguf else one for one in part.tensors]
            write_hollow(place / _PARTS / f"{part.key}{SAFETENSORS}", tensors)

    try:
        strict, lenient = _errors(hashlib.sha256(json.dumps(content).encode()).hexdigest(), request, write)
    except Ended as ended:  # whoever loads it says why, in the library's words
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
    """Write a sparse file: a header with these tensors, and a hole where their values would be.

    All floating-point tensors become float32, the type in which they are loaded, so that nothing is copied.
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
        class_of(component.library, component.class_name)  # imported before memory is bounded
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
    """Return what loading these files says: where nothing may be left over, and where weights may.

    compared: names of components; the others get no weights. parts: by component, a single file's name and
    what messages call it. where: what they call `place`.
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
                # Some pipelines share layers, which only one of their networks has in its file.
                left = [one for one in components if one.has_weights and one.name not in compared]
                networks |= {one.name: network_loading.blank_network(one, place) for one in left}
                network_loading.assembled(place, inspect_model(place), components, networks=networks)
            return refusal(allow_unmatched=False), refusal(allow_unmatched=True)
    except ModelError as error:
        return (error.problem, error.fix), (error.problem, error.fix)
