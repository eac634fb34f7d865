"""What a row of a modular pipeline may hold together: its blocks are chosen by the arguments that are given.

An image makes other blocks run, which read more, need more, and may call a component that the model lacks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.errors import Refused
from framefleet.pipeline.model import modular
from framefleet.pipeline.model.specs.signature import PLACES
from framefleet.pipeline.model.specs.spec import PipelineSpec

_Problems = Iterator[tuple[str, Refused]]
# What a row gives, by name: that it is there, and of switches whether they are on.
_Given = Mapping[str, bool | None]
_NEGATIVE = "negative_prompt_embeds"
_UNREAD = Refused(
    reason="of a row with these arguments no block reads it", fix="leave it out, or give what it belongs to"
)
_KINDS = 1024  # of rows, by what they give: a table has a handful


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    reads: frozenset[str]  # inputs
    needs: frozenset[str]  # inputs without which they fail
    components: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    unread: frozenset[str]  # what no block reads
    missing: tuple[tuple[str, Refused], ...]
    is_guided: bool  # they fail where guidance is off


class ModularRows:
    """The `rows.Rules` of one model. Rows that give the same are looked at once."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._inputs = modular.inputs_of(modular.modular_class(spec.class_name))
        self._pipe = modular.blank(spec.class_name, spec.configs)
        self._scales = [argument for argument, _, _ in modular.scales_of(self._pipe)]
        self._kind_of = functools.lru_cache(_KINDS)(self._looked_at)
        self._is_guided_by = functools.lru_cache(_KINDS)(self._asks_for_negative)

    def __call__(
        self, arguments: dict[str, Any], given: Set[str]
    ) -> tuple[dict[str, Any], list[tuple[str, Refused]]]:
        """Return what the row's blocks read of its arguments, and what is wrong with them."""
        presence = [
            (name, value if value is None or value is False else True) for name, value in arguments.items()
        ]
        kind = self._kind_of(tuple(presence))
        problems = [*((name, _UNREAD) for name in sorted(kind.unread & given)), *kind.missing]
        if kind.is_guided and not self._is_guided_by(*map(arguments.get, self._scales)):
            reason = "that switches guidance off, without which these blocks fail"
            problems.append(("guidance_scale", Refused(reason=reason, fix="use another scale, e.g. 1.01")))
        return {name: value for name, value in arguments.items() if name not in kind.unread}, problems

    def _looked_at(self, items: tuple[tuple[str, bool | None], ...]) -> _Kind:
        presence = dict(items)
        run = self._run_of(presence)
        return _Kind(
            unread=frozenset(name for name in presence if name in self._inputs and name not in run.reads),
            missing=tuple(self._missing(run, presence)),
            # some blocks need its embedding, which is not made where nothing is guided (0.42)
            is_guided=_NEGATIVE in run.needs,
        )

    def _missing(self, run: _Run, presence: _Given) -> _Problems:
        """Yield inputs that are not given, and those for which the model lacks a component."""
        settable = self._spec.settable()
        for name in sorted(run.needs & set(settable)):
            if presence.get(name) is None and settable[name].kind in ("str", *PLACES):
                yield name, Refused(reason="a row with these arguments needs it", fix="fill it in")
        lacking = run.components - set(self._spec.components)
        for name in presence if lacking else ():
            rest = {other: value for other, value in presence.items() if other != name}
            if saved := sorted(lacking - self._run_of(rest).components):
                lacking = lacking.difference(saved)
                reason = f"the model has no {' and no '.join(saved)}, which that takes"
                yield name, Refused(reason=reason, fix="leave it out, or use a model that has it")
        if lacking:
            reason = f"the model has no {' and no '.join(sorted(lacking))}, which such a row takes"
            yield "prompt", Refused(reason=reason, fix="give what another workflow starts from")

    def _run_of(self, presence: _Given) -> _Run:
        """Blocks ask whether an input is there; of switches, whether they are on."""
        switches = frozenset(
            (name, value is not False) for name, value in presence.items() if name in self._inputs
        )
        return _run(self._spec.class_name, switches)

    def _asks_for_negative(self, *scales: float | None) -> bool:
        own = modular.guided(self._pipe, dict(zip(self._scales, scales, strict=True)))
        return bool(getattr(own, "requires_unconditional_embeds", True))


@functools.lru_cache(_KINDS)
def _run(class_name: str, given: frozenset[tuple[str, bool]]) -> _Run:
    blocks = modular.blank(class_name, {})._blocks.get_execution_blocks(**dict(given))
    return _Run(
        reads=frozenset(blocks.input_names),
        needs=frozenset(blocks.required_inputs),
        components=frozenset(modular.needed_components(blocks)),
    )
