"""What a row of a modular pipeline may hold together: its blocks are chosen by the arguments that are given.

An image makes other blocks run, which read more, need more, and may call a component that the model lacks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.modular import blank, guided, inputs_of, modular_class, scales_of
from framefleet.pipeline.model.specs.check import Refused
from framefleet.pipeline.model.specs.spec import PipelineSpec

_Problems = Iterator[tuple[str, Refused]]
_NEGATIVE = "negative_prompt_embeds"
_KINDS = 1024  # of rows, by what they give: a table has a handful
_PIPES = 64  # as many as `blank` keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The blocks that run for one kind of row. reads: inputs. needs: those without which they fail."""

    reads: frozenset[str]
    needs: frozenset[str]
    components: frozenset[str]


def modular_row_rules(
    arguments: dict[str, Any], given: Set[str], spec: PipelineSpec
) -> tuple[dict[str, Any], list[tuple[str, Refused]]]:
    """Return what the row's blocks read of its arguments, and what is wrong with them; see `rows.Rules`."""
    run, blocks = _run_of(spec, arguments), inputs_of(modular_class(spec.class_name))
    unread = {name for name in arguments if name in blocks and name not in run.reads}
    problems = [*_unread(unread & given), *_missing(run, arguments, spec), *_unguided(run, arguments, spec)]
    return {name: value for name, value in arguments.items() if name not in unread}, problems


def _unread(names: Set[str]) -> _Problems:
    for name in sorted(names):
        reason = "of a row with these arguments no block reads it"
        yield name, Refused(reason=reason, fix="leave it out, or give what it belongs to")


def _missing(run: _Run, arguments: Mapping[str, Any], spec: PipelineSpec) -> _Problems:
    """Yield inputs that are not given, and those for which the model lacks a component."""
    for name in sorted(run.needs & set(spec.settable())):
        if arguments.get(name) is None and spec.settable()[name].kind in ("str", "image", "video"):
            yield name, Refused(reason="a row with these arguments needs it", fix="fill it in")
    lacking = run.components - set(spec.components)
    for name in arguments if lacking else ():
        rest = {other: value for other, value in arguments.items() if other != name}
        if saved := sorted(lacking - _run_of(spec, rest).components):
            reason = f"the model has no {' and no '.join(saved)}, which that takes"
            yield name, Refused(reason=reason, fix="leave it out, or use a model that has it")


def _unguided(run: _Run, arguments: Mapping[str, Any], spec: PipelineSpec) -> _Problems:
    """Some blocks need the negative prompt's embedding, which is not made where nothing is guided (0.42)."""
    if _NEGATIVE not in run.needs:
        return
    pipe = blank(spec.class_name, spec.configs)
    if not _asks_for_negative(pipe, tuple([arguments.get(name) for name in _scales_of(pipe)])):
        reason = "that switches guidance off, without which these blocks fail"
        yield "guidance_scale", Refused(reason=reason, fix="use another scale, as 1.01")


@functools.lru_cache(_KINDS)
def _asks_for_negative(pipe: Any, scales: tuple[float | None, ...]) -> bool:
    """scales: of `_scales_of`."""
    own = guided(pipe, dict(zip(_scales_of(pipe), scales, strict=True)))
    return bool(getattr(own, "requires_unconditional_embeds", True))


@functools.lru_cache(_PIPES)
def _scales_of(pipe: Any) -> tuple[str, ...]:
    return tuple(argument for argument, _, _ in scales_of(pipe))


def _run_of(spec: PipelineSpec, arguments: Mapping[str, Any]) -> _Run:
    """Blocks ask whether an input is there; of switches, whether they are on."""
    inputs = inputs_of(modular_class(spec.class_name))
    given = {name: value is True or not isinstance(value, bool) for name, value in arguments.items()}
    return _run(spec.class_name, frozenset(item for item in given.items() if item[0] in inputs))


@functools.lru_cache(_KINDS)
def _run(class_name: str, given: frozenset[tuple[str, bool]]) -> _Run:
    blocks = blank(class_name, {})._blocks.get_execution_blocks(**dict(given))
    parts = [
        part.name for part in blocks.expected_components if part.default_creation_method != "from_config"
    ]
    return _Run(
        reads=frozenset(blocks.input_names),
        needs=frozenset(blocks.required_inputs),
        components=frozenset(parts),
    )
