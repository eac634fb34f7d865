"""Which parameters of a call take several values for one clip: images to edit or to refer to, or a value for
each of several ControlNets.

Annotations do not say it: `list[PIL.Image.Image]` is a batch of rows to most pipelines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from framefleet.pipeline.model.specs.signature import ArgumentKind, EitherKind, Parameter

_Configs = Mapping[str, Mapping[str, Any]]
CONTROLNETS, NETS = "MultiControlNetModel", "num_nets"
# By class: of the images that it is given, it makes one.
_IMAGES: Mapping[str, str] = {
    "BriaFibo2Pipeline": "image",
    "Flux2KleinKVPipeline": "image",
    "Flux2KleinPipeline": "image",
    "Flux2Pipeline": "image",
    "OmniGenPipeline": "input_images",
    "QwenImage21Pipeline": "image",
    "QwenImageEditPlusPipeline": "image",
    "StableDiffusionXLControlNetUnionImg2ImgPipeline": "control_image",
    "StableDiffusionXLControlNetUnionInpaintPipeline": "control_image",
    "StableDiffusionXLControlNetUnionPipeline": "control_image",
    "ZImageOmniPipeline": "image",
}
# Whose annotations say something else: a single image fails; each image is a frame.
_OWN_KINDS: Mapping[str, tuple[str, ArgumentKind]] = {
    "GlmImagePipeline": ("image", "list[image]"),
    "WanVACEPipeline": ("mask", "video"),
}
# Of several ControlNets each has its own; a union of them takes its modes besides the images.
OF_EACH = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end", "control_mode")
_EITHER: Mapping[ArgumentKind | None, EitherKind] = {"int": "ints", "float": "floats", "image": "images"}


def with_several(parameters: Iterable[Parameter], class_name: str, configs: _Configs) -> list[Parameter]:
    """Return the parameters of a class, with the kinds of those that take several values."""
    found = {parameter.name: parameter for parameter in parameters}
    several = set(_several(found, class_name, configs))
    changed = {
        name: replace(parameter, kind=_EITHER[parameter.kind])
        for name, parameter in found.items()
        if name in several and parameter.kind in _EITHER
    }
    if class_name in _OWN_KINDS:
        name, kind = _OWN_KINDS[class_name]
        changed[name] = replace(found[name], kind=kind)
    return [*(found | changed).values()]


def _several(names: Collection[str], class_name: str, configs: _Configs) -> Iterator[str]:
    if class_name in _IMAGES:
        yield _IMAGES[class_name]
        yield from ("control_mode",) if "Union" in class_name else ()
    if has_controlnets(configs):
        yield controlling(names)
        yield from OF_EACH


def has_controlnets(configs: _Configs) -> bool:
    """Whether a pipeline has several ControlNets."""
    entry = configs["index"].get("controlnet")
    return isinstance(entry, list) and entry[-1:] == [CONTROLNETS]


def controlling(names: Collection[str]) -> str:
    """Return what a pipeline calls the image for its ControlNet."""
    return "control_image" if "control_image" in names else "image"


def network_folders(name: str, folders: Collection[str]) -> list[str]:
    """Return the folders of several networks, as diffusers looks for them: name, name_1, name_2, ..."""
    found = [name] if name in folders else []
    while found and f"{name}_{len(found)}" in folders:
        found.append(f"{name}_{len(found)}")
    return found


def num_nets(folder: Path, name: str) -> int:
    """Return how many networks a component of several has."""
    return len(network_folders(name, [path.name for path in folder.iterdir() if path.is_dir()]))


def is_list(cell: Any) -> bool:
    """Whether a cell is a list, or the JSON text of one."""
    return isinstance(cell, list | tuple) or (isinstance(cell, str) and cell.lstrip().startswith("["))
