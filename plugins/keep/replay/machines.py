"""Judge whether the difference between a clip and its row rendered on another machine is usual for its model.

`framefleet audit OUTPUT --against OUTPUT2` measures what is usual between two machines, and stores its report
in the first output. Reports are not trusted: they never make a verdict "bit-exact".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from framefleet.api.errors import JobError, count_text
from framefleet.api.outputs import Store, dated, read_json, told_arguments
from framefleet.pipeline.render.audit.verdict import AUDIT, kind_of_record

REPORTS = "audits/reports"  # folder of an output
# Parts of an environment that do not affect frames, and those that a job chooses. A job also chooses all
# numerics but threads.
_NOTHING = {AUDIT, "av", "framefleet", "python", "recipe source"}
_ASKED = {"attention", "dtype", "matmul", "model_digest"}
_NUMERICS, _THREADS = "numerics.", "numerics.threads"
_MAX_VALUES = 1000

Quantiles = tuple[float | None, ...]  # for half of the clips, for 95 % and for all


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedKind:
    """How far clips of one kind were apart. None: infinite. (): nothing was compared."""

    kind: str  # recipe and shape, e.g. "generate 81 x 480 x 832"; "": all
    num_compared: int
    max_levels: Quantiles
    psnr_db: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedSides:
    """What rendered the clips of the two sides of an audit."""

    changed: tuple[str, ...]  # names of models, numerics and environments that differ
    model_digests: tuple[str, ...]  # of both sides
    formats: tuple[str, ...]  # of both sides' files


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOfMachines:
    """The parts of an audit's report that are needed here."""

    output: str
    total: AuditedKind
    kinds: tuple[AuditedKind, ...]
    sides: AuditedSides

    def kind_of(self, record: Mapping[str, Any]) -> AuditedKind | None:
        """Return what a row may be compared with: clips of its kind, else all of its model and format."""
        is_alike = record["model_digest"] in self.sides.model_digests
        if not is_alike or {*self.sides.formats} != {_format_of(record)}:
            return None
        kind = kind_of_record(record)
        audited = next((audited for audited in self.kinds if audited.kind == kind), self.total)
        return audited if audited.num_compared and audited.max_levels and audited.psnr_db else None


_REPORT = TypeAdapter(AuditOfMachines)


class MadeBy:
    """What rendered the clips of one side: all values of each name. Bounded, as records are not trusted."""

    def __init__(self) -> None:
        self._values: dict[str, set[str]] = defaultdict(set)

    def add(self, record: Mapping[str, Any]) -> None:
        environment, numerics = (
            told_arguments({"arguments": record[name]}) for name in ("environment", "numerics")
        )
        made = {name: value for name, value in environment.items() if name != AUDIT}
        made |= {f"{_NUMERICS}{name}": value for name, value in numerics.items()}
        made |= {"model_digest": record["model_digest"], "format": _format_of(record)}
        for name, value in made.items():
            if len(self._values) < _MAX_VALUES and len(values := self._values[name]) < _MAX_VALUES:
                values.add(str(value))

    def against(self, other: MadeBy) -> AuditedSides:
        ours, theirs = self._values, other._values
        changed = {name for name in {*ours, *theirs} if ours[name] != theirs[name]} - {"format"}
        models, formats = (tuple(sorted(ours[name] | theirs[name])) for name in ("model_digest", "format"))
        return AuditedSides(changed=tuple(sorted(changed)), model_digests=models, formats=formats)


def _format_of(record: Mapping[str, Any]) -> str:
    return str(record["path"]).partition(".")[2]


def machines_in(changed: Iterable[str]) -> list[str]:
    """Return the changes that mean another machine or other versions of libraries."""
    plain = (name for name in changed if name == _THREADS or not name.startswith(_NUMERICS))
    return [name for name in plain if name not in _NOTHING | _ASKED]


def audits_for(store: Store, place: str | None, storage_options: Mapping[str, Any]) -> list[AuditOfMachines]:
    """Return the audits whose sides differ by machine, and by nothing that a job chooses.

    place: the output with the audits, JobError if it has none. None: that of `store`, if they can be read.
    """
    source = store if place is None else Store(dated(place), storage_options)
    of_machines: list[AuditOfMachines] = []
    for path in source.list(REPORTS):
        try:
            audit = read_json(source, path, _REPORT)
        except JobError:
            if place is not None:
                raise
            continue
        of_machines += [audit] if _differ_by_machine(audit.sides.changed) else []
    if place is not None and not of_machines:
        problem = f"--audit: {source.url_of('')} has no audit that compares clips of two machines"
        raise JobError(problem, f"make one: framefleet audit {place} --against OUTPUT2")
    return of_machines


def _differ_by_machine(changed: Iterable[str]) -> bool:
    names = {*changed}
    machines = {*machines_in(names)}
    return bool(machines) and names <= machines | _NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherMachine:
    """A clip of another machine, and how far audited clips of two machines were apart."""

    changed: tuple[str, ...]  # names of the environment that differ
    is_within: bool | None = None  # whether it is no farther than those; None: no such clips were audited
    num_clips: int = 0  # audited
    max_levels: float | None = None  # largest difference of an audited clip
    psnr_db: float | None = None  # lowest of an audited clip; None: infinite
    audits_of: str | None = None  # output

    def __str__(self) -> str:
        where = f"rendered elsewhere ({', '.join(self.changed)})"
        if self.is_within is None:
            return f"{where}; how far clips of two machines are apart was not measured (see --audit)"
        how = "no farther" if self.is_within else "but farther"
        psnr = "" if self.psnr_db is None else f", PSNR {self.psnr_db:.1f} dB or more"
        return (
            f"{where}, {how} than any of {count_text(self.num_clips, 'clip')} that audits compared between "
            f"machines: {self.max_levels:.3g} levels or less{psnr} (audits of {self.audits_of})"
        )


def other_machine(
    audits: Sequence[AuditOfMachines],
    record: Mapping[str, Any],
    changed: Iterable[str],
    *,
    max_levels: float,
    psnr_db: float | None,
) -> OtherMachine | None:
    """Compare a clip's difference with audited ones; None if the machine is the same."""
    if not (names := tuple(machines_in(changed))):
        return None
    known = [(audit, kind) for audit in audits if (kind := audit.kind_of(record))]
    if not known:
        return OtherMachine(changed=names)
    most = max(kind.max_levels[-1] or 0.0 for _, kind in known)
    least = min(_or_infinite(kind.psnr_db[-1]) for _, kind in known)
    return OtherMachine(
        changed=names,
        is_within=max_levels <= most and _or_infinite(psnr_db) >= least,
        num_clips=sum(kind.num_compared for _, kind in known),
        max_levels=most,
        psnr_db=least if math.isfinite(least) else None,
        audits_of=known[0][0].output,
    )


def _or_infinite(psnr_db: float | None) -> float:
    return math.inf if psnr_db is None else psnr_db
