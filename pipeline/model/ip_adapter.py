"""A declared IP-adapter: fetch and hash its files, and load them into a pipeline.

It changes the denoiser's attention for all rows, so each needs an image. Imports torch only to load one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field
from safetensors import safe_open

from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.guards.mistakes import either, settings_of
from framefleet.pipeline.guards.strict_model import NonEmpty, Strict
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.config_checks import check_sizes
from framefleet.pipeline.model.sources.leftovers import check_leftovers
from framefleet.pipeline.model.sources.selection import SAFETENSORS
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import fetched_files
from framefleet.pipeline.model.specs.spec import PipelineSpec

IP_ADAPTER_IMAGE = "ip_adapter_image"
MODEL_PREFIX = "ip-adapter/"  # before its files, among those of the model: no component can have this name
# What diffusers reads from the file. Adapters for faces also contain LoRAs, or need another network.
_KEYS = re.compile(r"image_proj\.(?!perceiver_res).+|ip_adapter\.\d+\.to_[kv]_ip\.weight")
_IMAGE = "image_proj."
_NORM = "image_proj.norm.weight"
_MAX_SHOWN = 500  # characters of torch's own message
_FIX = "check path, weights and image_encoder; the same files must be on every machine of the cluster"
# It has its own attention, whose weights these options do not reach, or were not tested with.
_NOT_BESIDE = ("attention", "fuse_qkv", "quantization", "layerwise_casting", "offload")


class IpAdapter(Strict):
    """An IP-adapter, for which every row needs an image."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: NonEmpty
    """Folder, org/name on the hub, or URL of a folder."""
    weights: NonEmpty
    """The adapter's .safetensors file in the folder."""
    image_encoder: NonEmpty
    """Folder of its CLIP model in the folder."""
    revision: NonEmpty | None = None
    """Branch, tag or commit on the hub. Default: main."""
    scale: float = Field(default=1.0, ge=0, le=10)
    """Weight of the image; 0: no effect."""

    @property
    def files(self) -> tuple[str, ...]:
        return (self.weights, f"{self.image_encoder}/config.json", f"{self.image_encoder}/model{SAFETENSORS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpAdapterFiles:
    adapter: IpAdapter  # so that other machines find it
    folder: Path
    digests: Mapping[str, str]  # by name among the model's files


def ip_adapter_of(declared: Mapping[str, Any] | IpAdapter | None) -> IpAdapter | None:
    """Return a declared IP-adapter.

    Raises JobError for a pickle, or a path that leads out of its folder; ModelError for other values.
    """
    if declared is None:
        return None
    fix = "set path, weights and image_encoder, and optionally revision and scale"
    adapter = settings_of(IpAdapter, declared, place="ip_adapter", fix=fix)
    weights, encoder = adapter.weights, adapter.image_encoder
    if not weights.endswith(SAFETENSORS) or not {"", ".", ".."}.isdisjoint(f"{weights}/{encoder}".split("/")):
        problem = f"model.ip_adapter has weights {weights!r} and image_encoder {encoder!r}"
        raise JobError(problem, f"name a {SAFETENSORS} file and a folder, both relative to its path")
    return adapter


def fetch_ip_adapter(
    adapter: IpAdapter | None, storage_options: Mapping[str, Any], expected: Mapping[str, str] | None = None
) -> IpAdapterFiles | None:
    """Return its files, fetched once per machine. expected: the model's files, as the driver found them."""
    if adapter is None:
        return None
    files, revision = adapter.files, adapter.revision
    try:
        source = open_source(adapter.path, revision=revision, storage_options=storage_options, needs=files)
        if expected:
            own = {file: expected[MODEL_PREFIX + file] for file in files}
        else:
            own = {name: file.sha256 for name, file in source.files.items() if name in files and file.sha256}
        named_by = "the driver's" if expected else None
        folder, digests = fetched_files(source, files, own, named_by=named_by)
        with safe_open(folder / adapter.weights, framework="np") as file:
            keys = list(file.keys())
        # Another kind of file: diffusers would ignore what it cannot use.
        other = next((key for key in keys if not _KEYS.fullmatch(key)), None)
        if _NORM in keys and "image_proj.proj.weight" not in keys:
            other = _NORM  # diffusers recognizes adapters for faces by this
        if other or not keys:
            problem = f"{folder / adapter.weights} is not an IP-adapter for images: it contains "
            raise ModelError(problem + (other or "no weights"), "use another file")
    except ModelError as error:
        raise ModelError(f"model.ip_adapter: {error.problem}", either(error.fix, _FIX)) from error
    except FileNotFoundError as error:
        raise ModelError(f"model.ip_adapter: {error}", _FIX) from error
    return IpAdapterFiles(
        adapter=adapter.model_copy(update={"path": source.path, "revision": source.revision}),
        folder=folder,
        digests={MODEL_PREFIX + file: digest for file, digest in digests.items()},
    )


def with_ip_adapter(spec: PipelineSpec, options: Options) -> PipelineSpec:
    """Return the spec of the pipeline with an IP-adapter. Raises ModelError if it cannot take one."""
    from diffusers.loaders import IPAdapterMixin

    takes_one = issubclass(spec.pipeline_class, IPAdapterMixin) and IP_ADAPTER_IMAGE in spec.parameters
    if not takes_one or "image_encoder" in spec.components:  # diffusers would use that one, and not ours
        fix = "leave `model.ip_adapter` out: it is for U-Nets without their own image encoder"
        raise ModelError(f"{spec.class_name} takes no IP-adapter here", fix)
    if name := next((name for name in _NOT_BESIDE if getattr(options, name)), None):
        raise ModelError(f"model.ip_adapter and model.{name} are both set", "leave one of them out")
    image = replace(spec.parameters[IP_ADAPTER_IMAGE], kind="image", required=True)
    return replace(spec, parameters={**spec.parameters, IP_ADAPTER_IMAGE: image})


def image_encoder_of(adapter: IpAdapter) -> Component:
    """Return the network that reads the picture."""
    return Component(
        name=adapter.image_encoder,
        library="transformers",
        class_name="CLIPVisionModelWithProjection",
        loader="transformers",
    )


def load_ip_adapter(pipe: Any, files: IpAdapterFiles, *, allow_unmatched: bool) -> None:
    """Load the adapter as a plain call does. Raises ModelError for weights left over on either side."""
    from framefleet.pipeline.model.sources.network_loading import check_loaded, load_networks
    from framefleet.pipeline.model.sources.verified_folder import sealed  # imports torch

    adapter = files.adapter
    encoder = image_encoder_of(adapter)
    sizes = {file: (files.folder / file).stat().st_size for file in adapter.files}
    check_sizes(files.folder, [encoder], sizes, where=str(files.folder), is_built=True)
    check_places(pipe, files.folder / adapter.weights, allowed=allow_unmatched)
    with sealed(files.folder, adapter.files) as place:
        networks, loaded = load_networks(
            place, [encoder], dtype=pipe.dtype, use_safetensors=True, where=files.folder
        )
        check_loaded(loaded, allow_unmatched=allow_unmatched)
        pipe.register_modules(image_encoder=networks[encoder.name])  # else it would load one itself
        pipe.load_ip_adapter(str(place), subfolder="", weight_name=adapter.weights, local_files_only=True)
    pipe.set_ip_adapter_scale(adapter.scale)


def check_places(pipe: Any, path: Path, *, allowed: bool) -> None:
    """Raise ModelError unless the file has exactly the weights that diffusers reads for this U-Net.

    diffusers numbers layers of attention to text 1, 3, 5, ..., and ignores all other weights.
    """
    import torch

    where = f"model.ip_adapter: {path}"
    with safe_open(path, framework="pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in [*file.keys()]}
        of_image = [key for key in shapes if key.startswith(_IMAGE)]
        image = {key.removeprefix(_IMAGE): file.get_tensor(key).to("meta") for key in of_image}
    to_text = [
        name
        for name in pipe.unet.attn_processors
        if not name.endswith("attn1.processor") and "motion_modules" not in name
    ]
    places = {}
    for at, name in enumerate(to_text):
        for kind in "kv":
            layer = pipe.unet.get_submodule(name.replace(".processor", f".to_{kind}"))
            places[f"ip_adapter.{2 * at + 1}.to_{kind}_ip.weight"] = [*layer.weight.shape]
    own = shapes.keys() - of_image
    unused, lacking = own - places.keys(), places.keys() - own
    check_leftovers(where, unused=unused, lacking=lacking, fix=_FIX, allowed=allowed)
    for key, shape in places.items():
        if shapes[key] != shape:
            problem = f"{where}: the weight {key} has the shape {shapes[key]}, but the model takes {shape}"
            fix = "use an adapter that was made for this model, e.g. for SDXL or for Stable Diffusion 1.5"
            raise ModelError(problem, fix)
    try:
        with torch.device("meta"):
            pipe.unet._convert_ip_adapter_image_proj_to_diffusers(image, low_cpu_mem_usage=False)
    except LookupError as error:  # from diffusers, for a missing name
        raise ModelError(f"{where} has no weight {_IMAGE}{error.args[0]}", _FIX) from error
    except RuntimeError as error:  # from torch, for names and shapes
        reason = " ".join(str(error).split())[:_MAX_SHOWN]
        problem = f"{where} does not fit the image projection that it seems to be for: {reason}"
        raise ModelError(problem, _FIX) from error
