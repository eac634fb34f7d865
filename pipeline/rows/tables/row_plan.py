"""From a table's columns and a job's `columns:` and `defaults:` to the plan for reading its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, get_args

import pyarrow as pa

from framefleet.pipeline.errors import JobError, Refused, UserError, shown
from framefleet.pipeline.guards.mistakes import Mistakes, did_you_mean
from framefleet.pipeline.model.lora import ARGUMENT as LORA, Lora, check_loras
from framefleet.pipeline.model.registry import object_at
from framefleet.pipeline.model.specs import signature
from framefleet.pipeline.model.specs.check import (
    check_argument,
    check_fps,
    check_list,
    check_seed,
    inexact,
    is_list,
)
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.pipeline.model.specs.schedulers import resolve_scheduler
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.file_step import FileStep
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.recipes.catalog import BUILT_IN, recipe_of_row
from framefleet.pipeline.recipes.guidance import check_schedule, is_schedule
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.second_model import SecondModel, check_second_model
from framefleet.pipeline.rows.inputs.fit import SIZES, fitting_names
from framefleet.pipeline.rows.inputs.video_parts import COLUMN_ENDS, bounding_columns
from framefleet.pipeline.rows.tables import column_checks, other_words, rows
from framefleet.pipeline.rows.tables.record_columns import argument_fields, carried_columns, public_cell
from framefleet.pipeline.rows.tables.rows import OWN_TEXTS, Reader, RowPlan, Rules

# Columns with a special meaning, unless the pipeline has a parameter with that name.
_SPECIAL: dict[str, signature.ArgumentKind] = {"seed": "int", "scheduler": "str", "recipe": "str"}
_SPECIAL |= {"fps": "float", LORA: "str"}
_CHECKS = {
    "fps": check_fps,
    other_words.SIZE_WORD: other_words.check_size,
    other_words.SECONDS: other_words.check_seconds,
    other_words.N: other_words.check_one_of_n,
}
_FROM_INPUT = re.compile("ImageToVideo|VideoToVideo|Img2Img|Inpaint")
# Distinct cells that are cached for each column: heights and schedulers repeat, prompts and seeds do not.
_CACHED, _CACHED_LENGTH = 4096, 4096


def argument_columns(
    spec: PipelineSpec, columns: Mapping[str, str], recipe: Recipe = BUILT_IN["generate"]
) -> dict[str, signature.ArgumentKind]:
    """Return the columns that a plan would read, each with the kind of its cells; for `open_table`."""
    targets = meanings(spec, recipe)
    return {columns.get(target, target): kind for target, kind in targets.items()}


def plan_rows(
    schema: pa.Schema,
    spec: PipelineSpec,
    *,
    columns: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    recipe: Recipe = BUILT_IN["generate"],
    find_recipe: Callable[[str], Recipe] | None = None,
    reserved: Collection[str] = (),
    finder: rows.Finder | None = None,
    fps: float | None = None,
    loras: Mapping[str, Lora | Refused] | None = None,
    second_models: Mapping[str, SecondModel] | None = None,
    model: str = "",
    elsewhere: Collection[str] = (),
    check_keep: rows.KeepCheck | None = None,
    file_steps: Collection[FileStep] = (),
    fit: signature.Fit | None = "stretch",
    text_words: Collection[str] = (),
    media: Media | None = None,
) -> RowPlan:
    """Return the plan for tables with this schema. Raises TableError or JobError if no row could be read.

    columns: argument (or seed, scheduler, recipe, fps) to the column that has it.
    overrides: like defaults, but for all rows: their columns are neither read nor carried.
    spec: of the pipeline that the recipe calls. find_recipe: returns the recipe that a row names, or raises
        UserError; without it, rows may name framefleet's recipes, and those in the module of `recipe`.
    reserved: the record's own columns: a carried column with such a name is renamed, and left out for picks.
    finder: opens the images and videos that rows name.
    fps: the job's frame rate; it counts in a row's identity only if a clip's length is in seconds.
    loras, second_models: those that rows may name.
    model: the name of the rows' model in a job with several. elsewhere: meanings of columns for any of these
        models: a column with a meaning only for others is carried under a name that no argument has.
    fit: how pictures get the proportions of the row's size; None: see `fit_row`.
    text_words: names that texts of a sweep use; they are not words of `other_words.py` then.
    media: how clips are stored, which may refuse a rate.
    """
    finder = finder or rows.Finder()
    meant_otherwise = {*text_words, *(columns or {}).values()} - (columns or {}).keys()
    words = {name for name in other_words.words_of(spec, recipe) if name not in meant_otherwise}
    targets = meanings(spec, recipe)
    targets = {
        name: kind
        for name, kind in targets.items()
        if name not in other_words.WORDS or name not in meant_otherwise
    }
    special = words.union(_SPECIAL) - spec.settable().keys()
    mistakes = Mistakes()
    columns, defaults, overrides = (
        {name: value for name, value in (section or {}).items() if name in targets or name not in elsewhere}
        for section in (columns, defaults, overrides)
    )
    if other_words.N in words:  # each row makes one clip by now
        defaults.pop(other_words.N, None)
    with mistakes.noted():
        if other_words.SIZE_WORD in words:
            defaults, overrides = (
                other_words.with_sides("defaults", defaults),
                other_words.with_sides("overrides", overrides),
            )
    read = _read_columns(columns, targets, schema, mistakes)
    is_read = not mistakes.found
    own_arguments = {name: kind for name, kind in targets.items() if name not in special}
    own_arguments |= {LORA: "str"} if loras else {}
    shown = argument_fields(own_arguments, taken=reserved)
    of_clips = reserved if column_checks.is_picks(schema.names) else ()  # about clips of another output
    own_schema = pa.schema([field for field in schema if field.name not in of_clips])
    carried = carried_columns(own_schema, read, targets, taken={*reserved, *shown.names, *elsewhere})
    unread = [name for name in schema.names if name not in {*read.values(), *elsewhere}]
    with mistakes.noted():
        column_checks.check_carried(unread, spec)
    read = {target: column for target, column in read.items() if target not in overrides}
    with mistakes.noted():
        videos = [name for name, kind in targets.items() if kind == "video" and name not in overrides]
        column_checks.check_ends(schema.names, {name: read.get(name) for name in videos}, ends=COLUMN_ENDS)
    if other_words.SECONDS in words and (frames := other_words.frames_name(spec)):
        for name, other in ((other_words.SECONDS, frames), (frames, other_words.SECONDS)):
            if overrides.get(name) is not None:
                read.pop(other, None)
                defaults.pop(other, None)
        for section, values in (("defaults", defaults), ("overrides", overrides)):
            if values.get(other_words.SECONDS) is not None and values.get(frames) is not None:
                with mistakes.noted():
                    raise JobError(f"{section} has seconds and {frames}", "leave one of them out")
    own = {p.name: p.default for p in recipe.parameters() if p.default is not None}
    find_recipe = find_recipe or partial(recipe_of_row, own=recipe)
    checks = {
        name: _check_of(name, kind, spec, find_recipe, finder, second_models or {}, special=special)
        for name, kind in targets.items()
    }
    checks[LORA] = _remembering(partial(check_loras, declared=loras or {}))
    base, others = _defaults(defaults, overrides, targets, checks, spec, mistakes, own=own, special=special)
    required = required_arguments(spec, recipe)
    with mistakes.noted():
        if is_read:  # else missing columns follow from the mistakes
            column_checks.check_required(required, read, base, columns=schema.names)
    mistakes.report()
    rules: Rules | None = None
    if is_modular(spec.class_name):
        from framefleet.pipeline.model.modular import ModularRows  # imports diffusers

        rules = ModularRows(spec)
    elif spec.family.row_rules:
        rules = partial(object_at(spec.family.row_rules), spec=spec)
    readers, own_scheduler = [], resolve_scheduler(None, spec)
    for target, column in read.items():
        kind, is_argument = targets[target], target not in special
        check = _exactly(checks[target], kind, schema.field(column).type)
        if target == "scheduler" and others.get(target, own_scheduler) != own_scheduler:
            check = partial(_check_not_empty, check=check, spec=spec)
        bounds = bounding_columns(column, schema.names) if kind == "video" else ()
        readers.append(
            Reader(
                column=column, target=target, kind=kind, is_argument=is_argument, check=check, bounds=bounds
            )
        )
    files = [name for name, kind in targets.items() if kind in signature.PLACES]
    files = [name for name in files if name in read or name in base]
    return RowPlan(
        readers=tuple(readers),
        base=base,
        overridden=frozenset(name for name, value in overrides.items() if value is not None),
        required=required,
        seed=others.get("seed"),
        seconds=others.get(other_words.SECONDS),
        scheduler=others.get("scheduler") or own_scheduler,
        loras=others.get(LORA, {}),
        recipe=recipe,
        fps=fps,
        finder=finder,
        spec=spec,
        rules=rules,
        check_keep=check_keep,
        file_steps=file_steps,
        carried=carried,
        argument_fields=shown,
        lookalikes=column_checks.lookalikes(unread, [target for target in targets if target not in read]),
        model=model,
        places=tuple(files),
        fitting=tuple(name for name in fitting_names(spec) if name in files),
        fit=fit,
        media=media,
        is_sized=any({**defaults, **overrides}.get(name) is not None for name in SIZES),
    )


def meanings(spec: PipelineSpec, recipe: Recipe) -> dict[str, signature.ArgumentKind]:
    """Return everything that a column may mean, with the kind of its cells."""
    more = {parameter.name: parameter.kind for parameter in recipe.parameters() if parameter.kind}
    own = {name: parameter.kind for name, parameter in spec.settable().items() if parameter.kind}
    return _SPECIAL | other_words.words_of(spec, recipe) | own | more


def joined_kinds(each: Iterable[Mapping[str, signature.ArgumentKind]]) -> dict[str, signature.ArgumentKind]:
    """Return the kinds of columns that several models read; text only if all of them take text."""
    joined: dict[str, signature.ArgumentKind] = {}
    for kinds in each:
        joined |= {name: kind for name, kind in kinds.items() if joined.get(name, "str") == "str"}
    return joined


def required_arguments(spec: PipelineSpec, recipe: Recipe) -> tuple[str, ...]:
    """Return the arguments without which no row can be rendered."""
    # Some pipelines have defaults for these, but fail without them when they are called.
    at_call = ("prompt", *(("image", "video") if _FROM_INPUT.search(spec.class_name) else ()))
    own = (each.name for each in spec.parameters.values() if each.required or each.name in at_call)
    return tuple(name for name in dict.fromkeys([*own, *recipe.needs]) if name not in recipe.makes)


def _read_columns(
    columns: Mapping[str, str],
    targets: Mapping[str, signature.ArgumentKind],
    schema: pa.Schema,
    mistakes: Mistakes,
) -> dict[str, str]:
    """Return the columns that have a meaning, by what they mean."""
    for target, column in columns.items():
        with mistakes.noted():
            if target not in targets:
                is_turned = target in schema.names and column in targets
                turned = f"swap them: `columns: {{{column}: {target}}}`"
                problem = f"columns.{target}: there is no argument {target!r}"
                fix = turned if is_turned else column_checks.argument_meant(target, targets)
                raise JobError(problem, fix)
            if column not in schema.names:
                problem = f"columns.{target} names the column {column!r}, but the table has no such column"
                fix = did_you_mean(column, schema.names)
                if target in schema.names:
                    fix = f"rename its column {target!r} to {column!r}, or leave `columns.{target}` out"
                raise JobError(problem, fix)
    column_of = {target: columns.get(target, target) for target in targets}
    read = {target: column for target, column in column_of.items() if column in schema.names}
    for target, column in read.items():
        with mistakes.noted():
            column_checks.check_type(schema.field(column), target, targets[target])
    return read


def _defaults(
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
    targets: Mapping[str, signature.ArgumentKind],
    checks: Mapping[str, Callable[[Any], Any]],
    spec: PipelineSpec,
    mistakes: Mistakes,
    *,
    own: Mapping[str, Any],
    special: Collection[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of an empty row: its arguments; its seed, seconds, scheduler and LoRAs.

    defaults, overrides: a null removes a default of the model. own: the defaults of the recipe's parameters.
    special: names that are not arguments.
    """
    arguments: dict[str, Any] = {**spec.defaults(), **own}
    others: dict[str, Any] = {}
    for name, value in {**defaults, **overrides}.items():
        section = "overrides" if name in overrides else "defaults"
        arguments.pop(name, None)
        with mistakes.noted():
            if name in ("recipe", "fps") and name in special:
                place = "recipe" if name == "recipe" else "media.fps"
                raise JobError(f"{section}.{name} cannot be set", f"set `{place}:` instead")
            if name not in targets:
                fix = (
                    column_checks.plumbing_fix(name)
                    if name in spec.parameters
                    else column_checks.argument_meant(name, targets)
                )
                raise JobError(f"{section}.{name}: rows have no such argument", fix)
            if value is not None:
                place_of = others if name in special else arguments
                place_of[name] = value  # so that a refused value is not reported as missing too
                checked = checks[name](value)
                if isinstance(checked, Refused):
                    public = public_cell(value) if targets[name] in signature.PLACES else value
                    raise JobError(f"{section}.{name} is {shown(public)}, but {checked.reason}", checked.fix)
                place_of[name] = checked
    return arguments, others


def check_value(
    name: str,
    value: Any,
    kind: signature.ScalarKind | signature.ListKind | signature.EitherKind,
    spec: PipelineSpec,
) -> Any:
    """Return a value as the argument takes it, a schedule in its one spelling; or Refused."""
    if kind == "ints" or kind == "floats":
        single: signature.ScalarKind = "int" if kind == "ints" else "float"
        kind = f"list[{single}]" if is_list(value) else single  # type: ignore[assignment]
    if kind in signature.PART_KINDS:
        parameter = spec.parameters.get(name)
        return check_list(name, value, kind, parameter.entries if parameter else None)
    if is_schedule(name, value):
        return check_schedule(name, value, class_name=spec.class_name, configs=spec.configs)
    return check_argument(name, value, kind, spec)  # type: ignore[arg-type]


def _check_of(
    target: str,
    kind: signature.ArgumentKind,
    spec: PipelineSpec,
    find_recipe: Callable[[str], Recipe],
    finder: rows.Finder,
    second_models: Mapping[str, SecondModel],
    *,
    special: Collection[str],
) -> Callable[[Any], Any]:
    """Return the check of one cell, which caches its answers if cells repeat."""
    if kind == "image" or kind == "video":
        return _remembering(partial(rows.check_input, kind=kind, finder=finder))
    if kind == "images" or kind == "list[image]":
        return partial(rows.check_images, kind=kind, finder=finder)
    if kind == "references":
        return partial(rows.check_references, finder=finder)
    if kind == "model":
        return _remembering(partial(check_second_model, target, declared=second_models))
    if target in OWN_TEXTS and kind == "str":
        return partial(check_argument, target, kind=kind, spec=spec)  # they do not repeat
    if target not in special:
        check = partial(check_value, target, kind=kind, spec=spec)
        is_listed = kind in signature.PART_KINDS or kind in get_args(signature.EitherKind)
        return check if is_listed else _remembering(check)  # each row needs its own lists
    if target == "seed":
        return check_seed
    if target in _CHECKS:
        return _remembering(_CHECKS[target])
    find = (lambda name: resolve_scheduler(name, spec)) if target == "scheduler" else find_recipe

    def checked(cell: Any) -> Any:
        if not isinstance(cell, str):
            return Refused(reason="it must be text", fix="put it in quotes")
        try:
            return find(cell)
        except UserError as error:
            return Refused(reason=error.problem, fix=error.fix)

    return _remembering(checked)


def _check_not_empty(cell: Any, check: Callable[[Any], Any], spec: PipelineSpec) -> Any:
    """Refuse empty text, which is the model's own scheduler, where the job has another for empty cells."""
    if cell != "":
        return check(cell)
    fix = f"leave the cell empty (null) for the job's scheduler, or write {spec.scheduler_class}"
    return Refused(reason="the job sets a scheduler for rows without one", fix=fix)


# From here on, these floats cannot represent every whole number; `coerce` checks float64.
_NARROW = {pa.float16(): 2**11, pa.float32(): 2**24}


def _exactly(
    check: Callable[[Any], Any], kind: signature.ArgumentKind, stored: pa.DataType
) -> Callable[[Any], Any]:
    """Return a check that also refuses whole numbers that a column of narrow floats may have rounded."""
    stored = stored.value_type if pa.types.is_dictionary(stored) else stored
    exact = _NARROW.get(getattr(stored, "value_type", stored))
    if exact is None or kind not in ("int", "ints", "list[int]"):
        return check

    def checked(cell: Any) -> Any:
        numbers = cell if isinstance(cell, list) else [cell]
        is_rounded = any(isinstance(number, float) and abs(number) >= exact for number in numbers)
        return inexact("float32" if exact > 2**11 else "float16") if is_rounded else check(cell)

    return checked


def _remembering(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    answer = lru_cache(_CACHED)(check)  # a column has one type, so 1 and True are not confused

    def remembered(cell: Any) -> Any:
        is_short = isinstance(cell, Hashable) and not (isinstance(cell, str) and len(cell) > _CACHED_LENGTH)
        return answer(cell) if is_short else check(cell)  # also a list where none belongs

    return remembered
