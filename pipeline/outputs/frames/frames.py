"""In: frames in a pipeline's output, in any form. Out: an array (T, H, W, channels), and its digest.

LateFrames stand for the array that a call of diffusers' postprocessing will return. Code that looks at them
gets that array. If no code does so before the clip is stored, one thread of the process rounds the decoder's
tensor to uint8, in the order of the clips: if it is on a GPU, there, and copied in parallel with other work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, partial
from typing import Any, Self, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.fields import IMAGES, PICTURES

Frames: TypeAlias = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB, C-contiguous
# Frames, or (T, H, W, 4) with alpha; float32 where values lie outside [0, 1]. T may count layers.
Pictures: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def plain_frames(pictures: Pictures) -> Frames:
    """Return pictures as scores take them, (T, H, W, 3) uint8, read-only: alpha lies over black."""
    whole = eight_bits(pictures)
    colours = whole[..., :3]
    if whole.shape[-1] == 4:
        colours = (colours.astype(np.uint16) * whole[..., 3:] // 255).astype(np.uint8)
    frames: Frames = np.ascontiguousarray(colours)
    frames.flags.writeable = False
    return frames


def eight_bits(pictures: Pictures) -> npt.NDArray[np.uint8]:
    """Return pictures as uint8; floats are cut to [0, 1]."""
    if pictures.dtype != np.uint8:
        pictures = (np.nan_to_num(pictures).clip(0, 1) * 255).round()
    return pictures.astype(np.uint8, copy=False)


def to_frames(output: object) -> Frames:
    """Return the one clip in `output` as uint8 RGB (T, H, W, 3), as `to_pictures` does.

    output: of a diffusers pipeline, or the frames themselves. Raises RenderError for frames with alpha and
    for values outside [0, 1].
    """
    name = next((name for name in PICTURES if getattr(output, name, None) is not None), None)
    pictures = to_pictures(getattr(output, name) if name else output, are_images=name in IMAGES)
    if pictures.shape[-1] == 4:
        problem = f"the recipe cannot continue from frames with alpha, shape {pictures.shape}"
        raise RenderError(problem, "use the recipe generate")
    if pictures.dtype != np.uint8:
        raise beyond_range(pictures)
    return pictures.astype(np.uint8, copy=False)


def to_pictures(value: object, *, are_images: bool = False) -> Pictures:
    """Return the one clip that `value` holds, C-contiguous; uint8, rounded as diffusers does.

    value: PIL images, NumPy arrays (T, H, W, C) or (H, W, C), torch tensors (T, C, H, W) or (C, H, W), or
    lists of these; 3 or 4 channels, uint8 or floats. Leading dimensions of size 1 are dropped. Floats outside
    [0, 1] stay as they are, as float32. are_images: several of them are a batch, unless they are layers of
    one. Raises RenderError for anything else.
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
        problem = f"the recipe returned frames of shape {array.shape}, not (T, H, W, 3) or (T, H, W, 4)"
        raise RenderError(problem, "return RGB or RGBA frames: convert grayscale in the recipe")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        problem = f"the recipe returned frames of type {array.dtype}"
        raise RenderError(problem, "return uint8 in 0-255 or floats in [0, 1]")
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
    """Return SHA-256 over the ASCII line `uint8 TxHxWx3\\n` (dtype and shape), then the bytes in C order."""
    shape = "x".join(map(str, frames.shape))
    digest = hashlib.sha256(f"{frames.dtype} {shape}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def frames_format(frames: Pictures) -> str:
    """Return channels and dtype, as records name them: "rgb uint8", "rgba float32"."""
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
        arrays = [_to_array(part) for part in value]
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
            problem = f"the recipe returned a tensor of shape {tuple(tensor.shape)}, not (T, 3, H, W)"
            raise RenderError(problem, "return the decoded frames, not latents")
        # As diffusers' pt_to_numpy does.
        return np.moveaxis((tensor.float() if tensor.is_floating_point() else tensor).numpy(), -3, -1)
    fix = "return the pipeline's output, or its `.frames` or `.images`, or an array (T, H, W, 3)"
    raise RenderError(f"the recipe returned {type(value).__name__}, which is not frames", fix)


def beyond_range(frames: Pictures) -> RenderError:
    """Return the error for values outside [0, 1] that a format or a recipe cannot take."""
    return RenderError(
        f"the frames span {frames.min():.3g} to {frames.max():.3g}, not [0, 1]",
        "set media.format to exr.zip to keep them as they are; or scale and clip them in the recipe: "
        "`((x + 1) / 2).clip(0, 1)` for frames in [-1, 1]",
    )


# Made at once: 5 MB each at 480p, so that what passes between the operations stays in the cache.
_NUM_FRAMES = 4

Postprocess = Callable[[Any, str], Any]  # called as call(images, output_type), as `postprocess` is


class Pixels:
    """The frames of one clip, perhaps still being made."""

    def __init__(self, frames: Future[Pictures]) -> None:
        self._frames = frames

    @classmethod
    def of(cls, frames: Pictures) -> Self:
        """Return the pixels of frames that exist already."""
        made: Future[Pictures] = Future()
        made.set_result(frames)
        return cls(made)

    @property
    def frames(self) -> Pictures:
        """Wait for them. Raises what `to_pictures` does."""
        return self._frames.result()

    @cached_property
    def sha256(self) -> str:
        """Their digest, as `frames_sha256` returns it; computed when first used."""
        return frames_sha256(self.frames)


def to_pixels(value: object, *, are_images: bool = False) -> Pixels:
    """Return the frames in `value`, as `to_pictures` does: LateFrames in the background, others at once."""
    if not is_late(value):
        return Pixels.of(to_pictures(value, are_images=are_images))
    make = _launched(value) if value.is_on_gpu else partial(_rounded, value)
    return Pixels(_thread(os.getpid()).submit(make))


@cache
def _thread(pid: int) -> ThreadPoolExecutor:
    """Return the pool of this process: a fork inherits its parent's, but without the thread."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="pixels")


def _rounded(late: LateFrames) -> Pictures:
    frames = np.empty(late.size, np.uint8)
    at = 0
    for part in late.parts():
        pixels, are_in_range = _to_uint8(part)
        if not are_in_range:
            return to_pictures(late.array())
        frames[at : at + len(pixels)] = pixels.cpu().numpy()
        at += len(pixels)
    return frames


def _launched(late: LateFrames) -> Callable[[], Pictures]:
    """Start the rounding on the GPU; return a function that waits for it.

    The arithmetic is queued with the renderer's own work, as decoders may reuse their memory; the copy runs
    in parallel with what comes after.
    """
    import torch

    pixels, in_range = zip(*map(_to_uint8, late.parts()), strict=True)
    made = torch.cat([*(part.flatten() for part in pixels), torch.stack(in_range).all()[None].byte()])
    copying = _copying(made.device)
    copying.wait_stream(torch.cuda.current_stream(made.device))
    with torch.cuda.stream(copying):
        host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        host.copy_(made, non_blocking=True)
        done = copying.record_event()
    made.record_stream(copying)  # its memory is not given to others before

    def wait() -> Pictures:
        done.synchronize()
        if not host[-1]:
            return to_pictures(late.array())
        return host[:-1].numpy().reshape(late.size).copy()  # pinned memory is for the next clip

    return wait


@cache
def _copying(device: Any) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _to_uint8(part: Any) -> tuple[Any, Any]:
    """Return floats (t, C, H, W) as uint8 (t, H, W, C), rounded as diffusers does, and whether all fit.

    diffusers multiplies and rounds in NumPy, in float32; so does this, wherever the tensor is.
    """
    import torch

    scaled = (part.float() * 255).round()
    low, high = scaled.aminmax()  # of a NaN both are NaN
    pixels = scaled.to(torch.uint8).permute(0, 2, 3, 1)
    return pixels, (low >= 0) & (high <= 255)


class LateFrames(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of floats, channels last, that is computed when code looks at it.

    It passes for an ndarray wherever Python asks; C code that only takes the exact type refuses it.
    """

    def __init__(self, images: Any, call: Postprocess) -> None:
        """images: the tensor to postprocess, of one clip (1, C, T, H, W) or one image (1, C, H, W)."""
        self._images, self._call = images, call
        self._array: npt.NDArray[Any] | None = None

    @property
    def is_seen(self) -> bool:
        """Whether code looked at the array: it may have changed it."""
        return self._array is not None

    @property
    def is_on_gpu(self) -> bool:
        return bool(self._images.is_cuda)

    @property
    def size(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels."""
        _, channels, *num_frames, height, width = self._images.shape
        return num_frames[0] if num_frames else 1, height, width, channels

    def array(self) -> npt.NDArray[Any]:
        """Return what the call returns for "np"."""
        if self._array is None:
            self._array = self._call(self._images, "np")
        return self._array

    def parts(self) -> Iterator[Any]:
        """Yield it as tensors (t, C, H, W) of the decoder's device and dtype, some frames at a time."""
        if self._images.ndim == 4:
            yield self._call(self._images, "pt")
            return
        for first in range(0, self._images.shape[2], _NUM_FRAMES):
            yield self._call(self._images[:, :, first : first + _NUM_FRAMES], "pt")[0]

    @property  # type: ignore[misc]  # object's can be set
    def __class__(self) -> Any:  # what isinstance asks for
        return np.ndarray

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array(), name)

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]:
        return np.array(self.array(), *args, **{"copy": None, **kwargs})

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*_seen(inputs), **_seen(kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_seen(args), **_seen(kwargs))

    def __getitem__(self, key: Any) -> Any:
        return self.array()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.array()[key] = value

    def __len__(self) -> int:
        return len(self.array())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array())

    def __bool__(self) -> bool:
        return bool(self.array())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.array().__reduce_ex__(protocol)


def is_late(value: object) -> TypeGuard[LateFrames]:
    """Return whether a value is LateFrames at which no code has looked."""
    return type(value) is LateFrames and not value.is_seen


def _seen(value: Any) -> Any:
    """Return `value` with arrays in place of LateFrames."""
    if type(value) is LateFrames:
        return value.array()
    if isinstance(value, list | tuple):
        return type(value)(map(_seen, value))
    return {key: _seen(part) for key, part in value.items()} if isinstance(value, dict) else value
