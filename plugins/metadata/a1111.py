"""Read text in the format of AUTOMATIC1111's web UI, which Forge, SD.Next and framefleet also write.

It has a prompt of any number of lines, a negative prompt that starts with its name, and one line of fields.
Values with a comma, a colon or a new line are quoted as in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from framefleet.api.texts import parse_object
from framefleet.pipeline.outputs.embedded_text import FIELD, NEGATIVE
from framefleet.plugins.metadata.cells import Told, Unreadable, told

_FIELD_OF_LINE = re.compile(r'\s*(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])++"|[^,]*+)(?:,|$)')
_LEAST_FIELDS = 3  # a line with fewer belongs to a prompt
_SIZE = re.compile(r"([0-9]+)x([0-9]+)")
# Texts for models. Other texts may name files, e.g. `fonts` of FIBO 2.
_TEXT = re.compile(
    r"(\w+_)?(prompt(_[0-9]|_ref)?|instruction)|lyrics|vocal_language|keyscale|timesignature|track_name"
    r"|task_type|transcription|mode|action|condition_type|resolution|aspect_ratio|keyframe_times"
    r"|sampling_method|resample_method_(in|out)put"
)
_SCHEDULE = re.compile(r"[a-z]{1,20}\([-+.,e0-9 ]{1,100}\)")  # of guidance
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
OMITTED = "omitted"  # carried along: the names of arguments that are not taken
_CARRIED = ("row_id", "recipe", "inputs")  # from framefleet's JSON, as text


def read_text(text: str) -> Told:
    """Return the settings in a text. Raises Unreadable if it has no line of fields, or invalid values."""
    prompt, negative, fields = split_text(text)
    by_name = {name.lower(): value for name, value in fields.items()}
    prompts = {"prompt": prompt or None, "negative_prompt": negative or None}
    known = {"seed", "steps", "size", "cfg scale", FIELD}
    others: dict[str, Any] = {k: value for k, value in fields.items() if k.lower() not in known}
    if FIELD in fields:
        row = parse_object(fields[FIELD])
        if not isinstance(row.get("arguments"), dict):
            raise Unreadable("its framefleet metadata is damaged")
        others |= {name: row[name] for name in _CARRIED if name in row}
        arguments, omitted = _arguments(row)
        others |= {OMITTED: omitted} if omitted else {}
        return told(FIELD, prompts | arguments, others)
    size = _SIZE.fullmatch(by_name.get("size", ""))
    values: dict[str, object] = {
        "seed": by_name.get("seed"),
        "num_inference_steps": by_name.get("steps"),
        "width": size and size[1],
        "height": size and size[2],
        # Models with distilled guidance take their scale as a different argument.
        "guidance_scale": None if "distilled cfg scale" in by_name else by_name.get("cfg scale"),
    }
    return told("A1111", prompts | values, others)


def split_text(text: str) -> tuple[str, str, dict[str, str]]:
    """Return prompt, negative prompt and fields, as the web UI reads them."""
    lines = text.strip().split("\n")
    at = len(lines) - 1
    while len(found := _FIELD_OF_LINE.findall(lines[at])) < _LEAST_FIELDS:
        # Prompt templates may follow the fields.
        at = next((number for number in range(at - 1, -1, -1) if lines[number].startswith("Steps: ")), -1)
        if at < 0:
            raise Unreadable("its text has no line of settings, such as `Steps: 20, Sampler: Euler, ...`")
    prompts: dict[bool, list[str]] = {False: [], True: []}
    is_negative = False
    for line in (line.strip() for line in lines[:at]):
        if line.startswith(NEGATIVE):
            is_negative, line = True, line[len(NEGATIVE) :].strip()
        prompts[is_negative].append(line)
    texts = ["\n".join(prompts[key]).strip() for key in (False, True)]
    return texts[0], texts[1], {name: _unquoted(value) for name, value in found}


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            text = json.loads(value)
        except ValueError:
            return value
        return str(text)
    return value.strip()


def _arguments(row: Mapping[str, Any]) -> tuple[dict[str, object], list[str]]:
    """Return what a row says in texts for models and numbers, and the names of its other arguments.

    Those could be paths or code.
    """
    omitted = []
    values: dict[str, object] = {name: row.get(name) for name in ("seed", "fps")}
    for name, value in row["arguments"].items():
        if name == "lora" and isinstance(value, dict):
            values[name] = "+".join(f"{lora}:{weight}" for lora, weight in value.items())
        elif _NAME.fullmatch(name) and (_TEXT.fullmatch(name) or _is_of_numbers(value)):
            values[name] = json.dumps(value) if isinstance(value, list) else value
        elif _NAME.fullmatch(name) and value is not None:
            omitted.append(name)
    if isinstance(scheduler := row.get("scheduler"), str):
        values["scheduler"] = scheduler
    if isinstance(recipe := row.get("recipe"), str):
        if ":" in recipe:  # of a module
            omitted.append("recipe")
        else:
            values["recipe"] = recipe
    return values, omitted


def _is_of_numbers(value: object) -> bool:
    if isinstance(value, str):
        return bool(_SCHEDULE.fullmatch(value))
    return all(isinstance(one, int | float) for one in (value if isinstance(value, list) else [value]))
