"""From the names and shapes of an original denoiser's tensors to our config and the origin of each of ours.

The original numbers its blocks in one row and calls a block's parts by number; diffusers has levels. With n
residual blocks on each level, input block 1 + l(n + 1) + j is block j of level l, and the last j is the
downsampler. Output blocks count likewise, from the deepest level.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from framefleet.plugins.ports.conversion.plan import Origin, as_linear, count_below, size_of, unchanged

_Shapes = Mapping[str, Tensor]  # tensors without values

_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "transformer_in": "init_attn.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TEMPORAL_CONV = "temopral_conv"  # as the originals spell it
_INNER = {
    ".processor.relative_position_k.weight": ".relative_position_k.embeddings_table",
    ".processor.relative_position_v.weight": ".relative_position_v.embeddings_table",
    ".processor.to_k_ip.": ".to_k_ip.",
    ".processor.to_v_ip.": ".to_v_ip.",
    ".processor.alpha": ".alpha",
}
_BLOCK = "transformer_blocks.0"
_FPS = ("fps_embedding", "framestride_embed")  # the second in DynamiCrafter 256 as first released
_FIRST_HEADS = 8  # of the temporal transformer before the first block, whatever its width


def unet_origins(names: Iterable[str], shapes: _Shapes) -> dict[str, Origin]:
    """Return where each of our tensors comes from. names: ours."""
    stems = _TOP | _Layout.of(shapes).stems
    return {
        name: Origin(
            name=_original(name, stems),
            # Those of the first temporal transformer are convolutions of one frame.
            change=partial(as_linear, dims=1) if name.startswith("transformer_in.proj_") else unchanged,
        )
        for name in names
    }


def unet_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of VideoCrafterUNet3DModel that its tensors tell."""
    layout = _Layout.of(shapes)
    first = f"init_attn.0.{_BLOCK}.attn1"
    has_positions = any(".relative_position_" in name for name in shapes)
    table = f"{first}.relative_position_k.embeddings_table"
    keys = [name for name in shapes if name.startswith("middle_block.1.") and ".attn2." in name]
    return {
        "in_channels": size_of(shapes, "input_blocks.0.0.weight", 4)[1],
        "out_channels": size_of(shapes, "out.2.weight", 4)[0],
        "down_block_types": [f"{'CrossAttn' if has else ''}DownBlock3D" for has in layout.attends],
        "up_block_types": [f"{'CrossAttn' if has else ''}UpBlock3D" for has in reversed(layout.attends)],
        "block_out_channels": [
            size_of(shapes, f"input_blocks.{1 + level * layout.per_level}.0.out_layers.3.weight", 4)[0]
            for level in layout.levels
        ],
        "layers_per_block": layout.per_level - 1,
        "cross_attention_dim": size_of(shapes, f"middle_block.1.{_BLOCK}.attn2.to_k.weight", 2)[1],
        "attention_head_dim": size_of(shapes, f"{first}.to_q.weight", 2)[0] // _FIRST_HEADS,
        "default_fps": 16 if layout.fps else None,  # of the original's forward; each variant has its own
        "use_temporal_conv": any(f".{_TEMPORAL_CONV}." in name for name in shapes),
        "max_relative_position": (size_of(shapes, table, 2)[0] - 1) // 2 if has_positions else None,
        "image_cross_attention": any("_ip." in name for name in keys),
        "learnable_image_scale": any(name.endswith(".alpha") for name in keys),
    }


@dataclass(frozen=True, slots=True)
class _Layout:
    """per_level: input blocks of each level, its residual blocks and the downsampler.

    attends: whether each level has attention. fps: what the original calls the embedding of fps.
    """

    attends: tuple[bool, ...]
    per_level: int
    fps: str | None

    @classmethod
    def of(cls, shapes: _Shapes) -> _Layout:
        """Raises ValueError for two embeddings of fps."""
        samplers = {int(n.split(".")[1]) for n in shapes if n.startswith("input_blocks.") and ".0.op." in n}
        per_level = min(samplers, default=count_below(shapes, "input_blocks."))
        firsts = [1 + level * per_level for level in range(len(samplers) + 1)]
        attends = tuple(any(n.startswith(f"input_blocks.{first}.1.") for n in shapes) for first in firsts)
        fps = [stem for stem in _FPS if any(name.startswith(f"{stem}.") for name in shapes)]
        if len(fps) > 1:
            raise ValueError(f"{fps[0]} and {fps[1]} are two names of one layer: take one of them out")
        return cls(attends, per_level, fps[0] if fps else None)

    @property
    def levels(self) -> range:
        return range(len(self.attends))

    @property
    def stems(self) -> dict[str, str]:
        """Return the original's name of each of our parts that it numbers."""
        fps = {f"fps_embedding.linear_{i}": f"{self.fps}.{2 * i - 2}" for i in (1, 2)}
        return fps | {ours: theirs for theirs, ours in self._pairs()}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        last = self.per_level - 1
        for level, attends in zip(self.levels, reversed(self.attends), strict=True):
            for j in range(last):
                yield from _parts(f"input_blocks.{1 + level * self.per_level + j}", f"down_blocks.{level}", j)
            for j in range(self.per_level):
                yield from _parts(f"output_blocks.{level * self.per_level + j}", f"up_blocks.{level}", j)
            sampler = f"input_blocks.{(level + 1) * self.per_level}.0.op"
            yield sampler, f"down_blocks.{level}.downsamplers.0.conv"
            behind = 3 if attends else 1  # the residual block, and both attentions where the level has them
            sampler = f"output_blocks.{level * self.per_level + last}.{behind}.conv"
            yield sampler, f"up_blocks.{level}.upsamplers.0.conv"
        yield from _parts("middle_block", "mid_block", 0)
        yield from _residual("middle_block.3", "mid_block", 1)


def _parts(theirs: str, ours: str, j: int) -> Iterator[tuple[str, str]]:
    """A residual block, spatial attention and temporal attention, by their numbers."""
    yield from _residual(f"{theirs}.0", ours, j)
    yield f"{theirs}.1", f"{ours}.attentions.{j}"
    yield f"{theirs}.2", f"{ours}.temp_attentions.{j}"


def _residual(theirs: str, ours: str, j: int) -> Iterator[tuple[str, str]]:
    yield from ((f"{theirs}.{part}", f"{ours}.resnets.{j}.{name}") for name, part in _RESIDUAL.items())
    yield f"{theirs}.{_TEMPORAL_CONV}", f"{ours}.temp_convs.{j}"


def _original(name: str, stems: Mapping[str, str]) -> str:
    """Replace our name's longest known beginning, then the names inside attention."""
    pieces = name.split(".")
    beginnings = (".".join(pieces[:count]) for count in range(len(pieces), 0, -1))
    stem = next(beginning for beginning in beginnings if beginning in stems)
    name = stems[stem] + name[len(stem) :]
    for ours, theirs in _INNER.items():
        name = name.replace(ours, theirs)
    return name
