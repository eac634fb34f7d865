"""Give a clip and its input pictures the same proportions.

When a row is checked, its size may follow its picture. When it is rendered, its pictures are cropped or get
bars; the pipeline resizes them, as always.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from PIL.Image import Image

from framefleet.pipeline.errors import InputError, Refused, count_text
from framefleet.pipeline.model.specs.check import check_argument
from framefleet.pipeline.model.specs.model_index import has_controlnets
from framefleet.pipeline.model.specs.signature import INPUTS, Fit
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.request import each_input, inputs_in, is_input
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.roots import MAX_FRAME_PIXELS, MAX_IMAGE_PIXELS, MAX_PIXELS
from framefleet.pipeline.rows.tables.limits import limits

SIZES = ("height", "width", "resolution", "aspect_ratio")  # the arguments that give a row a size
# A key of inputs while their row is checked: (height, width). Checked rows omit it: the SHA-256 decides it.
SIZE = "size"
# A mask covers the first of these pictures that the row has, and is cropped the same way.
_MASKS = {
    "mask": ("video", "image"),
    "mask_image": ("image",),
    "mask_video": ("video", "background_video"),
    "control_mask": ("control_image",),
}
# Not the faces of Wan-Animate: the pipeline crops them itself.
_NAMES = (INPUTS.keys() - {"face_video"}) | _MASKS.keys() | {"cond_image"}
_VISIBLE = 1.05  # proportions count as different from this ratio on
_DONE: dict[Fit, str] = {
    "crop": "they are cropped in the middle",
    "pad": "they get black bars",
    "stretch": "they are passed on unchanged, and most pipelines stretch them",
    "area": "their rows get the picture's proportions, and about as many pixels",
}
_Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How the pictures of some rows were fitted."""

    fit: Fit
    num_pictures: int  # without masks
    num_different: int  # pictures whose proportions differ from the size by more than 5 %

    def __add__(self, other: Fitted) -> Fitted:
        return Fitted(
            fit=self.fit,
            num_pictures=self.num_pictures + other.num_pictures,
            num_different=self.num_different + other.num_different,
        )

    def __str__(self) -> str:
        differ = f"{self.num_different:,} of {count_text(self.num_pictures, 'picture')} differ"
        return f"{differ} from the size in proportions, by more than 5 %: {_DONE[self.fit]}"


def fitting_names(spec: PipelineSpec) -> tuple[str, ...]:
    """Return the arguments whose pictures a pipeline resizes to its height and width, masks last."""
    settable = spec.settable()
    if not {"height", "width"} <= settable.keys():
        return ()
    kinds = ("image", "video", "images")
    names = (name for name, parameter in settable.items() if name in _NAMES and parameter.kind in kinds)
    return tuple(sorted(names, key=lambda name: name in _MASKS))


def fit_row(
    arguments: dict[str, Any], names: Sequence[str], spec: PipelineSpec, *, fit: Fit | None, is_sized: bool
) -> tuple[dict[str, Any], Fitted | None, list[tuple[str, Refused]]]:
    """Return the arguments with the fit of each picture and the resulting size, and the problems.

    names: see `fitting_names`. fit: None is `area` for a row without a size, and `crop` for others. is_sized:
    whether the row or its job sets a size.
    """
    pictures = {name: inputs_in(arguments[name]) for name in names if _is_fitted(name, arguments, spec)}
    height, width = arguments.get("height"), arguments.get("width")
    if not pictures or height is None or width is None:  # the pipeline takes the picture's own size
        return arguments, None, []
    first, (start, *_) = next(iter(pictures.items()))
    # Models that take several pictures, to edit or refer to, use each in its own proportions.
    is_reference = spec.parameters[first].kind == "images" and not _is_control(first, spec)
    done: Fit = fit or ("area" if not is_sized else "stretch" if is_reference else "crop")
    shown = [one for name, parts in pictures.items() if name not in _MASKS for one in parts]
    num_different = sum(_is_different(one[SIZE], (height, width)) for one in shown)
    if done == "area":
        height, width = area_size(height * width, start[SIZE], multiple=spec.size_multiple)
        sized = {**arguments, "height": height, "width": width}
        if why := _refused(sized, spec):
            if fit:
                reason = f"its clip would have {height} x {width} (height x width): {why.reason}"
                return arguments, None, [(first, Refused(reason=reason, fix="set `inputs.fit` to crop"))]
            done = "crop"
        else:
            arguments = sized
    fitted = Fitted(fit=done, num_pictures=len(shown), num_different=num_different)
    if done == "stretch":
        return arguments, fitted, []
    problems = []
    for name, parts in pictures.items():
        over = next((pictures[one][0][SIZE] for one in _MASKS.get(name, ()) if one in pictures), None)
        for one in parts:
            try:
                _box(one[SIZE], arguments, done, over=over, num_frames=one.get("num_frames", 1))
            except InputError as error:
                problems.append((name, Refused(reason=error.problem, fix=error.fix)))
    marked = {name: each_input(arguments[name], lambda one: {**one, "fit": done}) for name in pictures}
    return arguments | marked, fitted, problems


def _refused(sized: Mapping[str, Any], spec: PipelineSpec) -> Refused | None:
    """Return why a model cannot render a size; its sides are already multiples."""
    sides = (check_argument(name, sized[name], "int", spec) for name in ("height", "width"))
    problems = (*sides, *(why for name, why in limits(spec, sized) if name in SIZES))
    return next((why for why in problems if isinstance(why, Refused)), None)


def without_size(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input without its size, which checked rows omit."""
    return {key: inner for key, inner in value.items() if key != SIZE}


def area_size(num_pixels: int, size: _Size, *, multiple: int) -> _Size:
    """Return a size with about `num_pixels` and the proportions of `size`; both sides are multiples."""
    scale = math.sqrt(num_pixels / math.prod(size))
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return height, width


def fit_opened(arguments: Mapping[str, Any], opened: dict[str, Any]) -> None:
    """Crop a row's opened pictures and videos, or add bars, as the row says.

    Raises InputError for values that a checked row cannot have.
    """
    sizes = {
        name: _size_of(opened[name])
        for name, value in arguments.items()
        if any(map(_says_fit, inputs_in(value)))
    }
    for name, value in arguments.items():
        over = next((sizes[below] for below in _MASKS.get(name, ()) if below in sizes), None)
        if isinstance(value, list):
            for at, part in enumerate(value):
                opened[name][at] = _fitted(opened[name][at], name, part, arguments, over)
        else:
            opened[name] = _fitted(opened[name], name, value, arguments, over)


def _fitted(opened: Any, name: str, value: Any, arguments: Mapping[str, Any], over: _Size | None) -> Any:
    if not is_input(value) or not _says_fit(value):
        return opened
    with naming(name, value["uri"]):
        frames: list[Image] = opened if isinstance(opened, list) else [opened]
        box = _box(_size_of(frames), arguments, value["fit"], over=over, num_frames=len(frames))
        for at, frame in enumerate(frames):  # one by one, because a copy of all takes gigabytes
            if box != (0, 0, *frame.size):
                frames[at] = frame.crop(box)
    return frames if isinstance(opened, list) else frames[0]


def _says_fit(value: Mapping[str, Any]) -> bool:
    return "fit" in value and "kind" not in value  # references are not fitted


def _box(
    size: _Size, arguments: Mapping[str, Any], fit: Fit, *, over: _Size | None, num_frames: int
) -> tuple[int, int, int, int]:
    """Return the (left, top, right, bottom) to crop a picture to; where it is larger, black bars are added.

    over: for a mask, the size of the picture that it covers: both get the same box. Raises InputError.
    """
    sides: list[Any] = [arguments.get(name) for name in ("height", "width")]
    if fit not in get_args(Fit) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError("the row does not say how it fits", "put the record back as it was")
    if fit == "stretch":
        return 0, 0, size[1], size[0]
    (height, width), (rows, columns) = sides, over or size
    limit = max if fit == "pad" else min
    tall = limit(rows, max(1, round(columns * height / width)))
    wide = limit(columns, max(1, round(rows * width / height)))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    down, across = size[0] / rows, size[1] / columns
    at, beneath = round(left * across), round(top * down)
    width, height = max(1, round(wide * across)), max(1, round(tall * down))
    most = MAX_IMAGE_PIXELS if num_frames == 1 else min(MAX_FRAME_PIXELS, MAX_PIXELS // num_frames)
    if width * height > most:
        problem = f"with bars it is {height} x {width} (height x width), which is too large"
        raise InputError(problem, "set `inputs.fit` to crop")
    return at, beneath, at + width, beneath + height


def _is_fitted(name: str, arguments: Mapping[str, Any], spec: PipelineSpec) -> bool:
    value = arguments.get(name)
    return bool(inputs_in(value)) and (not isinstance(value, list) or _is_control(name, spec))


def _is_control(name: str, spec: PipelineSpec) -> bool:
    return name == "control_image" or has_controlnets(spec.configs)


def _is_different(size: _Size, other: _Size) -> bool:
    ratio = size[0] * other[1] / (size[1] * other[0])
    return max(ratio, 1 / ratio) > _VISIBLE


def _size_of(opened: Any) -> _Size:
    """Return the size of a picture, or of the first of several."""
    picture: Image = opened[0] if isinstance(opened, list) else opened
    return picture.height, picture.width
