"""From a folder of Open-Sora v2, as its authors ship it, to how it becomes a pipeline folder.

Such a folder holds one file for the transformer, one for the autoencoder, and the folders of T5 and CLIP with
their tokenizers; files of Flux, with which its authors make first frames, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.models.conversion.checkpoint import Checkpoint
from framefleet.pipeline.models.conversion.configs import Config, built, inferred, settled
from framefleet.pipeline.models.conversion.plan import Conversion, Network, Origin, same_names
from framefleet.pipeline.models.opensora import autoencoder_keys, transformer_keys
from framefleet.pipeline.models.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.pipeline.models.opensora.pipeline_opensora import OpenSoraPipeline
from framefleet.pipeline.models.opensora.text_parts import text_parts

_Shapes = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A network of one file. recognises, config: from the file's names and shapes. make: from a config.

    origins: from our names, the file's names and shapes, and the prefix of these.
    """

    recognises: Callable[[_Shapes], bool]
    config: Callable[[_Shapes], Config]
    origins: Callable[[list[str], _Shapes, str], dict[str, Origin]]
    make: Callable[..., nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A file that holds a network of a kind, and the config that its shapes tell."""

    kind: _Kind
    file: str
    shapes: _Shapes
    config: Config

    def network(self, component: str, config: Config, place: str) -> Network:
        module = built(component, self.kind.make, config, place=place)
        origins = self.kind.origins(list(module.state_dict()), self.shapes, _prefix(self.file))
        return Network(module=module, origins=origins)


_TRANSFORMER = _Kind(
    recognises=transformer_keys.is_transformer,
    config=transformer_keys.transformer_config,
    origins=transformer_keys.transformer_origins,
    make=FluxTransformer2DModel,
)
# By the variant whose latents they make.
_AUTOENCODERS = {
    "open-sora-v2": _Kind(
        recognises=autoencoder_keys.is_hunyuan_autoencoder,
        config=autoencoder_keys.hunyuan_config,
        origins=same_names,
        make=AutoencoderKLHunyuanVideo,
    ),
    "open-sora-v2-dc-ae": _Kind(
        recognises=autoencoder_keys.is_dc_autoencoder,
        config=autoencoder_keys.dc_config,
        origins=autoencoder_keys.dc_origins,
        make=AutoencoderDCVideo,
    ),
}


def convert_opensora(
    checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
) -> Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    place, files = str(checkpoint.path), _files(checkpoint)
    all_transformers = {file: shapes for file, shapes in files.items() if _TRANSFORMER.recognises(shapes)}
    conditioned = {
        f: shapes for f, shapes in all_transformers.items() if transformer_keys.is_conditioned(shapes)
    }
    transformers = _found("transformer", _TRANSFORMER, conditioned or all_transformers, place)
    pairs = [
        (name, transformer, autoencoder)
        for transformer in transformers
        for name, kind in _AUTOENCODERS.items()
        for autoencoder in _found("vae", kind, files, place)
        if transformer.config["out_channels"] == autoencoder.config["latent_channels"]
    ]
    if not pairs and not conditioned:
        return None
    name, transformer, autoencoder = _chosen(pairs, variant, place)
    configs = {"transformer": transformer.config, "vae": autoencoder.config}
    configs = settled(configs, given, place=place)
    texts = text_parts(checkpoint.path, files)
    unneeded = {file for file in files if file in all_transformers or _is_autoencoder(files[file])}
    unneeded -= {transformer.file, autoencoder.file}
    ignored = {f"{_prefix(file)}{key}" for file in unneeded for key in files[file]}
    return Conversion(
        variant=name,
        pipeline=OpenSoraPipeline,
        networks={
            "transformer": transformer.network("transformer", configs["transformer"], place),
            "vae": autoencoder.network("vae", configs["vae"], place),
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


def _found(component: str, kind: _Kind, files: Mapping[str, _Shapes], place: str) -> list[_Found]:
    """Return the files that hold a network of a kind. Raises ModelError for one that is not complete."""
    return [
        _Found(
            kind=kind,
            file=file,
            shapes=shapes,
            config=inferred(component, kind.config, shapes, prefix=_prefix(file), place=place),
        )
        for file, shapes in files.items()
        if kind.recognises(shapes)
    ]


def _prefix(file: str) -> str:
    return f"{file}:" if file else ""


def _chosen(
    pairs: list[tuple[str, _Found, _Found]], asked: str | None, place: str
) -> tuple[str, _Found, _Found]:
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
    listed = "; ".join(f"{name}: {transformer.file}, {vae.file}" for name, transformer, vae in found)
    raise ModelError(f"{place} holds several models: {listed}", "say which with --variant, or take files out")


def _is_autoencoder(shapes: _Shapes) -> bool:
    """Whether it is one of those that Open-Sora ships: of its other variant, or of Flux."""
    of_flux = {"encoder.conv_in.weight", "decoder.mid.attn_1.q.weight"} <= set(shapes)
    return of_flux or any(kind.recognises(shapes) for kind in _AUTOENCODERS.values())
