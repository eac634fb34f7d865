"""What autoencoders hold while they decode, counted on the meta device: `python -m tests.decoders`.

Prints the counts that `pipeline/model/options/footprint.py` is fitted to: all tensors alive at the
worst moment, in bf16. Tiles take minutes, as there are hundreds of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

IN_2D = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
IN_3D = dict(down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4)
WAN_2_2 = dict(base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, patch_size=2) | dict(
    in_channels=12, out_channels=12, latents_mean=[0.0] * 48, latents_std=[1.0] * 48
)


@dataclass(frozen=True, slots=True)
class Counted:
    """latent: its channels, and how many frames and pixels one place stands for. frames: to count with."""

    millions: int
    class_name: str
    latent: tuple[int, int, int]
    frames: int = 9
    config: Mapping[str, Any] = field(default_factory=dict)


COUNTED = {
    "wan": Counted(127, "AutoencoderKLWan", (16, 4, 8)),
    "wan2.2-5b": Counted(705, "AutoencoderKLWan", (48, 4, 16), config=WAN_2_2),
    "hunyuanvideo": Counted(246, "AutoencoderKLHunyuanVideo", (16, 4, 8), frames=33),
    "hunyuanvideo-1.5": Counted(1261, "AutoencoderKLHunyuanVideo15", (32, 4, 16)),
    "cogvideox": Counted(
        216,
        "AutoencoderKLCogVideoX",
        (16, 4, 8),
        frames=25,
        config=dict(block_out_channels=(128, 256, 256, 512), latent_channels=16, layers_per_block=3) | IN_3D,
    ),
    "ltx": Counted(419, "AutoencoderKLLTXVideo", (128, 8, 32), frames=33),
    "ltx-2": Counted(1222, "AutoencoderKLLTX2Video", (128, 8, 32), frames=33),
    "mochi": Counted(460, "AutoencoderKLMochi", (12, 6, 8), frames=31),
    "kl": Counted(
        84,
        "AutoencoderKL",
        (16, 0, 8),
        frames=1,
        config=dict(block_out_channels=(128, 256, 512, 512), latent_channels=16, layers_per_block=2) | IN_2D,
    ),
    "sana": Counted(312, "AutoencoderDC", (32, 0, 32), frames=1),
}


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are alive. peak: the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[Any, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference not in self._sizes:
                    self._sizes[reference] = storage.nbytes()
                    self.now += storage.nbytes()
        for gone in [one for one in self._sizes if one.expired()]:
            self.now -= self._sizes.pop(gone)
        self.peak = max(self.peak, self.now)
        return result


def decode_peak(counted: Counted, height: int, width: int, frames: int, *, tiling: bool = False) -> int:
    """Return the bytes that a decoder holds at its worst moment, in bf16, without its weights."""
    with torch.device("meta"):
        vae = getattr(diffusers, counted.class_name)(**counted.config).to(torch.bfloat16).eval()
    if tiling:
        vae.enable_tiling()
    channels, step, pixels = counted.latent
    places = ((frames - 1) // step + 1,) if step else ()
    shape = (1, channels, *places, height // pixels, width // pixels)
    latents = torch.empty(shape, device="meta", dtype=torch.bfloat16)
    own, F.scaled_dot_product_attention = F.scaled_dot_product_attention, _attention
    try:
        with torch.no_grad(), Alive() as alive:
            vae.decode(latents, return_dict=False)
    finally:
        F.scaled_dot_product_attention = own
    return alive.peak


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """Stand for kernels that keep no scores, as those of GPUs; the meta device has one that does."""
    return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)


def main(names: list[str]) -> None:
    """Print bytes for each pixel, for two sizes and numbers of frames, as a whole and in tiles."""
    for name in names or COUNTED:
        counted = COUNTED[name]
        for tiles in (False, True):
            for height, width in ((480, 832), (704, 1280)):
                for frames in sorted({counted.frames, 2 * counted.frames - 1}):
                    peak = decode_peak(counted, height, width, frames, tiling=tiles)
                    size = f"{frames} x {height} x {width}{', tiles' if tiles else ''}"
                    print(f"{name:16} {size:26} {peak / 1e9:7.2f} GB {peak / height / width:9.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
