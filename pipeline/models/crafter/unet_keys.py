"""From the names and shapes of an original denoiser's tensors to our config and the origin of each of ours.

The original numbers its blocks in one row and calls a block's parts by number; diffusers has levels. With n
residual blocks on each level, input block 1 + l(n + 1) + j is block j of level l, and the last j is the
downsampler. Output blocks count likewise, from the deepest level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from framefleet.pipeline.conversion.plan import Origin

_TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "fps_embedding.0": "fps_embedding.linear_1",
    "fps_embedding.2": "fps_embedding.linear_2",
    "framestride_embed.0": "fps_embedding.linear_1",  # DynamiCrafter 256 as first released
    "framestride_embed.2": "fps_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "init_attn.0": "transformer_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_TEMPORAL_CONV = "temopral_conv."  # as the originals spell it
_INNER = {
    ".relative_position_k.embeddings_table": ".processor.relative_position_k.weight",
    ".relative_position_v.embeddings_table": ".processor.relative_position_v.weight",
    ".to_k_ip.": ".processor.to_k_ip.",
    ".to_v_ip.": ".processor.to_v_ip.",
    ".attn2.alpha": ".attn2.processor.alpha",
}
_FIRST_HEADS = 8  # of the temporal transformer before the first block, whatever its width


def unet_origins(shapes: Mapping[str, Tensor], prefix: str = "") -> dict[str, Origin]:
    """Return where each of our tensors comes from. prefix: of the names in the checkpoint, not in `shapes`.

    A name that does not fit the layout keeps its own, so that the check of all names tells of it.
    """
    blocks = _Layout.of(shapes).blocks
    return {_renamed(name, blocks): Origin(name=prefix + name) for name in shapes}


def unet_config(shapes: Mapping[str, Tensor], *, default_fps: int = 16) -> dict[str, Any]:
    """Return the arguments of VideoCrafterUNet3DModel that its tensors tell.

    default_fps: of a call without one, where the model is conditioned on it.
    """
    layout = _Layout.of(shapes)
    first = f"init_attn.0.{_BLOCK}.attn1"
    table = shapes.get(f"{first}.relative_position_k.embeddings_table")
    attends = [
        f"input_blocks.{1 + level * layout.per_level}.1.norm.weight" in shapes for level in layout.levels
    ]
    widths = [
        shapes[f"input_blocks.{1 + level * layout.per_level}.0.out_layers.3.weight"].shape[0]
        for level in layout.levels
    ]
    keys = [name for name in shapes if name.startswith("middle_block.1.") and ".attn2." in name]
    return {
        "in_channels": shapes["input_blocks.0.0.weight"].shape[1],
        "out_channels": shapes["out.2.weight"].shape[0],
        "down_block_types": [f"{'CrossAttn' if has else ''}DownBlock3D" for has in attends],
        "up_block_types": [f"{'CrossAttn' if has else ''}UpBlock3D" for has in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": layout.per_level - 1,
        "cross_attention_dim": shapes[f"middle_block.1.{_BLOCK}.attn2.to_k.weight"].shape[1],
        "attention_head_dim": shapes[f"{first}.to_q.weight"].shape[0] // _FIRST_HEADS,
        "default_fps": default_fps if any(name.startswith(_FPS) for name in shapes) else None,
        "use_temporal_conv": any(_TEMPORAL_CONV in name for name in shapes),
        "max_relative_position": (table.shape[0] - 1) // 2 if table is not None else None,
        "image_cross_attention": any(".to_k_ip." in name for name in keys),
        "learnable_image_scale": any(name.endswith(".alpha") for name in keys),
    }


_BLOCK = "transformer_blocks.0"
_FPS = ("fps_embedding.", "framestride_embed.")


@dataclass(frozen=True, slots=True)
class _Layout:
    """per_level: input blocks of each level, its residual blocks and the downsampler."""

    num_levels: int
    per_level: int

    @classmethod
    def of(cls, shapes: Mapping[str, Tensor]) -> _Layout:
        samplers = [
            int(n.split(".")[1]) for n in shapes if n.startswith("input_blocks.") and ".op.weight" in n
        ]
        last = max(int(name.split(".")[1]) for name in shapes if name.startswith("input_blocks."))
        return cls(len(samplers) + 1, min(samplers, default=last + 1))

    @property
    def levels(self) -> range:
        return range(self.num_levels)

    @property
    def blocks(self) -> dict[str, str]:
        """Return our name of each numbered part of the original, and of its residual block's parts."""
        return dict(self._pairs())

    def _pairs(self) -> Iterator[tuple[str, str]]:
        last = self.per_level - 1
        for level in self.levels:
            for j in range(last):
                yield from _parts(f"input_blocks.{1 + level * self.per_level + j}", f"down_blocks.{level}", j)
            for j in range(self.per_level):
                yield from _parts(f"output_blocks.{level * self.per_level + j}", f"up_blocks.{level}", j)
            yield (
                f"input_blocks.{(level + 1) * self.per_level}.0.op",
                f"down_blocks.{level}.downsamplers.0.conv",
            )
            for part in (1, 3):  # behind the attentions where the level has them
                upsampler = f"output_blocks.{level * self.per_level + last}.{part}.conv"
                yield upsampler, f"up_blocks.{level}.upsamplers.0.conv"
        yield from _parts("middle_block", "mid_block", 0)
        yield from _residual("middle_block.3", "mid_block", 1)


def _parts(theirs: str, ours: str, j: int) -> Iterator[tuple[str, str]]:
    """A residual block, spatial attention and temporal attention, by their numbers."""
    yield from _residual(f"{theirs}.0", ours, j)
    yield f"{theirs}.1", f"{ours}.attentions.{j}"
    yield f"{theirs}.2", f"{ours}.temp_attentions.{j}"


def _residual(theirs: str, ours: str, j: int) -> Iterator[tuple[str, str]]:
    yield from ((f"{theirs}.{part}", f"{ours}.resnets.{j}.{name}") for part, name in _RESIDUAL.items())
    yield f"{theirs}.{_TEMPORAL_CONV[:-1]}", f"{ours}.temp_convs.{j}"


def _renamed(name: str, blocks: Mapping[str, str]) -> str:
    """Replace the longest known beginning, then the names inside attention."""
    stems = {**_TOP, **blocks}
    pieces = name.split(".")
    for count in range(len(pieces), 0, -1):
        stem = ".".join(pieces[:count])
        if stem in stems:
            name = stems[stem] + name[len(stem) :]
            break
    for theirs, ours in _INNER.items():
        name = name.replace(theirs, ours)
    return name
