"""Does each weight of a model have a place, and each place a weight? Before any weight is read.

The libraries load files that have the names and shapes of the real ones and holes for values, in a process of
their own. So what they convert, tie and pass over counts as it does when the model is loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.sources.components import Component, class_of
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.sources.selection import SAFETENSORS, is_weights
from framefleet.pipeline.model.specs.model_index import MODEL_INDEX

if TYPE_CHECKING:
    from framefleet.pipeline.model.sources.network_loading import LoadedNetwork

log = logging.getLogger(__name__)

# Beyond the files, which are mapped and of which few values are read. A config could ask for all there is.
_MAX_BYTES = 4 << 30
_MAX_SILENCE_S = 180.0  # imports take most of it
_BOXES = Sandboxes(__name__, max_silence_s=_MAX_SILENCE_S)
_Error = tuple[str, str]  # problem, fix
_Errors = tuple[_Error | None, _Error | None]  # where nothing may be left over; where weights may be


def check_placement(
    folder: Path, files: Collection[str], components: Sequence[Component], *, allow_unmatched: bool
) -> None:
    """Raise ModelError for weights that loading the model would refuse; log those that it would leave out.

    folder: of this machine, with all files that loading reads. Says nothing of pickles, nor of what cannot be
    loaded here.
    """
    weights = sorted(filter(is_weights, files))
    if not all(file.endswith(SAFETENSORS) for file in weights):
        return
    content = hashlib.sha256()
    for file in sorted(files):
        header = (
            json.dumps([asdict(tensor) for tensor in check_file_size(folder / file)])
            if file in weights
            else ""
        )
        content.update(f"{file}\n{header}\n".encode())
        content.update(b"" if file in weights else (folder / file).read_bytes())
    named = [asdict(component) for component in components]
    try:
        strict, lenient = _errors(content.hexdigest(), named, str(folder), sorted(files))
    except Ended as ended:  # whoever loads it says why, in the library's words
        log.debug("%s: its weights cannot be compared: %s", folder, ended)
        return
    if refusal := lenient if allow_unmatched else strict:
        raise ModelError(f"{folder}/{refusal[0]}", refusal[1])
    if strict:
        log.warning("%s/%s", folder, strict[0])


@disk_cached(TypeAdapter(_Errors), decided_by=lambda content, components, *_: [content, components])
def _errors(content: str, components: list[dict[str, Any]], folder: str, files: list[str]) -> _Errors:
    # Closed afterwards: with the libraries it holds as much memory as a worker before it loads its model.
    with tempfile.TemporaryDirectory(prefix="framefleet-") as place, closing(_BOXES), _BOXES.one() as box:
        box.send(json.dumps([place, folder, files, components]).encode())
        return TypeAdapter(_Errors).validate_json(box.receive())


def _answer(connection: Connection) -> None:
    place, folder, files, named = json.loads(connection.recv_bytes())
    components = [Component(**{**one, "extra_folders": tuple(one["extra_folders"])}) for one in named]
    for component in components:
        class_of(component.library, component.class_name)  # imported before memory is bounded
    bound_memory(write_hollow(Path(folder), files, Path(place)) + _MAX_BYTES)
    connection.send_bytes(json.dumps(errors_of(Path(place), components)).encode())


def write_hollow(folder: Path, files: Iterable[str], place: Path) -> int:
    """Write files of the same weights without their values; return their size, most of which is holes.

    All numbers are of one type, as what is stored in the type that is asked for is not copied. Other files
    are links.
    """
    size = 0
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if not is_weights(name):
            (place / name).symlink_to((folder / name).resolve())
            continue
        with (folder / name).open("rb") as file:
            header = parse_json(file.read(int.from_bytes(file.read(8), "little")))
        end = 0
        for tensor in check_file_size(folder / name):
            is_float = tensor.dtype.startswith(("F", "BF"))
            length = 4 * tensor.num_parameters if is_float else tensor.end - tensor.begin
            kind = "F32" if is_float else tensor.dtype
            header[tensor.name] |= {"dtype": kind, "data_offsets": [end, end + length]}
            end += length
        content = json.dumps(header).encode()
        with (place / name).open("wb") as file:
            file.write(len(content).to_bytes(8, "little") + content)
            file.truncate(8 + len(content) + end)
        size += 8 + len(content) + end
    return size


def errors_of(place: Path, components: Sequence[Component]) -> _Errors:
    """Return what loading these files says: where nothing may be left over, and where weights may."""
    import torch

    from framefleet.pipeline.model.sources.assembly import assembled  # imports the libraries
    from framefleet.pipeline.model.sources.network_loading import load_networks
    from framefleet.pipeline.model.sources.verified_folder import alone, bounded_modules
    from framefleet.pipeline.model.specs.spec import inspect_model

    try:
        with alone(), bounded_modules(place):
            networks, loaded = load_networks(
                place,
                [one for one in components if one.has_weights],
                dtype=torch.float32,
                use_safetensors=True,
                where=Path(),
            )
            if _refusal(loaded) and (place / MODEL_INDEX).is_file():
                # Some pipelines share layers, which only one of their networks has in its file.
                assembled(place, inspect_model(place), components, networks=networks)
            return _refusal(loaded), _refusal(loaded, allow_unmatched=True)
    except ModelError as error:
        return (error.problem, error.fix), (error.problem, error.fix)


def _refusal(loaded: Iterable[LoadedNetwork], *, allow_unmatched: bool = False) -> _Error | None:
    from framefleet.pipeline.model.sources.network_loading import check_loaded

    try:
        check_loaded(loaded, allow_unmatched=allow_unmatched)
    except ModelError as error:
        return error.problem, error.fix
    return None


if __name__ == "__main__":
    serve(_answer)
