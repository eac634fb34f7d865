"""Put off what a row's pipeline does last: its decoded tensor becomes an array once somebody looks at it.

Found by the class of diffusers that does it, and not by pipeline; a class that does it in its own way is left
alone, and so are calls for PIL images.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from diffusers.image_processor import VaeImageProcessor
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from framefleet.pipeline.outputs.frames.late_frames import LateFrames

# By method, how many dimensions a tensor has of which one clip or image is made.
_METHODS = {"postprocess": 4, "postprocess_video": 5}


def put_off_postprocessing(pipe: Any, *, original: Any) -> None:
    """Have the processors of `pipe`, a row's own copy of `original`, return LateFrames in place of arrays."""
    shared = set(map(id, vars(original).values()))
    for processor in _processors(pipe):
        for method, num_dimensions in _METHODS.items():
            if id(processor) not in shared and hasattr(processor, method):
                original = getattr(processor, method)
                setattr(processor, method, partial(_late, original, num_dimensions))


def _processors(pipe: Any) -> Iterator[Any]:
    for value in vars(pipe).values():
        kind: Any = type(value)
        is_plain = isinstance(value, VaeImageProcessor) and kind.postprocess is VaeImageProcessor.postprocess
        if is_plain and not _has_own_video(kind):
            yield value


def _has_own_video(kind: Any) -> bool:
    return getattr(kind, "postprocess_video", VideoProcessor.postprocess_video) is not (
        VideoProcessor.postprocess_video
    )


def _late(original: Callable[..., Any], num_dimensions: int, *args: Any, **kwargs: Any) -> Any:
    call = inspect.signature(original).bind(*args, **kwargs)
    call.apply_defaults()
    name = next(iter(call.arguments))
    images = call.arguments[name]
    if call.arguments["output_type"] != "np" or not _is_one(images, num_dimensions):
        return original(*args, **kwargs)

    def postprocess(part: Tensor, output_type: str) -> Any:
        call.arguments |= {name: part, "output_type": output_type}
        return original(*call.args, **call.kwargs)

    return LateFrames(images, postprocess)


def _is_one(images: Any, num_dimensions: int) -> bool:
    """Whether this is one clip or image that can be kept."""
    is_tensor = isinstance(images, Tensor) and images.is_floating_point() and images.numel() > 0
    return is_tensor and images.ndim == num_dimensions and len(images) == 1 and images.shape[1] in (3, 4)
