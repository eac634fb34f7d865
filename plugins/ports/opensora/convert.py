"""From a folder of Open-Sora v2, as its authors ship it, to how it becomes a pipeline folder.

Such a folder holds one file for the transformer, one for the autoencoder, and the folders of T5 and CLIP with
their tokenizers; files of Flux, with which its authors make first frames, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor

from framefleet.pipeline.errors import ModelError
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.conversion.configs import Config, NetworkPart, settled
from framefleet.plugins.ports.conversion.plan import Conversion, same_names
from framefleet.plugins.ports.opensora import autoencoder_keys, transformer_keys
from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from framefleet.plugins.ports.opensora.text_parts import text_parts

_Shapes = Mapping[str, Tensor]


_TRANSFORMER = NetworkPart(
    "", transformer_keys.transformer_config, transformer_keys.transformer_origins, FluxTransformer2DModel
)
# By the variant whose latents they make: what a file's names and shapes tell one by, and what it becomes.
_AUTOENCODERS: Mapping[str, tuple[Callable[[_Shapes], bool], NetworkPart]] = {
    "open-sora-v2": (
        autoencoder_keys.is_hunyuan_autoencoder,
        NetworkPart("", autoencoder_keys.hunyuan_config, same_names, AutoencoderKLHunyuanVideo),
    ),
    "open-sora-v2-dc-ae": (
        autoencoder_keys.is_dc_autoencoder,
        NetworkPart("", autoencoder_keys.dc_config, autoencoder_keys.dc_origins, AutoencoderDCVideo),
    ),
}
_Pair = tuple[str, dict[str, NetworkPart], dict[str, Config]]  # variant, and by component what is found


def convert_opensora(
    checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
) -> Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    place, files = str(checkpoint.path), _files(checkpoint)
    all_transformers = [file for file, shapes in files.items() if transformer_keys.is_transformer(shapes)]
    conditioned = [file for file in all_transformers if transformer_keys.is_conditioned(files[file])]
    pairs = list(_pairs(conditioned or all_transformers, files, checkpoint))
    if not pairs and not conditioned:
        return None
    name, parts, configs = _chosen(pairs, variant, place)
    configs = settled(configs, given, place=place)
    texts = text_parts(checkpoint.path, files)
    used = {part.prefix for part in parts.values()}
    unneeded = [file for file in files if file in all_transformers or _is_autoencoder(files[file])]
    ignored = {
        f"{_prefix(file)}{key}" for file in unneeded if _prefix(file) not in used for key in files[file]
    }
    return Conversion(
        variant=name,
        pipeline=OpenSoraPipeline,
        networks={
            **{name: part.network(name, configs[name], checkpoint) for name, part in parts.items()},
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
    shapes_by_file: dict[str, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.shapes.items():
        file, _, key = name.rpartition(":")
        shapes_by_file.setdefault(file, {})[key] = tensor
    return shapes_by_file


def _pairs(
    transformers: Iterable[str], files: Mapping[str, _Shapes], checkpoint: Checkpoint
) -> Iterator[_Pair]:
    """Yield what goes together. Raises ModelError for a network that is not complete."""
    for file in transformers:
        transformer = replace(_TRANSFORMER, prefix=_prefix(file))
        config = transformer.inferred("transformer", checkpoint)
        for variant, (recognises, kind) in _AUTOENCODERS.items():
            for other in (other for other, shapes in files.items() if recognises(shapes)):
                vae = replace(kind, prefix=_prefix(other))
                vae_config = vae.inferred("vae", checkpoint)
                if config["out_channels"] == vae_config["latent_channels"]:
                    parts = {"transformer": transformer, "vae": vae}
                    yield variant, parts, {"transformer": config, "vae": vae_config}


def _prefix(file: str) -> str:
    return f"{file}:" if file else ""


def _chosen(pairs: list[_Pair], asked: str | None, place: str) -> _Pair:
    fitting = [pair for pair in pairs if asked in (None, pair[0])]
    if len(fitting) == 1:
        return fitting[0]
    if asked is not None and asked not in _AUTOENCODERS:
        raise ModelError(f"{place} is not {asked}", f"Open-Sora's variants are {', '.join(_AUTOENCODERS)}")
    if not fitting:
        raise ModelError(
            f"{place} holds no transformer of Open-Sora v2 together with the autoencoder that it needs",
            "give the folder that holds both, and T5 and CLIP, as hpcai-tech/Open-Sora-v2 has them",
        )
    listed = "; ".join(
        f"{name}: {', '.join(part.prefix.removesuffix(':') for part in parts.values())}"
        for name, parts, _ in fitting
    )
    raise ModelError(f"{place} holds several models: {listed}", "say which with --variant, or take files out")


def _is_autoencoder(shapes: _Shapes) -> bool:
    """Whether it is one of those that Open-Sora ships: of its other variant, or of Flux."""
    of_flux = {"encoder.conv_in.weight", "decoder.mid.attn_1.q.weight"} <= set(shapes)
    return of_flux or any(recognises(shapes) for recognises, _ in _AUTOENCODERS.values())
