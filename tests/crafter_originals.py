"""Tiny checkpoints with the tensor names that the originals of VideoCrafter and DynamiCrafter have.

Written from the description of the networks, not with our key maps: what a conversion is tested against.
Weights follow the rule of the golden files: each is a function of its own name and shape.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Named = Iterator[tuple[str, tuple[int, ...]]]

WIDTHS, HEAD, TEXT, VISION = (32, 64), 16, 64, 80
FRAMES, TOKENS, DISTANCE = 3, 16, 4  # tokens of the image for each frame; the originals' distance is 16

UNETS = {
    "videocrafter2-t2v-512": {},
    "videocrafter1-t2v-1024": {"convs": False, "positions": True},
    "videocrafter1-t2v-512": {"convs": False, "positions": True, "fps": False},
    "videocrafter1-i2v-512": {"image": True},
    "dynamicrafter-256": {"channels": 8, "image": True, "gate": True},
    "dynamicrafter-512": {"channels": 8, "image": True},
}
SCALES = {"videocrafter2-t2v-512": 0.7, "videocrafter1-t2v-1024": 0.3, "dynamicrafter-512": 0.7}


def checkpoint(variant: str) -> dict[str, Tensor]:
    """Return the state dict of a tiny original."""
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in Unet(**UNETS[variant]).names()}  # type: ignore[arg-type]
    shapes |= {f"first_stage_model.{name}": shape for name, shape in _autoencoder()}
    shapes |= {f"cond_stage_model.model.{name}": shape for name, shape in _text_tower()}
    if UNETS[variant].get("image"):
        frames = FRAMES if "channels" in UNETS[variant] else 1
        shapes |= {f"image_proj_model.{name}": shape for name, shape in _resampler(frames)}
        shapes |= {f"embedder.model.{name}": shape for name, shape in _image_tower()}
    tensors = {name: weight(name.partition("model.")[2], shape) for name, shape in shapes.items()}
    tensors["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    if variant in SCALES:
        scale = SCALES[variant]
        tensors["scale_arr"] = torch.cat([torch.linspace(1, scale, 400), torch.full((600,), scale)])
    return tensors


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor of that name: rule R1 of the golden files."""
    seed = zlib.crc32(name.encode()) & 0x7FFFFFFF
    drawn = np.asarray(np.random.RandomState(seed).standard_normal(shape)).astype(np.float32)
    if len(shape) >= 2:
        drawn = drawn / np.sqrt(float(np.prod(shape[1:])))
    elif name.endswith(("weight", "scale")):
        drawn = 1 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return torch.from_numpy(np.asarray(drawn).astype(np.float16)).float()


def _layer(name: str, *shape: int, bias: bool = True) -> Named:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


class Unet:
    """lvdm's UNetModel with one residual block on each level and attention on the first."""

    def __init__(
        self,
        *,
        channels: int = 4,
        fps: bool = True,
        convs: bool = True,
        positions: bool = False,
        image: bool = False,
        gate: bool = False,
    ) -> None:
        self.channels, self.fps, self.convs = channels, fps, convs
        self.positions, self.image, self.gate = positions, image, gate

    def names(self) -> Named:
        first, last = WIDTHS
        time = 4 * first
        for name in ["time_embed", *(["fps_embedding"] if self.fps else [])]:
            yield from _layer(f"{name}.0", time, first)
            yield from _layer(f"{name}.2", time, time)
        yield from _layer("input_blocks.0.0", first, self.channels, 3, 3)
        yield from self._temporal("init_attn.0", first, 8 * HEAD, is_first=True)
        yield from self._residual("input_blocks.1.0", first, first)
        yield from self._attention("input_blocks.1", first)
        yield from _layer("input_blocks.2.0.op", first, first, 3, 3)
        yield from self._residual("input_blocks.3.0", first, last)
        yield from self._residual("middle_block.0", last, last)
        yield from self._attention("middle_block", last)
        yield from self._residual("middle_block.3", last, last)
        yield from self._residual("output_blocks.0.0", last + last, last)
        yield from self._residual("output_blocks.1.0", last + first, last)
        yield from _layer("output_blocks.1.1.conv", last, last, 3, 3)
        yield from self._residual("output_blocks.2.0", last + first, first)
        yield from self._attention("output_blocks.2", first)
        yield from self._residual("output_blocks.3.0", first + first, first)
        yield from self._attention("output_blocks.3", first)
        yield from _layer("out.0", first)
        yield from _layer("out.2", 4, first, 3, 3)

    def _residual(self, name: str, width_in: int, width: int) -> Named:
        yield from _layer(f"{name}.in_layers.0", width_in)
        yield from _layer(f"{name}.in_layers.2", width, width_in, 3, 3)
        yield from _layer(f"{name}.emb_layers.1", width, 4 * WIDTHS[0])
        yield from _layer(f"{name}.out_layers.0", width)
        yield from _layer(f"{name}.out_layers.3", width, width, 3, 3)
        if width_in != width:
            yield from _layer(f"{name}.skip_connection", width, width_in, 1, 1)
        for stage, conv in zip((1, 2, 3, 4), (2, 3, 3, 3), strict=True):
            if self.convs:
                yield from _layer(f"{name}.temopral_conv.conv{stage}.0", width)
                yield from _layer(f"{name}.temopral_conv.conv{stage}.{conv}", width, width, 3, 1, 1)

    def _attention(self, name: str, width: int) -> Named:
        yield from self._transformer(f"{name}.1", width, width, context=TEXT)
        if self.image:
            attention = f"{name}.1.transformer_blocks.0.attn2"
            yield from _layer(f"{attention}.to_k_ip", width, TEXT, bias=False)
            yield from _layer(f"{attention}.to_v_ip", width, TEXT, bias=False)
            if self.gate:
                yield f"{attention}.alpha", ()
        yield from self._temporal(f"{name}.2", width, width)

    def _temporal(self, name: str, width: int, inner: int, *, is_first: bool = False) -> Named:
        yield from self._transformer(name, width, inner, context=inner, ones=(1,) if is_first else ())
        for attention in ("attn1", "attn2"):
            for part in "kv":
                if self.positions:
                    table = f"{name}.transformer_blocks.0.{attention}.relative_position_{part}"
                    yield f"{table}.embeddings_table", (2 * DISTANCE + 1, HEAD)

    def _transformer(
        self, name: str, width: int, inner: int, *, context: int, ones: tuple[int, ...] = ()
    ) -> Named:
        block = f"{name}.transformer_blocks.0"
        yield from _layer(f"{name}.norm", width)
        yield from _layer(f"{name}.proj_in", inner, width, *ones)
        for attention, size in (("attn1", inner), ("attn2", context)):
            yield from _layer(f"{block}.{attention}.to_q", inner, inner, bias=False)
            yield from _layer(f"{block}.{attention}.to_k", inner, size, bias=False)
            yield from _layer(f"{block}.{attention}.to_v", inner, size, bias=False)
            yield from _layer(f"{block}.{attention}.to_out.0", inner, inner)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * inner, inner)
        yield from _layer(f"{block}.ff.net.2", inner, 4 * inner)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _layer(f"{block}.{norm}", inner)
        yield from _layer(f"{name}.proj_out", width, inner, *ones)


def _autoencoder() -> Named:
    """Four levels of 32 channels, as eight pixels go into a latent."""
    for half, ends in (("encoder", (3, 8)), ("decoder", (4, 3))):
        yield from _layer(f"{half}.conv_in", 32, ends[0], 3, 3)
        for level in range(4):
            way = "down" if half == "encoder" else "up"
            for block in range(1 if half == "encoder" else 2):
                yield from _autoencoder_block(f"{half}.{way}.{level}.block.{block}")
            if level < 3 if half == "encoder" else level > 0:
                yield from _layer(f"{half}.{way}.{level}.{way}sample.conv", 32, 32, 3, 3)
        for block in (1, 2):
            yield from _autoencoder_block(f"{half}.mid.block_{block}")
        yield from _layer(f"{half}.mid.attn_1.norm", 32)
        for part in ("q", "k", "v", "proj_out"):
            yield from _layer(f"{half}.mid.attn_1.{part}", 32, 32, 1, 1)
        yield from _layer(f"{half}.norm_out", 32)
        yield from _layer(f"{half}.conv_out", ends[1], 32, 3, 3)
    yield from _layer("quant_conv", 8, 8, 1, 1)
    yield from _layer("post_quant_conv", 4, 4, 1, 1)


def _autoencoder_block(name: str) -> Named:
    for i in (1, 2):
        yield from _layer(f"{name}.norm{i}", 32)
        yield from _layer(f"{name}.conv{i}", 32, 32, 3, 3)


def _text_tower() -> Named:
    yield "positional_embedding", (77, TEXT)
    yield "text_projection", (TEXT, TEXT)
    yield "logit_scale", ()
    yield "token_embedding.weight", (49408, TEXT)
    yield from _layer("ln_final", TEXT)
    yield from _clip_blocks("transformer", TEXT, 2)


def _image_tower() -> Named:
    yield "logit_scale", ()
    yield "visual.class_embedding", (VISION,)
    yield "visual.positional_embedding", (1 + 2 * 2, VISION)
    yield "visual.conv1.weight", (VISION, 3, 14, 14)
    yield "visual.proj", (VISION, TEXT)
    yield from _layer("visual.ln_pre", VISION)
    yield from _layer("visual.ln_post", VISION)
    yield from _clip_blocks("visual.transformer", VISION, 1)


def _clip_blocks(name: str, width: int, count: int) -> Named:
    for i in range(count):
        block = f"{name}.resblocks.{i}"
        yield from _layer(f"{block}.ln_1", width)
        yield f"{block}.attn.in_proj_weight", (3 * width, width)
        yield f"{block}.attn.in_proj_bias", (3 * width,)
        yield from _layer(f"{block}.attn.out_proj", width, width)
        yield from _layer(f"{block}.ln_2", width)
        yield from _layer(f"{block}.mlp.c_fc", 4 * width, width)
        yield from _layer(f"{block}.mlp.c_proj", width, 4 * width)


def _resampler(frames: int) -> Named:
    width = 32
    yield "latents", (1, TOKENS * frames, width)
    yield from _layer("proj_in", width, VISION)
    yield from _layer("proj_out", TEXT, width)
    yield from _layer("norm_out", TEXT)
    for norm in ("norm1", "norm2"):
        yield from _layer(f"layers.0.0.{norm}", width)
    yield "layers.0.0.to_q.weight", (64, width)
    yield "layers.0.0.to_kv.weight", (128, width)
    yield "layers.0.0.to_out.weight", (width, 64)
    yield from _layer("layers.0.1.0", width)
    yield "layers.0.1.1.weight", (4 * width, width)
    yield "layers.0.1.3.weight", (width, 4 * width)
