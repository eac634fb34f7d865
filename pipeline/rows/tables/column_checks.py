"""What is wrong with the columns of a table as a whole: types, names, what is missing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa

from framefleet.pipeline.errors import TableError, names_text
from framefleet.pipeline.guards.mistakes import did_you_mean, nearest
from framefleet.pipeline.model.specs.signature import PLUMBING, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec

# What other programs and people call the arguments of diffusers.
_ELSEWHERE = {
    **dict.fromkeys(("text", "caption", "positive", "positive_prompt", "prompts"), "prompt"),
    **dict.fromkeys(("negative", "neg_prompt", "uncond", "negative_text"), "negative_prompt"),
    **dict.fromkeys(
        ("steps", "num_steps", "n_steps", "sampling_steps", "sample_steps", "inference_steps"),
        "num_inference_steps",
    ),
    **dict.fromkeys(("cfg", "cfg_scale", "scale", "guidance", "guide_scale"), "guidance_scale"),
    **dict.fromkeys(("frames", "n_frames", "frame_num", "video_length", "length"), "num_frames"),
    **dict.fromkeys(("sampler", "sampler_name", "sample_solver", "scheduler_name"), "scheduler"),
    **dict.fromkeys(("random_seed", "rng_seed", "noise_seed", "base_seed"), "seed"),
    **dict.fromkeys(("framerate", "frame_rate", "frames_per_second"), "fps"),
    **dict.fromkeys(("w", "image_width", "video_width"), "width"),
    **dict.fromkeys(("h", "image_height", "video_height"), "height"),
    **dict.fromkeys(("init_image", "input_image", "image_path", "first_frame"), "image"),
    **dict.fromkeys(("init_video", "input_video", "video_path"), "video"),
}
_OTHERS = {*_ELSEWHERE.values(), "control_image", "last_image", "mask", "mask_image", "strength"}
_ALIKE = 0.85  # see `nearest`
_WORDS: dict[ArgumentKind, str] = {
    "str": "text",
    "bool": "true or false",
    "int": "whole numbers",
    "float": "numbers",
    "list[int]": "lists of whole numbers",
    "list[float]": "lists of numbers",
    "list[str]": "lists of text",
    "image": "paths or URLs of images, as text",
    "video": "paths or URLs of videos, as text, or {file, from, to}",
    "images": "paths or URLs of images, as text or lists of text",
    "list[image]": "lists of paths or URLs of images",
    "references": "lists of media, as [{'image': 'a.png'}], or JSON text of such",
    "ints": "whole numbers, or lists of them",
    "floats": "numbers, or lists of them",
    "model": "names of declared models, as text",
}
CLIP = "path"  # of the clip, relative to its output
_COLUMNS = {"row_id", "stars", CLIP}


def check_type(field: pa.Field, target: str, kind: ArgumentKind) -> None:
    """Raise when no cell of the column can ever be what the argument takes."""
    stored = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    text = pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_string_view(stored)
    number = pa.types.is_integer(stored) or pa.types.is_floating(stored) or pa.types.is_decimal(stored)
    fits = {
        "bool": pa.types.is_boolean(stored),
        "references": pa.types.is_list(stored) and pa.types.is_struct(stored.value_type),
        "video": pa.types.is_struct(stored),  # of a file and a part of it
        **dict.fromkeys(("int", "float"), number),
        **dict.fromkeys(("list[int]", "list[float]"), _is_list(stored, number=True)),
        **dict.fromkeys(("list[str]", "images", "list[image]"), _is_list(stored, number=False)),
        **dict.fromkeys(("ints", "floats"), number or _is_list(stored, number=True)),
    }
    if not (text or fits.get(kind) or pa.types.is_null(stored)):
        words = _WORDS[kind]
        problem = f"column {field.name!r} holds {field.type}, but {target} takes {words}"
        raise TableError(problem, f"write the column as {words}, or rename it if it means something else")


def _is_list(stored: pa.DataType, *, number: bool) -> bool:
    if not (
        pa.types.is_list(stored) or pa.types.is_large_list(stored) or pa.types.is_fixed_size_list(stored)
    ):
        return False
    part = stored.value_type
    is_number = pa.types.is_integer(part) or pa.types.is_floating(part) or pa.types.is_decimal(part)
    return bool(is_number if number else not is_number and not pa.types.is_nested(part))


def check_carried(carried: Iterable[str], spec: PipelineSpec) -> None:
    """Raise for a column that would be an argument if a table could give it."""
    for name in carried:
        parameter = spec.parameters.get(name)
        if parameter is not None and parameter.kind is None:
            raise TableError(f"column {name!r} is an argument that a table cannot give", plumbing_fix(name))


def plumbing_fix(name: str) -> str:
    if name == "ip_adapter_image":
        return (
            "declare the adapter: `model: {ip_adapter: {path: ..., weights: ..., image_encoder: ...}}`; "
            "or leave the column out, or rename it to carry it"
        )
    if name == "generator":
        return "give a `seed` column; rename this one to carry it"
    if "_per_prompt" in name:
        return "repeat the row with other seeds; rename this one to carry it"
    if PLUMBING.fullmatch(name):
        return "framefleet sets it for every row; leave it out, or rename it to carry it"
    return "it takes tensors, nested lists or mappings: let a recipe make them, or rename it to carry it"


def check_required(
    required: Collection[str], read: Collection[str], base: Collection[str], *, columns: Sequence[str]
) -> None:
    """Raise for an argument that no row has. columns: all of the table's."""
    for name in required:
        if name not in read and name not in base:
            meant = next((column for column in columns if _meant(column, [name])), "...")
            raise TableError(
                f"the rows have no {name!r}, and the job no default for it; their columns are "
                f"{names_text(columns) or 'none'}",
                f"add the column, map it with `columns: {{{name}: {_spelled(meant)}}}`, "
                f"or set `defaults: {{{name}: ...}}` or, for one or more, `sweep: {{{name}: [...]}}`",
            )


def as_argument(column: str, argument: str) -> str:
    return f"if it is {argument}, write `columns: {{{argument}: {_spelled(column)}}}`"


def of_others(carried: Iterable[str], specs: Collection[PipelineSpec]) -> list[str]:
    """Return carried columns that are arguments of other pipelines, and of these under no name."""
    arguments = {name for spec in specs for name in spec.parameters}
    return [name for name in carried if name in _OTHERS and name not in arguments]


def _spelled(column: str) -> str:
    """Return a column's name as YAML has it."""
    return column if column.isidentifier() or column == "..." else json.dumps(column, ensure_ascii=False)


def lookalikes(carried: Iterable[str], unused: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return carried columns whose names are nearly those of arguments, or what others call these."""
    near = ((name, _meant(name, unused)) for name in carried)
    return tuple((name, argument) for name, argument in near if argument)


def argument_meant(name: str, known: Collection[str]) -> str:
    """Return the fix of an error that tells of a name no argument has: also of what others call them."""
    meant = _meant(name, known)
    return f"did you mean {meant!r}?" if meant else did_you_mean(name, known)


def common_argument(name: str, cutoff: float = _ALIKE) -> str | None:
    """Return the argument of diffusers that a name stands for, if it is one of many pipelines.

    cutoff: as of `nearest`.
    """
    return _meant(name, _OTHERS, cutoff)


def _meant(name: str, unused: Collection[str], cutoff: float = _ALIKE) -> str | None:
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    if plain in unused or _ELSEWHERE.get(plain) in unused:
        return plain if plain in unused else _ELSEWHERE[plain]
    if swapped := next((name for name in unused if sorted(name) == sorted(plain)), None):  # as hieght
        return swapped
    near = nearest(plain, unused, cutoff=cutoff)
    return near[0] if near else None


def is_picks(columns: Collection[str]) -> bool:
    """Tell whether a table is a picks.jsonl. What it says of the clips' records is left out by a render."""
    return set(columns) >= _COLUMNS
