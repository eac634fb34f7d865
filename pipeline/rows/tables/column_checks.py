"""Check the columns of a table as a whole: their types, their names, and what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from framefleet.pipeline.errors import TableError, names_text
from framefleet.pipeline.guards.mistakes import did_you_mean, nearest
from framefleet.pipeline.model.specs.signature import PLUMBING, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec

# Arguments of diffusers, with their names among people and in other programs: OpenAI, fal, Replicate, Google,
# Kling, A1111, ComfyUI, vllm-omni, SGLang, DiffSynth, and the scripts of models' authors.
_NAMES_ELSEWHERE = {
    "prompt": "text caption positive positive_prompt prompts prompt_text text_prompt input_prompt",
    "negative_prompt": "negative neg_prompt uncond negative_text n_prompt negative_caption",
    "num_inference_steps": "steps num_steps n_steps sampling_steps sample_steps inference_steps infer_steps "
    "denoising_steps diffusion_steps num_sampling_steps sampler_steps ddim_steps",
    "guidance_scale": "cfg cfg_scale scale guidance guide_scale sample_guide_scale guidance_strength "
    "cfg_strength text_guidance_scale embedded_guidance embedded_cfg_scale",
    "guidance_scale_2": "cfg_2 cfg_scale_2 guide_scale_2 low_noise_guidance_scale",
    "num_frames video_length frames": "frames n_frames num_frame frame_num frame_count video_length length "
    "infer_frames total_frames nframes number_of_frames video_frames clip_frames",
    "scheduler": "sampler sampler_name sampler_index sample_solver solver scheduler_name scheduler_type "
    "sampling_method",
    "seed": "random_seed rng_seed noise_seed base_seed seeds rand_seed manual_seed generator_seed",
    "fps": "framerate frame_rate frames_per_second video_fps output_fps export_fps target_fps sample_fps",
    "width": "w image_width video_width target_width",
    "height": "h image_height video_height target_height",
    "size": "image_size video_size frame_size output_size dimensions resolution video_resolution "
    "aspect_ratio aspect ratio megapixels",
    "seconds duration_s audio_length_in_s audio_end_in_s": "seconds duration duration_s duration_seconds "
    "num_seconds video_duration video_seconds clip_duration clip_seconds clip_length length_s length_seconds "
    "audio_length audio_duration seconds_total",
    "n": "num_samples num_images num_videos num_outputs num_clips num_clip num_results n_samples n_iter "
    "batch_size batch_count sample_count number_of_images number_of_videos num_images_per_prompt "
    "num_videos_per_prompt num_outputs_per_prompt samples_per_prompt repeats",
    "image": "init_image init_images input_image image_path image_file image_url img img_path source_image "
    "start_image start_image_url first_image first_frame first_frame_image first_frame_url start_frame "
    "prompt_image conditioning_image input_reference image_or_video_path",
    "last_image": "last_frame last_frame_image last_frame_url end_image end_image_url end_frame tail_image "
    "tail_image_url image_tail final_image final_frame",
    "reference_images image": "reference_image ref_image ref_images src_ref_images reference_image_urls "
    "subject_reference",
    "video": "init_video input_video video_path video_file video_url source_video src_video",
    "control_video video": "control_videos vace_video drive_video",
    "mask_image mask": "inpaint_mask mask_path mask_url src_mask mask_video",
    "control_image": "controlnet_image control_image_url controlnet_conditioning_image hint_image",
    "strength": "denoise denoising_strength denoise_strength image_strength prompt_strength img2img_strength",
    "lora": "loras lora_name lora_path lora_weights lora_scale lora_strength lora_url extra_lora lora_weight",
    "motion_bucket_id": "motion_bucket motion_strength",
    "max_sequence_length": "max_tokens text_length token_length max_text_length",
    "clip_skip": "clip_skips clipskip",
    "flow_shift scheduler": "shift sample_shift sigma_shift timestep_shift time_shift",
    "model": "checkpoint ckpt ckpt_name ckpt_path sd_model_checkpoint base_model model_id model_path",
    "prompts.rewrite": "enable_prompt_expansion use_prompt_extend prompt_optimizer expand_prompt "
    "enhance_prompt prompt_upsampling prompt_extend",
    "media.format": "output_format file_format response_format output_type",
    "media.crf": "quality output_quality video_quality output_compression crf",
    "post": "upscale upscaler upscale_factor hr_scale hr_upscaler enable_hr hires_fix restore_faces "
    "interpolate_frames",
    # Arguments of no model here, or of few.
    "": "mask true_cfg_scale eta guidance_rescale conditioning_scale audio tiling loop go_fast fast_mode "
    "controlnet_conditioning_scale ip_adapter_image pose_video face_video camera_motion camera_fixed "
    "generate_audio style_preset acceleration subseed subseed_strength image_cfg_scale "
    "enable_safety_checker disable_safety_checker sigmas timesteps image_model keyframe_model",
}
_ELSEWHERE = {
    name: tuple(arguments.split()) for arguments, names in _NAMES_ELSEWHERE.items() for name in names.split()
}
_PER_JOB = ("model", "prompts.rewrite", "media.format", "media.crf", "post")  # rows do not have these
# What to write where `columns:` would not help.
_FIXES = {
    **dict.fromkeys(
        ("aspect_ratio", "aspect", "ratio", "megapixels"), "use `size`, e.g. 1280x720, or width and height"
    ),
    **dict.fromkeys(
        ("resolution", "video_resolution"),
        "if it is width x height, rename it to `size`; if it is a name such as 720p, use `size`, e.g. "
        "1280x720",
    ),
    **dict.fromkeys(
        ("shift", "sample_shift", "sigma_shift", "timestep_shift", "time_shift"),
        "write it as a setting of the row's `scheduler`, e.g. unipc(flow_shift=5)",
    ),
    "batch_size": "for several clips of a row, use `n`; `batching.max_rows` is how many are rendered at once",
    "n": "for several seeds, write `seed: 0-3`",
}
# Arguments of many pipelines, and those that only others have: a warning lists these columns.
_COMMON = {name for names in _NAMES_ELSEWHERE for name in names.split() if name not in _PER_JOB}
_OTHERS = _COMMON | {name for name, arguments in _ELSEWHERE.items() if not arguments}
_TEXTS = ("prompt", "negative_prompt")  # tables often have other texts too, which mean something else
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
    "references": "lists of media, e.g. [{'image': 'a.png'}], or the same as JSON text",
    "ints": "whole numbers, or lists of them",
    "floats": "numbers, or lists of them",
    "model": "names of declared models, as text",
}
CLIP = "path"  # of the clip, relative to its output
_COLUMNS = {"row_id", "stars", CLIP}


def check_type(field: pa.Field, target: str, kind: ArgumentKind) -> None:
    """Raise TableError if no cell of the column can be what the argument takes."""
    stored = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    text = pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_string_view(stored)
    number = pa.types.is_integer(stored) or pa.types.is_floating(stored) or pa.types.is_decimal(stored)
    fits = {
        "bool": pa.types.is_boolean(stored),
        "references": pa.types.is_list(stored) and pa.types.is_struct(stored.value_type),
        "video": pa.types.is_struct(stored),  # a file, and a part of it
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
    """Raise TableError for a column that names an argument which no table can have."""
    for name in carried:
        parameter = spec.parameters.get(name)
        if parameter is not None and parameter.kind is None:
            problem = f"column {name!r} is an argument that cannot come from a table"
            raise TableError(problem, plumbing_fix(name))


def check_ends(names: Sequence[str], videos: Mapping[str, str | None], *, ends: Sequence[str]) -> None:
    """Raise for a column that says where a part of a video begins or ends, and is next to none.

    videos: by argument, the column that is read; None: there is none.
    """
    for argument, column in videos.items():
        for end in ends:
            if (name := f"{argument}{end}") in names and column != argument:
                fix = f"call it {column + end!r}" if column else f"name the video in a column {argument!r}"
                raise TableError(f"column {name!r} is about a column {argument!r}, which is not read", fix)


def plumbing_fix(name: str) -> str:
    if name == "ip_adapter_image":
        return (
            "declare the adapter: `model: {ip_adapter: {path: ..., weights: ..., image_encoder: ...}}`; "
            "or leave the column out, or rename it to carry it"
        )
    if name == "generator":
        return "use a `seed` column; rename this one to carry it"
    if "_per_prompt" in name:
        return "repeat the row with other seeds; rename this one to carry it"
    if PLUMBING.fullmatch(name):
        return "framefleet sets it for every row; leave it out, or rename it to carry it"
    return "it takes tensors, nested lists or mappings: let a recipe make them, or rename it to carry it"


def check_required(
    required: Collection[str], read: Collection[str], base: Collection[str], *, columns: Sequence[str]
) -> None:
    """Raise TableError for a required argument that no row has. columns: all of the table's."""
    for name in required:
        if name not in read and name not in base:
            meant = next((column for column in columns if _meant(column, [name])), "...")
            raise TableError(
                f"the rows have no {name!r}, and the job has no default for it; their columns are "
                f"{names_text(columns) or 'none'}",
                f"add the column, map it with `columns: {{{name}: {_spelled(meant)}}}`, "
                f"or set `defaults: {{{name}: ...}}` or, for one or more, `sweep: {{{name}: [...]}}`",
            )


def as_argument(column: str, argument: str) -> str:
    """Return the fix for a column that was meant as an argument, or as a key of the job."""
    if fix := _FIXES.get(_plain(column)):
        return fix
    if argument in _PER_JOB:
        return f"if it is meant as `{argument}`, set that in the job, for all rows"
    return f"if it is {argument}, write `columns: {{{argument}: {_spelled(column)}}}`"


def of_others(
    carried: Iterable[str], read: Mapping[str, str], arguments: Collection[str], classes: str
) -> Iterator[tuple[str, str]]:
    """Yield carried columns that look like arguments, each with the reason why it is not read.

    The argument is read from another column, or only other pipelines have it. read: the columns by argument.
    arguments: of the pipelines in use. classes: their names.
    """
    for name in carried:
        plain = _plain(name)
        names = (plain, *_ELSEWHERE.get(plain, ()))
        if column := next((read[each] for each in names if each in read and each not in _TEXTS), None):
            if column != name:
                yield name, f"the column {column!r} is read instead"
        elif not _OTHERS.isdisjoint(names) and {*names}.isdisjoint(arguments):
            yield name, f"{classes} takes no {names[1] if len(names) > 1 else name}"


def _spelled(column: str) -> str:
    """Return a column's name as YAML."""
    return column if column.isidentifier() or column == "..." else json.dumps(column, ensure_ascii=False)


def lookalikes(carried: Iterable[str], unused: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return carried columns, each with the argument whose name is similar or means the same."""
    near = ((name, _meant(name, unused)) for name in carried)
    return tuple((name, argument) for name, argument in near if argument)


def argument_meant(name: str, known: Collection[str]) -> str:
    """Return the fix for a name that is not an argument; names from other programs are known."""
    if fix := _FIXES.get(_plain(name)):
        return fix
    meant = _meant(name, known)
    if not meant and (elsewhere := _ELSEWHERE.get(_plain(name))):
        return f"it is called {elsewhere[0]} here, which the model does not take"
    return f"did you mean {meant!r}?" if meant else did_you_mean(name, known)


def common_argument(name: str, cutoff: float = _ALIKE) -> str | None:
    """Return the argument that a name stands for, if many pipelines have it. cutoff: see `nearest`."""
    argument = _meant(name, _COMMON, cutoff)
    has_own_fix = _plain(name) in _FIXES and argument != name
    return None if argument in _PER_JOB or has_own_fix else argument


def _meant(name: str, unused: Collection[str], cutoff: float = _ALIKE) -> str | None:
    plain = _plain(name)
    for argument in (plain, *_ELSEWHERE.get(plain, ())):
        if argument in unused or (argument in _PER_JOB and argument != plain):
            return argument
    if swapped := next((name for name in unused if sorted(name) == sorted(plain)), None):  # e.g. hieght
        return swapped
    near = nearest(plain, unused, cutoff=cutoff)
    return near[0] if near else None


def _plain(name: str) -> str:
    """Return a name in snake case: `durationSeconds` and "Duration seconds" become duration_seconds."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", name.strip()).lower()


def is_picks(columns: Collection[str]) -> bool:
    """Return whether a table is a picks.jsonl. A render ignores its columns from the clips' records."""
    return set(columns) >= _COLUMNS
