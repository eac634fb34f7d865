"""In: frames as a recipe returns them. Out: uint8 frames and their digest, made while others render.

One thread of the process does it, in the order of the clips: floats, four times as large, do not pile up.
LateFrames stand for the array that a call of diffusers' postprocessing will return. Whoever looks at it gets
that array, at that moment. Where nobody does before the clip is kept, its pixels are rounded to uint8 from
the decoder's tensor: on a GPU there, and copied in parallel with what comes next; else by whatever thread
asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, partial
from typing import Any, Self, TypeGuard

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.outputs.frames.frames import Pictures, frames_sha256, to_pictures

# Made at once: 5 MB each at 480p, so that what passes between the operations stays in the cache.
_NUM_FRAMES = 4

Postprocess = Callable[[Any, str], Any]  # called as call(images, output_type), as `postprocess` is


class Pixels:
    """The frames of one clip, perhaps on their way."""

    def __init__(self, frames: Future[Pictures]) -> None:
        self._frames = frames

    @classmethod
    def of(cls, frames: Pictures) -> Self:
        """Return those of frames that are there."""
        made: Future[Pictures] = Future()
        made.set_result(frames)
        return cls(made)

    @property
    def frames(self) -> Pictures:
        """Wait for them. Raises what `to_pictures` does."""
        return self._frames.result()

    @cached_property
    def sha256(self) -> str:
        """Their digest, as `frames_sha256` has it; computed by who asks first."""
        return frames_sha256(self.frames)


def to_pixels(value: object, *, are_images: bool = False) -> Pixels:
    """Return the frames that `value` holds, as `to_pictures` does, but LateFrames later.

    Raises RenderError at once for all else that cannot be kept.
    """
    if not is_late(value):
        return Pixels.of(to_pictures(value, are_images=are_images))
    make = _launched(value) if value.is_on_gpu else partial(_rounded, value)
    return Pixels(_thread(os.getpid()).submit(make))


@cache
def _thread(pid: int) -> ThreadPoolExecutor:
    """Return the process's own: a fork has what its parent had, but not the thread that does the work."""
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
    """Start on the GPU without waiting for it; return what waits.

    The arithmetic has its place among the renderer's own work, as decoders may use their memory again; the
    copy runs in parallel with what comes after.
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
    """Return floats (t, C, H, W) as uint8 (t, H, W, C), rounded as diffusers does, and whether it could be.

    diffusers multiplies and rounds in NumPy, in float32; so does this, wherever the tensor is.
    """
    import torch

    scaled = (part.float() * 255).round()
    low, high = scaled.aminmax()  # of a NaN both are NaN
    pixels = scaled.to(torch.uint8).permute(0, 2, 3, 1)
    return pixels, (low >= 0) & (high <= 255)


class LateFrames(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of floats, channels last, that is computed when code looks at it.

    Passes for an ndarray wherever Python asks; C code that takes nothing but the very type refuses it.
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
    """Tell whether a value is LateFrames at which no code has looked."""
    return type(value) is LateFrames and not value.is_seen


def _seen(value: Any) -> Any:
    """Return `value` with arrays in place of what stands for them."""
    if type(value) is LateFrames:
        return value.array()
    if isinstance(value, list | tuple):
        return type(value)(map(_seen, value))
    return {key: _seen(one) for key, one in value.items()} if isinstance(value, dict) else value
