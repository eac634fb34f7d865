"""What autoencoders do that their configs do not say, by class, and the memory that they need to decode.

`python -m tests.decoders` prints the counts that the memory is fitted to, made on the meta device with
diffusers 0.42: every tensor that is alive, without workspaces of kernels and without fragments.
"""

from __future__ import annotations

from typing import NamedTuple

# They take pictures, so a clip is a batch of them; the others take clips.
OF_PICTURES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder", "AutoencoderTiny", "AutoencoderDC")
# Their `decode` ends with a clamp to [-1, 1], and pixels beyond give no gradient.
CLAMPING = ("AutoencoderKLWan", "AutoencoderKLQwenImage")
# Their `decode` has to be given how many frames there are.
COUNTING = ("AutoencoderKLTemporalDecoder",)
# They pack all frames alike, where the others pack the first one alone.
PACKING_ALIKE = ("AutoencoderDCVideo",)
_TILED_PIXEL_FRAME = 4.2  # what is done by then, in two copies


class DecoderMemory(NamedTuple):
    """Numbers of values: of a pixel, and of a pixel of each frame; still: of a pixel where that is all.

    tile, tile_frame: of a tile, and of each frame of it; None where tiles are as large as frames.
    """

    pixel: float
    pixel_frame: float
    tile: float | None = None
    tile_frame: float = 0.0
    still: float | None = None

    def gb(self, height: int, width: int, frames: int, *, value_bytes: int, tiling: bool) -> float:
        """Return gigabytes for one clip, or one picture where frames is 1."""
        pixels = height * width
        values = pixels * (
            self.still if self.still and frames == 1 else self.pixel + self.pixel_frame * frames
        )
        if tiling and self.tile is not None:
            done = _TILED_PIXEL_FRAME * pixels * frames
            values = min(values, self.tile + self.tile_frame * frames + done)
        return values * value_bytes / 1e9


# By millions of parameters, as presets count them: no two kinds have as many. Most videos are decoded a few
# latent frames at a time, so that little grows with their length; not by HunyuanVideo 1.5, LTX and Mochi.
DECODERS = {
    127: DecoderMemory(5060, 3.1, tile=0.331e9, still=1731),  # Wan 2.1, Qwen-Image
    705: DecoderMemory(5378, 3.1, tile=0.353e9),  # Wan 2.2 5B
    246: DecoderMemory(19630, 4.1, tile=1.29e9),  # HunyuanVideo, Kandinsky 5, Open-Sora
    1261: DecoderMemory(0, 898, tile=0.0, tile_frame=0.0586e9),  # HunyuanVideo 1.5
    216: DecoderMemory(22890, 0.1, tile=1.96e9),  # CogVideoX
    419: DecoderMemory(10, 50, tile=0.0, tile_frame=0.0116e9),  # LTX
    1222: DecoderMemory(50, 42.2, tile=0.0, tile_frame=0.0029e9),  # LTX 2
    460: DecoderMemory(2380, 912, tile=0.239e9, tile_frame=0.0416e9),  # Mochi
    84: DecoderMemory(0, 771),  # Stable Diffusion, Flux and what shares their autoencoder
    312: DecoderMemory(0, 833),  # Sana
}
