"""Plans how a folder of Open-Sora v2, as its authors ship it, becomes a pipeline folder.

Such a folder has one file for the transformer, one for the autoencoder, and folders of T5 and CLIP with their
tokenizers. Files of Flux, with which its authors make first frames, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

from framefleet.api.errors import ModelError
from framefleet.api.texts import parse_object
from framefleet.pipeline.model.sources.config_checks import check_configs
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.plugins.ports.conversion import plan
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.opensora import keys
from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline

Files = Mapping[str, Mapping[str, Tensor]]  # file: its tensors by name, without values
_FIX = (
    "put the folders of google/t5-v1_1-xxl and openai/clip-vit-large-patch14 into it, with their weights, "
    "config.json and tokenizers"
)
# T5's decoder and a second name of its embeddings, CLIP's eye, and what older libraries stored.
_UNNEEDED = re.compile(
    r"(decoder|lm_head|vision_model|visual_projection|text_projection|logit_scale)\b"
    r"|encoder\.embed_tokens\.weight$|.*\.position_ids$"
)
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")  # two names of T5's


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """One text encoder. ignored: names of tensors in its folder that it does not need."""

    network: plan.Network
    tokenizer: PreTrainedTokenizerBase
    ignored: frozenset[str]


def _model_type(config: Path) -> str | None:
    try:
        return parse_object(config.read_bytes()).get("model_type")
    except OSError:  # a folder of something else
        return None


def _part(
    path: Path, files: Files, kinds: Mapping[str, str | None], wanted: tuple[str, ...], model: Any
) -> TextPart:
    folder = next((folder for folder, kind in kinds.items() if kind in wanted), None)
    if folder is None:
        raise ModelError(f"{path} has no {wanted[0].upper()} text encoder", _FIX)
    own = {file: tensors for file, tensors in files.items() if str(Path(file).parent) == folder}
    # The checkpoint's name of each tensor; where weights are there twice, of the safetensors.
    ordered = sorted(own, key=lambda file: file.endswith(".safetensors"))
    tensors = {name: f"{file}:{name}" for file in ordered for name in own[file]}
    check_configs(path / folder, [file.name for file in (path / folder).glob("*.json")])
    with sealed(path / folder, ["config.json"]) as place, torch.device("meta"):
        module = model(model.config_class.from_pretrained(str(place), local_files_only=True))
    origins = {}
    for name in module.state_dict():
        stored = _stored(name, tensors)
        origins[name] = plan.Origin(name=tensors.get(stored, f"{folder}:{stored}"))
    tokenizer = _tokenizer(path / folder, module.config.vocab_size)
    network = plan.Network(module=module, origins=origins)
    # Tensors of no use here: of the model's other half, or there twice.
    chosen = set(tensors.values())
    names = {f"{file}:{name}": name for file in own for name in own[file]}
    return TextPart(
        network=network,
        tokenizer=tokenizer,
        ignored=frozenset(
            full for full, name in names.items() if full not in chosen or _UNNEEDED.match(name)
        ),
    )


def _tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:  # files of it are missing
        raise ModelError(f"{folder} has no tokenizer: {error}", _FIX) from error
    except Exception as error:  # a damaged tokenizer.json: KeyError, TypeError or tokenizers' bare Exception
        raise ModelError(f"{folder} has a damaged tokenizer: {error!r}", _FIX) from error
    # Where the vocabulary is missing transformers 5 makes a tokenizer of special tokens alone.
    if len(tokenizer) < vocab_size / 2:
        raise ModelError(f"{folder} has no tokenizer for {vocab_size} tokens", _FIX)
    return tokenizer


def _stored(name: str, tensors: Mapping[str, str]) -> str:
    """Return what a tensor of an encoder is called among those of a whole model."""
    if name in _EMBEDDINGS:
        return next((stored for stored in _EMBEDDINGS if stored in tensors), name)
    is_whole = any(stored.startswith("text_model.") for stored in tensors)
    return f"text_model.{name}" if is_whole else name


_TRANSFORMER = plan.NetworkPart("", keys.transformer_config, keys.transformer_origins, FluxTransformer2DModel)
# By the variant whose latents they make: what some names in its file are like, and what it becomes.
_AUTOENCODERS: Mapping[str, tuple[re.Pattern[str], plan.NetworkPart]] = {
    "open-sora-v2": (
        keys.HUNYUAN_NAME,
        plan.NetworkPart("", keys.hunyuan_config, plan.same_names, AutoencoderKLHunyuanVideo),
    ),
    "open-sora-v2-dc-ae": (
        keys.DC_NAME,
        plan.NetworkPart("", keys.dc_config, keys.dc_origins, AutoencoderDCVideo),
    ),
}
_Pair = tuple[
    str, dict[str, plan.NetworkPart], dict[str, plan.Config]
]  # variant, and by component what is found


def convert_opensora(
    checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
) -> plan.Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    place = str(checkpoint.path)
    files: dict[str, dict[str, Tensor]] = {}  # tensors of each file; of a single one, its name is empty
    for path, tensor in checkpoint.shapes.items():
        file, _, key = path.rpartition(":")
        files.setdefault(file, {})[key] = tensor
    all_transformers = [file for file, shapes in files.items() if keys.is_transformer(shapes)]
    conditioned = [file for file in all_transformers if keys.is_conditioned(files[file])]
    pairs = list(_pairs(conditioned or all_transformers, files, checkpoint))
    if not pairs and not conditioned:
        return None
    name, parts, configs = _chosen(pairs, variant, place)
    configs = plan.settled(configs, given, place=place)
    folder, below = checkpoint.path, {str(Path(file).parent) for file in files}
    kinds = {name: _model_type(folder / name / "config.json") for name in sorted(below)}
    texts = {
        "text_encoder": _part(folder, files, kinds, ("clip", "clip_text_model"), CLIPTextModel),
        "text_encoder_2": _part(folder, files, kinds, ("t5",), T5EncoderModel),
    }
    used = {part.prefix for part in parts.values()}
    # Autoencoders that Open-Sora ships: of its other variant, and of Flux.
    of_flux = {"encoder.conv_in.weight", "decoder.mid.attn_1.q.weight"}
    unneeded = [
        file
        for file, shapes in files.items()
        if file in all_transformers
        or of_flux <= set(shapes)
        or any(_has_name(shapes, pattern) for pattern, _ in _AUTOENCODERS.values())
    ]
    ignored = {
        f"{_prefix(file)}{key}" for file in unneeded if _prefix(file) not in used for key in files[file]
    }
    return plan.Conversion(
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


def _pairs(
    transformers: Iterable[str], files: Mapping[str, plan.TensorShapes], checkpoint: Checkpoint
) -> Iterator[_Pair]:
    """Yield what goes together. Raises ModelError for a network that is not complete."""
    for file in transformers:
        transformer = replace(_TRANSFORMER, prefix=_prefix(file))
        config = transformer.inferred("transformer", checkpoint)
        for variant, (pattern, kind) in _AUTOENCODERS.items():
            for other in (other for other, shapes in files.items() if _has_name(shapes, pattern)):
                vae = replace(kind, prefix=_prefix(other))
                vae_config = vae.inferred("vae", checkpoint)
                if config["out_channels"] == vae_config["latent_channels"]:
                    parts = {"transformer": transformer, "vae": vae}
                    yield variant, parts, {"transformer": config, "vae": vae_config}


def _has_name(shapes: plan.TensorShapes, pattern: re.Pattern[str]) -> bool:
    return any(pattern.match(name) for name in shapes)


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
            f"{place} has no transformer of Open-Sora v2 together with the autoencoder that it needs",
            "use the folder that has both, and T5 and CLIP, as hpcai-tech/Open-Sora-v2 has them",
        )
    listed = "; ".join(
        f"{name}: {', '.join(part.prefix.removesuffix(':') for part in parts.values())}"
        for name, parts, _ in fitting
    )
    raise ModelError(f"{place} has several models: {listed}", "say which with --variant, or take files out")
