"""Single files in place of a pipeline's own weights: where each is, its tensors, and its components.

    model: {path: BASE, parts: {transformer: x.gguf, vae: y.safetensors}}
    model: {path: x.safetensors, base: BASE}      the same as {path: BASE, parts: {checkpoint: x.safetensors}}

The base has the configs, tokenizers and the weights of all other components.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import did_you_mean, settings_of
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.guards.strict_model import MustBe, NonEmpty, Strict
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources import headers
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.folder_source import FolderSource, Source
from framefleet.pipeline.model.sources.integrity import check_sha256, checked_digest, sha256_of
from framefleet.pipeline.model.sources.leftovers import check_no_adapter, check_whole_numbers
from framefleet.pipeline.model.sources.packing import check_package, method_of
from framefleet.pipeline.model.sources.selection import PICKLES, SAFETENSORS
from framefleet.pipeline.model.sources.source import UrlSource, public_name
from framefleet.pipeline.model.specs.model_index import DENOISERS, is_denoiser

CHECKPOINT = "checkpoint"  # the part for all components whose weights it has
FILE_FORMATS = (SAFETENSORS, headers.GGUF)
# Prefixes in files of other tools. All other weights of a checkpoint are the denoiser's.
_AUTOENCODER = ("first_stage_model.", "vae.")
_TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.")
_HUB_FILE = re.compile(
    r"(?:hf://|https?://(?:huggingface\.co|hf\.co)/)?(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*?)"
    r"(?:@(?P<revision>[\w.-]+)|/(?:blob|resolve)/(?P<page>[\w.-]+))?/(?P<file>[^?#]+\.(?i:safetensors|gguf))"
)
_SMALL = (".gitattributes", "README.md")  # every hub repository has one: it is used to ask for the commit


class ModelPart(Strict):
    """One file with the weights of one or several components."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: NonEmpty
    """A .safetensors or .gguf file, a URL of one, or org/name/file of the hub."""
    revision: NonEmpty | None = None
    """Branch, tag or commit of a hub file. Default: main."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$"), MustBe("64 of 0-9 and a-f")] | None = None
    """SHA-256 that the file must have. Default: any."""


def base_and_parts(
    path: str, base: str | None, declared: Mapping[str, str | Path | Mapping[str, Any] | ModelPart]
) -> tuple[str, dict[str, ModelPart]]:
    """Return the place of the base, and the parts by component. Raises ModelError if they do not fit."""
    parts = {}
    for name, part in declared.items():
        fields = {"path": str(part)} if isinstance(part, str | Path) else part
        fix = "use the path of a file, or a mapping with path, and optionally revision and sha256"
        parts[name] = settings_of(ModelPart, fields, place=f"parts.{name}", fix=fix)
    here = Path(os.path.expanduser(path))
    is_file = path.lower().endswith((*FILE_FORMATS, *PICKLES)) and not here.is_dir()
    is_local = "://" not in path and (path.startswith(("/", ".", "~")) or path.count("/") < 2)
    if is_file and is_local and not here.exists():
        raise ModelError(f"model {path!r} does not exist", "correct its path")
    if base is None and is_file:
        if here.is_file() and path.lower().endswith(SAFETENSORS):
            check_no_adapter(path, (tensor.name for tensor in headers.check_file_size(here)))
        raise ModelError(
            f"model {public_url(path)!r} is one file, without configs and tokenizers",
            "name the pipeline that it was made for: `model: {path: FILE, base: ORG/NAME or FOLDER}`; or "
            "convert an original checkpoint of VideoCrafter, DynamiCrafter or Open-Sora with `framefleet "
            "model convert`",
        )
    if base is not None and not is_file:
        formats = " or ".join(FILE_FORMATS)
        problem = f"model.base is set, but {public_url(path)!r} is not a single file ({formats})"
        raise ModelError(problem, "set `model.path` to the file, or leave `model.base` out")
    return (base, {CHECKPOINT: ModelPart(path=path), **parts}) if base else (path, parts)


def names_of(parts: Mapping[str, ModelPart]) -> str:
    return "".join(f" + {name}={public_name(part.path, part.revision)}" for name, part in parts.items())


@dataclass(frozen=True, kw_only=True)  # without slots, because `tensors` is cached
class PartFile:
    """The file of a part. Only its header is read until it is hashed or loaded."""

    name: str  # the component, or "checkpoint"
    part: ModelPart
    source: Source
    file: str  # its name in the source

    @property
    def where(self) -> str:
        return f"{self.source.name}/{self.file}"

    @property
    def key(self) -> str:
        """Its name among the model's files, in the model digest; independent of its path."""
        return f"{self.name}{Path(self.file).suffix.lower()}"

    @property
    def is_gguf(self) -> bool:
        return self.file.lower().endswith(headers.GGUF)

    @property
    def size(self) -> int:
        return self.source.files[self.file].size

    @cached_property
    def tensors(self) -> tuple[headers.Tensor, ...]:
        """The file's tensors. Raises ModelError if its header is invalid, or the file is cut off."""

        def read(count: int) -> bytes:
            return self.source.read(self.file, count)

        if self.is_gguf:
            check_package("gguf", self.where)
            tensors, _ = headers.read_gguf_header(read, self.where, self.size)
        else:
            tensors, _ = headers.read_header(read, self.where, self.size)
            check_whole_numbers(self.where, tensors)
        return tuple(tensors)

    def locked(self, sha256: str | None) -> PartFile:
        return replace(self, part=self.part.model_copy(update={"sha256": sha256}))

    def fetched(self) -> Path:
        return self.source.fetch([self.file]) / self.file

    def digest(self) -> str:
        """Return its SHA-256. Raises ModelError if it is not the one that the job or its source names.

        For a file on the hub that is not on this machine, it comes from the hub, and is checked at loading.
        """
        _ = self.tensors  # raises ModelError for a file that is cut off
        listed = self.source.files[self.file].sha256
        sha256 = listed if listed and not self.source.is_local else sha256_of(self.fetched())
        check_sha256(self.where, sha256, self.part.sha256)
        return sha256

    def checked(self, expected: str | None = None) -> str:
        """Return the SHA-256 of the file on this machine. Raises ModelError if it is not the expected one."""
        expected = expected or self.part.sha256 or self.source.files[self.file].sha256
        return checked_digest(self.fetched(), expected, where=self.where)

    def components(self, components: Iterable[Component], part_names: Collection[str]) -> tuple[str, ...]:
        """Return the components whose weights it has. part_names: of all files, this one included.

        Raises ModelError if it has weights of none, or may be for either of two.
        """
        by_name = {component.name: component for component in components if component.has_weights}
        if self.name == CHECKPOINT:
            names = self._names_in({name: by_name[name] for name in by_name if name not in part_names})
        elif self.name in by_name:
            names = (self.name,)
        else:
            problem = f"model.parts names {self.name!r}, which has no weights in this model"
            raise ModelError(problem, did_you_mean(self.name, [*by_name, CHECKPOINT]))
        check_no_adapter(self.where, (tensor.name for tensor in self.tensors))
        for name in names if self.is_gguf else ():
            if by_name[name].loader == "transformers":
                problem = (
                    f"{self.where} is a GGUF file for {name}, but GGUF only works for networks of diffusers"
                )
                raise ModelError(problem, f"use a {SAFETENSORS} file of the same {name}")
        return names

    def _names_in(self, by_name: Mapping[str, Component]) -> tuple[str, ...]:
        shapes = {tensor.name: tensor for tensor in self.tensors}
        is_vae = any(name.startswith(_AUTOENCODER) for name in shapes)
        has_texts = any(name.startswith(_TEXT_ENCODERS) for name in shapes)
        has_denoiser = any(not name.startswith((*_AUTOENCODER, *_TEXT_ENCODERS)) for name in shapes)
        denoisers = sorted(filter(is_denoiser, by_name), key=lambda name: name not in DENOISERS)
        # Wan 2.2 has two, with equal names and shapes.
        alike = [name for name in denoisers if by_name[name].class_name == by_name[denoisers[0]].class_name]
        if has_denoiser and len(alike) > 1:
            raise ModelError(
                f"{self.where} may be for {' or '.join(alike)} of its base",
                f"name the right one: `{{path: BASE, parts: {{{alike[0]}: FILE}}}}`; in Wan 2.2, "
                "transformer is for high noise and transformer_2 for low noise",
            )

        def has_weights_of(name: str) -> bool:
            if has_texts and name.startswith("text_encoder"):
                return is_converted(by_name[name], shapes)
            return is_vae if name == "vae" else has_denoiser and name in denoisers[:1]

        parts = tuple(filter(has_weights_of, by_name))
        if not parts:
            problem = f"{self.where} has no weights for the components of its base: {', '.join(by_name)}"
            fix = "use the base that the file was made for, or name its component in `model.parts`"
            raise ModelError(problem, fix)
        return parts


def is_converted(component: Component, names: Mapping[str, Any]) -> bool:
    """Return whether diffusers knows the names of a text encoder's weights in a file."""
    # diffusers has no public functions for this (0.42). Imports torch.
    from diffusers.loaders import single_file_utils as utils

    if not component.class_name.startswith("CLIP"):
        return bool(utils.is_t5_in_single_file(names))
    made = class_of(component.library, component.class_name)
    return bool(utils.is_clip_model_in_single_file(made, names))


def open_parts(parts: Mapping[str, ModelPart], storage_options: Mapping[str, Any]) -> tuple[PartFile, ...]:
    """Return the files of parts. Raises ModelError for missing ones.

    Pickles are refused even with `model.allow_pickle`, because nobody needs them here.
    """
    return tuple(_opened(name, part, storage_options) for name, part in parts.items())


def by_component(files: Collection[PartFile], components: Iterable[Component]) -> dict[str, PartFile]:
    """Return the file of each component: its own, or else the checkpoint."""
    components = list(components)
    part_names = {file.name for file in files}
    return {name: file for file in files for name in file.components(components, part_names)}


def packed_by(folder: Path, components: Iterable[Component], files: Collection[PartFile]) -> dict[str, str]:
    """Return the method of each component with packed weights. folder: has the configs."""
    components = list(components)
    folders = [name for component in components if component.has_weights for name in component.folders]
    methods = {name: method_of(folder, name) for name in folders}
    methods |= {name: "gguf" for name, file in by_component(files, components).items() if file.is_gguf}
    return {name: method for name, method in methods.items() if method}


def part_sizes(files: Collection[PartFile], components: Iterable[Component]) -> dict[str, int]:
    """Return how many bytes of weights each component has, by a file name in its folder; see `check_sizes`.

    At least a byte for each weight, however the file packs them: networks are built with four.
    """
    return {
        f"{name}/{Path(file.file).name}{SAFETENSORS}": max(
            file.size, sum(tensor.num_parameters for tensor in file.tensors)
        )
        for name, file in by_component(files, components).items()
    }


def without_parts(digests: Mapping[str, str], files: Collection[PartFile]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name not in {file.key for file in files}}


def _opened(name: str, part: ModelPart, storage_options: Mapping[str, Any]) -> PartFile:
    where, path = f"model.parts.{name}", part.path.removeprefix("file://")
    if path.lower().endswith(PICKLES):
        problem = f"{where}: {public_url(path)} is a pickle, which can run code when it is opened"
        raise ModelError(problem, "use a .safetensors or .gguf file of the same model")
    if not path.lower().endswith(FILE_FORMATS):
        problem = f"{where}: {public_url(path)} is not a {' or '.join(FILE_FORMATS)} file"
        raise ModelError(problem, "name the file")
    here = Path(os.path.abspath(os.path.expanduser(path)))
    hub = None if here.is_file() else _HUB_FILE.fullmatch(path)
    source: Source
    if hub:
        from framefleet.pipeline.model.sources.hub import open_hub

        revision = part.revision or hub["revision"] or hub["page"]
        source = open_hub(hub["repo"], revision, _SMALL, only=hub["file"])
        file = hub["file"]
        if file not in source.files:
            fix = did_you_mean(file, [name for name in source.files if name.lower().endswith(FILE_FORMATS)])
            raise ModelError(f"{where}: {source.name} has no file {file}", fix)
    elif "://" in path:
        folder, _, file = path.rpartition("/")
        source = UrlSource(folder, storage_options, only=file)
        try:
            _ = source.files
        except FileNotFoundError as error:
            raise ModelError(f"{where}: {error}", "check the URL") from None
    else:
        if not here.is_file():
            fix = "use a file, a URL of one, or org/name/file on the hub"
            raise ModelError(f"{where}: {here} does not exist", fix)
        source, file = FolderSource(str(here.parent), only=here.name), here.name
    part = part.model_copy(update={"path": f"{source.path}/{file}", "revision": source.revision})
    return PartFile(name=name, part=part, source=source, file=file)
