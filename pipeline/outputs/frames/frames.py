"""In: what stands for frames in an output. Out: frames as an array (T, H, W, channels), and their digest."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.fields import IMAGES, PICTURES

Frames: TypeAlias = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB, C-contiguous
# Frames, or (T, H, W, 4) with alpha; float32 where values lie outside [0, 1]. T may count layers.
Pictures: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def to_frames(output: object) -> Frames:
    """Return the one clip in `output` as uint8 RGB (T, H, W, 3), as `to_pictures` does.

    output: a diffusers pipeline output, or what may stand in one. Raises RenderError for frames with alpha
    and for values outside [0, 1].
    """
    name = next((name for name in PICTURES if getattr(output, name, None) is not None), None)
    pictures = to_pictures(getattr(output, name) if name else output, are_images=name in IMAGES)
    if pictures.shape[-1] == 4:
        raise RenderError(
            f"the recipe cannot continue from frames with alpha, shape {pictures.shape}",
            "use the recipe generate",
        )
    if pictures.dtype != np.uint8:
        raise beyond_range(pictures)
    return pictures.astype(np.uint8, copy=False)


def to_pictures(value: object, *, are_images: bool = False) -> Pictures:
    """Return the one clip that `value` holds, C-contiguous; uint8, rounded as diffusers does.

    value: PIL images, NumPy arrays (T, H, W, C) or (H, W, C), torch tensors (T, C, H, W) or (C, H, W), or
    lists of these; 3 or 4 channels, uint8 or floats. Leading dimensions of one are taken off. Floats outside
    [0, 1] stay as they are, as float32. are_images: several of them are a batch, but for the layers of one.
    Raises RenderError for anything else.
    """
    array = _to_array(value)
    is_batch = are_images and array.ndim == 4 and array.shape[0] > 1
    while array.ndim > 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 4 or is_batch:
        raise RenderError(
            f"the recipe returned a batch of {array.shape[0]} clips, shape {array.shape}; a row is one clip",
            "leave num_images_per_prompt and num_videos_per_prompt at 1; use one row per seed",
        )
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[-1] not in (3, 4) or 0 in array.shape:
        raise RenderError(
            f"the recipe returned frames of shape {array.shape}, not (T, H, W, 3) or (T, H, W, 4)",
            "return RGB or RGBA frames: convert grayscale in the recipe",
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise RenderError(
            f"the recipe returned frames of type {array.dtype}", "return uint8 in 0-255 or floats in [0, 1]"
        )
    pixels, ranges = np.empty(array.shape, np.uint8), []
    with np.errstate(invalid="ignore"):  # values beyond 0 to 255 are found by their range
        for part, frame in zip(array, pixels, strict=True):  # one at a time, which stays in the cache
            scaled = (part * 255).round()  # what diffusers' numpy_to_pil does, in the array's own precision
            frame[...] = scaled.astype(np.uint8)
            ranges.append((float(scaled.min()), float(scaled.max())))
    low, high = (float(bound) for bound in (np.min(ranges), np.max(ranges)))
    if not np.isfinite([low, high]).all():  # they pass a NaN on
        raise RenderError(
            f"the frames contain {'NaN' if np.isnan(low) else 'infinity'}",
            "use dtype bf16 or fp32: fp16 overflows in many models; if fp32 does so too, weights of the "
            "model or of a LoRA are NaN: fetch them again",
        )
    return array.astype(np.float32, order="C") if low < 0 or high > 255 else pixels


def frames_sha256(frames: Pictures) -> str:
    """Return SHA-256 over the ASCII line `uint8 TxHxWx3\\n`, then the bytes in C order.

    With other dtypes and channels, those stand in the line.
    """
    shape = "x".join(map(str, frames.shape))
    digest = hashlib.sha256(f"{frames.dtype} {shape}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def frames_format(frames: Pictures) -> str:
    """Return channels and dtype, as records say them: "rgb uint8", "rgba float32"."""
    return f"{'rgba' if frames.shape[-1] == 4 else 'rgb'} {frames.dtype}"


def _to_array(value: object) -> npt.NDArray[Any]:
    """Return an array with the channels last, for any nesting of lists, images, arrays and tensors."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Image.Image):
        if value.mode not in ("RGB", "RGBA"):
            raise RenderError(
                f"the recipe returned a PIL image of mode {value.mode}, size {value.size}, not RGB or RGBA",
                'return `image.convert("RGB")`',
            )
        return np.asarray(value)
    if isinstance(value, list | tuple):
        arrays = [_to_array(one) for one in value]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) != 1:
            raise RenderError(
                f"the recipe returned {len(arrays)} frames of {len(shapes)} different shapes: {shapes[:3]}",
                "return at least one frame, all of the same size",
            )
        return np.stack(arrays)
    if hasattr(value, "detach"):  # a torch tensor, channels first; torch itself need not be imported here
        tensor: Any = value.detach().cpu()
        if tensor.ndim < 3:
            raise RenderError(
                f"the recipe returned a tensor of shape {tuple(tensor.shape)}, not (T, 3, H, W)",
                "return the decoded frames, not latents",
            )
        # As diffusers' pt_to_numpy does.
        return np.moveaxis((tensor.float() if tensor.is_floating_point() else tensor).numpy(), -3, -1)
    raise RenderError(
        f"the recipe returned {type(value).__name__}, which is not frames",
        "return the pipeline's output, or its `.frames` or `.images`, or an array (T, H, W, 3)",
    )


def beyond_range(frames: Pictures) -> RenderError:
    """Return what is said where only frames in [0, 1] have a place."""
    return RenderError(
        f"the frames span {frames.min():.3g} to {frames.max():.3g}, not [0, 1]",
        "set media.format to exr.zip to keep them as they are; or scale and clip them in the recipe: "
        "`((x + 1) / 2).clip(0, 1)` for frames in [-1, 1]",
    )
