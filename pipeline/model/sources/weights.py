"""From a model's source to the files to load, each with its SHA-256, compared with lock and hub.

`open_weights` reads only small files, so that a driver on a laptop can use a model of 60 GB. Workers that
load the model call `fetched`, which hashes the real bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources import integrity, selection
from framefleet.pipeline.model.sources.components import Component, components_of
from framefleet.pipeline.model.sources.config_checks import check_configs, check_sizes
from framefleet.pipeline.model.sources.folder_source import Source, list_folder
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.sources.leftovers import (
    check_leftovers,
    check_no_adapter,
    check_scales,
    check_whole_numbers,
)
from framefleet.pipeline.model.sources.packing import packed_components
from framefleet.pipeline.model.sources.parts import PartFile, by_component, part_sizes
from framefleet.pipeline.model.specs import model_index


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One model before it is loaded."""

    source: Source
    class_name: str
    components: tuple[Component, ...]
    files: tuple[str, ...]  # files of the source that loading reads
    expected: Mapping[str, str]  # SHA-256 of the files that the lock or the source knows
    lock: integrity.ModelLock | None
    parts: tuple[PartFile, ...] = ()  # single files, in place of the weights of some components

    @property
    def config_files(self) -> list[str]:
        return [file for file in self.files if not selection.is_weights(file)]

    def stored_bytes(self, *, but: str = "-") -> int:
        """Return the size of all weights, without components whose names begin with `but`."""
        files = (file for file in self.files if selection.is_weights(file) and not file.startswith(but))
        parts = sum(part.size for part in self.parts if not part.name.startswith(but))
        return sum(self.source.files[file].size for file in files) + parts

    def configs(self, *, is_built: bool = False) -> Path:
        """Return a folder on this machine with all files except the weights.

        Raises ModelError for configs that lead a library to code, to the network or to other files, or that
        ask for far more memory than their weights take. is_built: see `check_sizes`.
        """
        folder = self.source.fetch(self.config_files)
        check_configs(folder, self.config_files)
        sizes = {file: self.source.files[file].size for file in self.files}
        sizes |= part_sizes(self.parts, self.components)
        check_sizes(folder, self.components, sizes, where=self.source.name, is_built=is_built)
        return folder

    def digests(self) -> dict[str, str]:
        """Return every file's SHA-256; downloads only files whose SHA-256 is not known."""
        read = [
            file
            for file in self.files
            if self.source.is_local or not selection.is_weights(file) or file not in self.expected
        ]
        parts = {part.key: part.digest() for part in self.parts}
        return {**self.expected, **self._fetched(read)[1], **parts}

    def fetched(self) -> tuple[Path, dict[str, str]]:
        """Return a folder on this machine with all files, and the SHA-256 of their real bytes."""
        folder, digests = self._fetched(self.files)
        return folder, digests | {part.key: part.checked() for part in self.parts}

    def _fetched(self, files: Collection[str]) -> tuple[Path, dict[str, str]]:
        return fetched_files(self.source, files, self.expected, named_by="its lock" if self.lock else None)


def open_weights(
    source: Source,
    *,
    lock: str | None = None,
    allow_pickle: bool = False,
    ignore_lock: bool = False,
    parts: tuple[PartFile, ...] = (),
) -> Weights:
    """Return the files that loading a model would read.

    lock: a lock file's path; without one, the model's own lock counts, unless `ignore_lock` is set. Raises
    ModelError if the model is incomplete, not the locked one, or needs its own code, or pickles that are not
    allowed.
    """
    where = source.name
    file = model_index.index_file(source.files)
    if file not in source.files:
        for first in sorted(name for name in source.files if name.endswith(selection.SAFETENSORS))[:1]:
            check_no_adapter(f"{where}/{first}", (tensor.name for tensor in source.header(first)[0]))
        raise source.missing(f"{where}/{file} does not exist", model_index.whole_pipeline(where))

    def read(file: str) -> bytes:
        if source.is_local:
            # Before it is opened, because a link may lead to an endless file.
            integrity.check_links(Path(source.path), [file])
        if source.files[file].size > model_index.MAX_JSON_BYTES:
            problem = f"{where}/{file} has more than {model_index.MAX_JSON_BYTES:,} bytes"
            raise ModelError(problem, "fetch the model again")
        return source.read(file)

    index = model_index.parse_index(read(file), f"{where}/{file}")
    if model_index.is_modular(index.class_name):
        model_index.check_whole(index.components, source.files, index.where, missing=source.missing)
    components = components_of(index, {name.partition("/")[0] for name in source.files})
    without = by_component(parts, components)
    files = selection.select(
        source.files,
        components,
        read=read,
        where=where,
        allow_pickle=allow_pickle,
        without=without,
        missing=source.missing,
    )
    if source.is_local:
        integrity.check_links(Path(source.path), files)
    listed = {file: sha256 for file in files if (sha256 := source.files[file].sha256)}
    locked: integrity.ModelLock | None = None
    if lock is not None and not ignore_lock:
        locked = integrity.read_lock(Path(lock))
    elif integrity.LOCK_FILE in source.files and not ignore_lock:
        locked = integrity.parse_lock(read(integrity.LOCK_FILE), f"{where}/{integrity.LOCK_FILE}")
    if locked:  # without the weights that parts replace, which have their own `sha256`
        own = {
            name: sha256
            for name, sha256 in locked.digests.items()
            if not (selection.is_weights(name) or selection.is_shard_index(name))
            or name.partition("/")[0] not in without
        }
        locked = replace(locked, digests=own)
        sizes, digests = {file: source.files[file].size for file in files}, listed
        if any(part.key in own for part in parts):  # else it is a lock of the base only
            sizes |= {part.key: part.size for part in parts}
            digests = listed | {part.key: part.part.sha256 for part in parts if part.part.sha256}
            parts = tuple(part.locked(own.get(part.key)) for part in parts)
        integrity.check_lock(locked, where=where, revision=source.revision, sizes=sizes, digests=digests)
    return Weights(
        source=source,
        class_name=index.class_name,
        components=components,
        files=tuple(files),
        expected=locked.digests if locked else listed,
        lock=locked,
        parts=parts,
    )


def fetched_files(
    source: Source, files: Collection[str], expected: Mapping[str, str], *, named_by: str | None = None
) -> tuple[Path, dict[str, str]]:
    """Return a folder on this machine with these files, and the SHA-256 of their real bytes.

    expected: SHA-256 of some files. named_by: where these come from, if not from the source. Asks the hub
    only for files that are not in the cache. Raises ModelError if a file is not the expected one.
    """
    folder = source.fetch(files)
    # Expected files exist on another machine, or existed here.
    fix = "put the same model on every machine of the cluster" if expected else "check its name"
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder", fix)
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise ModelError(f"{folder / missing[0]} is missing", fix)
    integrity.check_links(folder, files)
    _check_files(folder, files)
    digests = integrity.file_digests(folder, files)
    own_name = "the hub" if source.revision else "its own name"
    integrity.check_digests(folder, digests, expected, named_by=named_by or own_name)
    # A file in a cache is named by its SHA-256 too.
    blobs = {file: listed.sha256 for file, listed in list_folder(folder, files).items() if listed.sha256}
    integrity.check_digests(folder, digests, blobs, named_by="its own name")
    integrity.check_git_names(folder, files)
    return folder, digests


def _check_files(folder: Path, files: Collection[str]) -> None:
    """Raise ModelError for files that are broken or packed, or that lead a library elsewhere."""
    names: dict[str, list[str]] = {}
    packed = packed_components(folder, files)
    for file in files:
        if file.endswith(selection.SAFETENSORS):
            tensors = check_file_size(folder / file)
            names[file] = [tensor.name for tensor in tensors]
            if file.partition("/")[0] in packed:
                continue
            check_whole_numbers(f"{folder / file}", tensors)
            if any(tensor.dtype.startswith("F8") for tensor in tensors):
                check_scales(f"{folder / file}", names[file])
    for file in files:
        # Libraries do not report an index that does not match its shards.
        index, place = folder / file, file.rpartition("/")[0]
        if not file.endswith(selection.SHARDS):
            continue
        shards = selection.weight_map_of(index.read_bytes(), str(index))
        for shard in {*shards.values()}:
            expected = {name for name, own in shards.items() if own == shard}
            own_names = {*names.get(f"{place}/{shard}", expected)}
            unused, lacking = own_names - expected, expected - own_names
            fix = f"it does not match {index}: fetch both again"
            check_leftovers(f"{folder / place / shard}", unused=unused, lacking=lacking, fix=fix)
    check_configs(folder, files)
