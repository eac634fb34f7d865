"""Open-Sora checkpoints in small: the names and shapes of their authors' files, for any size and layout.

Written from the description of the networks, not with our key maps: what a conversion is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, FluxTransformer2DModel
from torch import Tensor
from transformers import ByT5Tokenizer, CLIPConfig, CLIPModel, T5Config, T5ForConditionalGeneration

from framefleet.plugins.ports.conversion.plan import Origin, same_names
from framefleet.plugins.ports.opensora import keys
from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo
from tests.crafter_originals import weight
from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer

Shapes = dict[str, tuple[int, ...]]

Layer = tuple[str, int, int]  # name, outputs, inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a transformer. fused: in Flux's layout."""

    hidden: int = 64
    heads: int = 4
    depth: int = 2
    single_depth: int = 2
    token: int = 16
    condition: int = 20
    text: int = 40
    pooled: int = 24
    guidance: bool = False
    fused: bool = False


FULL = Size(hidden=3072, heads=24, depth=19, single_depth=38, token=64, condition=68, text=4096, pooled=768)


def transformer_shapes(size: Size) -> Shapes:
    hidden, head = size.hidden, size.hidden // size.heads
    shapes: Shapes = {}
    for name, outputs, inputs in _linears(size):
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    blocks = [f"double_blocks.{i}.{stream}_attn" for i in range(size.depth) for stream in ("img", "txt")]
    blocks += [f"single_blocks.{i}" for i in range(size.single_depth)]
    for block in blocks:
        shapes |= {f"{block}.norm.{name}_norm.scale": (head,) for name in ("query", "key")}
    assert hidden % size.heads == 0
    return shapes


def _linears(size: Size) -> Iterator[Layer]:
    hidden = size.hidden
    yield "img_in", hidden, size.token
    yield "txt_in", hidden, size.text
    if size.condition:
        yield "cond_in", hidden, size.condition
    embedders = {"time_in": 256, "vector_in": size.pooled} | ({"guidance_in": 256} if size.guidance else {})
    for name, inputs in embedders.items():
        yield f"{name}.in_layer", hidden, inputs
        yield f"{name}.out_layer", hidden, hidden
    for i in range(size.depth):
        for stream in ("img", "txt"):
            block = f"double_blocks.{i}.{stream}"
            yield f"{block}_mod.lin", 6 * hidden, hidden
            for name in ("qkv",) if size.fused else ("q_proj", "k_proj", "v_proj"):
                yield f"{block}_attn.{name}", 3 * hidden if size.fused else hidden, hidden
            yield f"{block}_attn.proj", hidden, hidden
            yield f"{block}_mlp.0", 4 * hidden, hidden
            yield f"{block}_mlp.2", hidden, 4 * hidden
    for i in range(size.single_depth):
        block = f"single_blocks.{i}"
        yield f"{block}.modulation.lin", 3 * hidden, hidden
        if size.fused:
            yield f"{block}.linear1", 7 * hidden, hidden
        else:
            yield from ((f"{block}.{name}", hidden, hidden) for name in ("q_proj", "k_proj"))
            yield f"{block}.v_mlp", 5 * hidden, hidden
        yield f"{block}.linear2", hidden, 5 * hidden
    yield "final_layer.adaLN_modulation.1", 2 * hidden, hidden
    yield "final_layer.linear", size.token, hidden


def dc_shapes(widths: list[int], depths: list[int], decoder_depths: list[int], latent: int) -> Shapes:
    """Return those of a video DC-AE whose upper half of levels attends."""
    levels = list(enumerate(widths))
    shapes = _conv("encoder.project_in.conv", widths[0], 3)
    for i, width in levels:
        place = f"encoder.stages.{i}.op_list"
        for j in range(depths[i]):
            shapes |= _dc_block(f"{place}.{j}", width, attends=2 * i >= len(widths))
        if i + 1 < len(widths):
            shapes |= _conv(f"{place}.{depths[i]}.main.conv", widths[i + 1], width)
    shapes |= _conv("encoder.project_out.main.op_list.0.conv", latent, widths[-1])
    shapes |= _conv("decoder.project_in.main.conv", widths[-1], latent)
    for i, width in levels:
        place, first = f"decoder.stages.{i}.op_list", int(i + 1 < len(widths))
        if first:
            shapes |= _conv(f"{place}.0.main.conv.conv", width, widths[i + 1])
        for j in range(decoder_depths[i]):
            shapes |= _dc_block(f"{place}.{first + j}", width, attends=2 * i >= len(widths))
    shapes |= _norm("decoder.project_out.op_list.0", widths[0])
    return shapes | _conv("decoder.project_out.op_list.2.conv", 3, widths[0])


def _dc_block(place: str, width: int, *, attends: bool) -> Shapes:
    if not attends:
        shapes = _conv(f"{place}.main.conv1.conv", width, width)
        shapes[f"{place}.main.conv2.conv.weight"] = (width, width, 3, 3, 3)
        return shapes | _norm(f"{place}.main.conv2.norm", width)
    attention, local = f"{place}.context_module.main", f"{place}.local_module.main"
    shapes = {
        f"{attention}.qkv.conv.weight": (3 * width, width, 1, 1, 1),
        f"{attention}.aggreg.0.0.weight": (3 * width, 1, 5, 5, 5),
        f"{attention}.aggreg.0.1.weight": (3 * width, 32, 1, 1, 1),
        f"{attention}.proj.conv.weight": (width, 2 * width, 1, 1, 1),
        f"{local}.inverted_conv.conv.weight": (8 * width, width, 1, 1, 1),
        f"{local}.inverted_conv.conv.bias": (8 * width,),
        f"{local}.depth_conv.conv.weight": (8 * width, 1, 3, 3, 3),
        f"{local}.depth_conv.conv.bias": (8 * width,),
        f"{local}.point_conv.conv.weight": (width, 4 * width, 1, 1, 1),
    }
    return shapes | _norm(f"{attention}.proj.norm", width) | _norm(f"{local}.point_conv.norm", width)


def _conv(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, 3, 3, 3), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def hunyuan_shapes(widths: tuple[int, ...], *, latent: int, layers: int) -> Shapes:
    """Return those of HunyuanVideo's autoencoder: diffusers names its tensors as the authors do."""
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo(
            block_out_channels=widths, latent_channels=latent, layers_per_block=layers, norm_num_groups=8
        )
    return {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}


def weights_of(shapes: Shapes) -> dict[str, Tensor]:
    return {name: weight(name, shape) for name, shape in shapes.items()}


def transformer_of(weights: dict[str, Tensor]) -> Any:
    """Return the transformer that a checkpoint of these tensors becomes."""
    return _loaded(
        FluxTransformer2DModel(**keys.transformer_config(weights)), keys.transformer_origins, weights
    )


def dc_of(weights: dict[str, Tensor]) -> Any:
    return _loaded(AutoencoderDCVideo(**keys.dc_config(weights)), keys.dc_origins, weights)


def hunyuan_of(weights: dict[str, Tensor], *, norm_num_groups: int = 8) -> Any:
    """norm_num_groups: of the references, which the tensors do not tell."""
    config = keys.hunyuan_config(weights) | {"norm_num_groups": norm_num_groups}
    return _loaded(AutoencoderKLHunyuanVideo(**config), same_names, weights)


def _loaded(module: Any, origins: Callable[..., dict[str, Origin]], weights: dict[str, Tensor]) -> Any:
    found = origins(list(module.state_dict()), weights)
    module.load_state_dict({name: origin.take(weights.__getitem__) for name, origin in found.items()})
    return module.eval()


_VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


def write_texts(folder: Path) -> None:
    """Write both below `folder`, where Open-Sora v2 has them; CLIP's weights as a pickle beside, too."""
    t5, text = folder / "google" / "t5-v1_1-xxl", folder / "openai" / "clip-vit-large-patch14"
    config = T5Config(vocab_size=384, d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(t5, max_shard_size="30KB")
        towers = CLIPModel(CLIPConfig(text_config=clip().config.to_dict(), vision_config=_VISION))
    ByT5Tokenizer().save_pretrained(t5)
    towers.save_pretrained(text)
    torch.save(towers.state_dict(), text / "pytorch_model.bin")
    clip_tokenizer().save_pretrained(text)
