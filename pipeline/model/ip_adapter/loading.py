"""An IP-adapter into a pipeline; or why the model cannot take it.

It changes the denoiser's attention for all rows, so that a model with one renders no rows without an image,
and has one scale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.ip_adapter.files import IP_ADAPTER_IMAGE, IpAdapterFiles
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.specs.spec import PipelineSpec

# It brings attention of its own, with weights that these do not reach, or were not tried with.
_NOT_BESIDE = ("attention", "quantization", "layerwise_casting", "offload")


def with_ip_adapter(spec: PipelineSpec, options: Options) -> PipelineSpec:
    """Return what the pipeline accepts with an IP-adapter. Raises ModelError where it cannot take one."""
    from diffusers.loaders import IPAdapterMixin

    takes_one = issubclass(spec.pipeline_class, IPAdapterMixin) and IP_ADAPTER_IMAGE in spec.parameters
    if not takes_one or "image_encoder" in spec.components:  # diffusers would take that one, and not ours
        raise ModelError(
            f"{spec.class_name} takes no IP-adapter here",
            "leave `model.ip_adapter` out: it is for U-Nets without an image encoder of their own",
        )
    if name := next((name for name in _NOT_BESIDE if getattr(options, name)), None):
        raise ModelError(f"model.ip_adapter is set, and model.{name} too", "leave one of them out")
    image = replace(spec.parameters[IP_ADAPTER_IMAGE], kind="image", required=True)
    return replace(spec, parameters={**spec.parameters, IP_ADAPTER_IMAGE: image})


def load_ip_adapter(pipe: Any, files: IpAdapterFiles) -> None:
    """Load it as a plain call would, from a folder of the hashed files alone."""
    from framefleet.pipeline.model.sources.components import Component
    from framefleet.pipeline.model.sources.network_sizes import check_sizes
    from framefleet.pipeline.model.sources.verified_folder import sealed  # imports torch

    adapter = files.adapter
    names = {"weight_name": adapter.weights, "image_encoder_folder": adapter.image_encoder}
    encoder = Component(
        name=adapter.image_encoder,
        library="transformers",
        class_name="CLIPVisionModelWithProjection",
        loader="transformers",
    )
    sizes = {file: (files.folder / file).stat().st_size for file in adapter.files}
    check_sizes(files.folder, [encoder], sizes, where=str(files.folder), is_built=True)
    with sealed(files.folder, adapter.files) as place:
        pipe.load_ip_adapter(str(place), subfolder="", local_files_only=True, **names)
    pipe.set_ip_adapter_scale(adapter.scale)
