"""In: whatever a recipe returned. Out: uint8 RGB frames (T, H, W, 3), and their digest."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from framefleet.pipeline.errors import RenderError

Frames: TypeAlias = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB, C-contiguous


def to_frames(output: object) -> Frames:
    """Return the one clip in `output` as uint8 RGB (T, H, W, 3), C-contiguous, rounded as diffusers does.

    output: a diffusers pipeline output (`.frames` or `.images`), or what may stand in one: PIL images,
    NumPy arrays (T, H, W, 3) or (H, W, 3), torch tensors (T, C, H, W) or (C, H, W), or lists of these;
    floats in [0, 1] or uint8. Leading dimensions of one are taken off. Raises RenderError for anything else.
    """
    images = getattr(output, "images", None)
    array = _to_array(getattr(output, "frames", output) if images is None else images)
    while array.ndim > 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 4 or (images is not None and array.ndim == 4 and array.shape[0] > 1):
        raise RenderError(
            f"the recipe returned a batch of {array.shape[0]} clips, shape {array.shape}; a row is one clip",
            "leave num_images_per_prompt and num_videos_per_prompt at 1; use one row per seed",
        )
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise RenderError(
            f"the recipe returned frames of shape {array.shape}, not (T, H, W, 3)",
            "return RGB frames: convert grayscale and RGBA in the recipe",
        )
    return np.ascontiguousarray(_to_uint8(array))


def frames_sha256(frames: Frames) -> str:
    """Return SHA-256 over the ASCII line `uint8 TxHxWx3\\n`, then the bytes in C order."""
    shape = "x".join(map(str, frames.shape))
    digest = hashlib.sha256(f"uint8 {shape}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def _to_array(value: object) -> npt.NDArray[Any]:
    """Return an array with the channels last, for any nesting of lists, images, arrays and tensors."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Image.Image):
        return _image_to_array(value)
    if isinstance(value, list | tuple):
        return _stack(value)
    if hasattr(value, "detach"):  # a torch tensor; torch itself need not be imported here
        return _tensor_to_array(value)
    raise RenderError(
        f"the recipe returned {type(value).__name__}, which is not frames",
        "return the pipeline's output, or its `.frames` or `.images`, or an array (T, H, W, 3)",
    )


def _image_to_array(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode != "RGB":
        raise RenderError(
            f"the recipe returned a PIL image of mode {image.mode}, size {image.size}; frames are RGB",
            'return `image.convert("RGB")`',
        )
    return np.asarray(image)


def _stack(values: list[Any] | tuple[Any, ...]) -> npt.NDArray[Any]:
    arrays = [_to_array(value) for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) != 1:
        raise RenderError(
            f"the recipe returned {len(arrays)} frames of {len(shapes)} different shapes: {shapes[:3]}",
            "return at least one frame, all of the same size",
        )
    return np.stack(arrays)


def _tensor_to_array(tensor: Any) -> npt.NDArray[Any]:
    """Return the array of a channels-first tensor, as diffusers' pt_to_numpy does."""
    tensor = tensor.detach().cpu()
    if tensor.ndim < 3:
        raise RenderError(
            f"the recipe returned a tensor of shape {tuple(tensor.shape)}, not (T, 3, H, W)",
            "return the decoded frames, not latents",
        )
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(array, -3, -1)


def _to_uint8(array: npt.NDArray[Any]) -> Frames:
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise RenderError(
            f"the recipe returned frames of type {array.dtype}", "return uint8 in 0-255 or floats in [0, 1]"
        )
    scaled = (array * 255).round()  # what diffusers' numpy_to_pil does, in the array's own precision
    low, high = float(scaled.min()), float(scaled.max())
    if np.isnan(low):  # min() and max() pass a NaN on
        raise RenderError("the frames contain NaN", "use dtype bf16 or fp32: fp16 overflows in many models")
    if low < 0 or high > 255:
        raise RenderError(
            f"the frames span {low / 255:.3g} to {high / 255:.3g}, not [0, 1]",
            "scale and clip them in the recipe: `((x + 1) / 2).clip(0, 1)` for frames in [-1, 1]",
        )
    return scaled.astype(np.uint8)
