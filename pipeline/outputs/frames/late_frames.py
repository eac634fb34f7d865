"""In: a call of diffusers' postprocessing. Out: what stands for the array that it will return.

Whoever looks at it gets that array, at that moment. Where nobody does before the clip is kept, its pixels are
rounded to uint8 from the decoder's tensor: on a GPU there, and copied in parallel with what comes next; else
by whatever thread asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

# Made at once: 5 MB each at 480p, so that what passes between the operations stays in the cache.
_NUM_FRAMES = 4

Postprocess = Callable[[Any, str], Any]  # called as call(images, output_type), as `postprocess` is


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
