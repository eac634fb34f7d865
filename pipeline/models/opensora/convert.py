"""From a folder of Open-Sora v2, as its authors ship it, to how it becomes a pipeline folder.

Such a folder holds one file for the transformer, one for the autoencoder, and the folders of T5 and CLIP with
their tokenizers; files of Flux, with which its authors make first frames, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from framefleet.pipeline.conversion.checkpoint import Checkpoint
from framefleet.pipeline.conversion.plan import Conversion, Network, Origin
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.models.opensora import dc_keys, hunyuan_keys, transformer_keys
from framefleet.pipeline.models.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.pipeline.models.opensora.pipeline_opensora import OpenSoraPipeline
from framefleet.pipeline.models.opensora.text_parts import text_parts

Shapes = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A network of one file. recognises, config, origins: from the file's names and shapes."""

    recognises: Callable[[Shapes], bool]
    config: Callable[[Shapes], dict[str, Any]]
    origins: Callable[[Shapes, str], dict[str, Origin]]
    build: Callable[..., nn.Module]

    def network(self, shapes: Shapes, prefix: str) -> Network:
        with torch.device("meta"):
            module = self.build(**self.config(shapes))
        return Network(module=module, origins=self.origins(shapes, prefix))


_TRANSFORMER = _Kind(
    recognises=transformer_keys.is_transformer,
    config=transformer_keys.transformer_config,
    origins=transformer_keys.transformer_origins,
    build=FluxTransformer2DModel,
)
# By the variant whose latents they make.
_AUTOENCODERS = {
    "open-sora-v2": _Kind(
        recognises=hunyuan_keys.is_hunyuan_autoencoder,
        config=hunyuan_keys.hunyuan_config,
        origins=hunyuan_keys.hunyuan_origins,
        build=AutoencoderKLHunyuanVideo,
    ),
    "open-sora-v2-dc-ae": _Kind(
        recognises=dc_keys.is_dc_autoencoder,
        config=dc_keys.dc_config,
        origins=dc_keys.dc_origins,
        build=AutoencoderDCVideo,
    ),
}


def convert_opensora(checkpoint: Checkpoint, *, variant: str | None) -> Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    try:
        return _converted(checkpoint, variant)
    except KeyError as error:  # of what configs are read from
        raise ModelError(
            f"{checkpoint.path} is not complete: a network has no tensor {error}", "fetch it again"
        ) from error


def _converted(checkpoint: Checkpoint, variant: str | None) -> Conversion | None:
    files = _files(checkpoint)
    transformers = [file for file, shapes in files.items() if _TRANSFORMER.recognises(shapes)]
    conditioned = [file for file in transformers if "cond_in.weight" in files[file]]
    pairs = _pairs(files, conditioned or transformers)
    if not pairs and not conditioned:
        return None
    place = str(checkpoint.path)
    name, transformer, autoencoder = _chosen(pairs, variant, place)
    texts = text_parts(checkpoint.path, files)
    unneeded = {file for file in files if file in transformers or _is_autoencoder(files[file])}
    unneeded -= {transformer, autoencoder}
    ignored = {f"{file}:{key}" for file in unneeded for key in files[file]}
    return Conversion(
        variant=name,
        pipeline=OpenSoraPipeline,
        networks={
            "transformer": _TRANSFORMER.network(files[transformer], f"{transformer}:"),
            "vae": _AUTOENCODERS[name].network(files[autoencoder], f"{autoencoder}:"),
            **{component: part.network for component, part in texts.items()},
        },
        others={
            "tokenizer": texts["text_encoder"].tokenizer,
            "tokenizer_2": texts["text_encoder_2"].tokenizer,
            "scheduler": FlowMatchEulerDiscreteScheduler(),
        },
        ignored=frozenset(ignored).union(*(part.ignored for part in texts.values())),
    )


def _files(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each file of a folder; those of a single file under an empty name."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.shapes.items():
        file, _, key = name.rpartition(":")
        found.setdefault(file, {})[key] = tensor
    return found


def _pairs(files: Mapping[str, Shapes], transformers: list[str]) -> list[tuple[str, str, str]]:
    """Return (variant, transformer, autoencoder) for all that take each other's latents."""
    return [
        (variant, transformer, file)
        for transformer in transformers
        for variant, kind in _AUTOENCODERS.items()
        for file, shapes in files.items()
        if kind.recognises(shapes)
        and _TRANSFORMER.config(files[transformer])["out_channels"] == kind.config(shapes)["latent_channels"]
    ]


def _chosen(pairs: list[tuple[str, str, str]], asked: str | None, place: str) -> tuple[str, str, str]:
    found = [pair for pair in pairs if asked in (None, pair[0])]
    if len(found) == 1:
        return found[0]
    if asked is not None and asked not in _AUTOENCODERS:
        raise ModelError(f"{place} is not {asked}", f"Open-Sora's variants are {', '.join(_AUTOENCODERS)}")
    if not found:
        raise ModelError(
            f"{place} holds no transformer of Open-Sora v2 together with the autoencoder that it needs",
            "give the folder that holds both, and T5 and CLIP, as hpcai-tech/Open-Sora-v2 has them",
        )
    listed = "; ".join(f"{variant}: {transformer}, {file}" for variant, transformer, file in found)
    raise ModelError(f"{place} holds several models: {listed}", "say which with --variant, or take files out")


def _is_autoencoder(shapes: Shapes) -> bool:
    """Whether it is one of those that Open-Sora ships: of its other variant, or of Flux."""
    of_flux = {"encoder.conv_in.weight", "decoder.mid.attn_1.q.weight"} <= set(shapes)
    return of_flux or any(kind.recognises(shapes) for kind in _AUTOENCODERS.values())
