"""From an output to the same without what is damaged: rows that lose their record are for `render`.

Of each row the last record stays whose files are as it says. Whenever it is killed it can be done again: what
is to go is found anew. A file is deleted only when no record names it; damaged parts and files that cannot
be read are kept aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice

from framefleet.jobs.show.standing import Checked
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.outputs.clip_index import ClipIndex
from framefleet.pipeline.outputs.damage import Damage, DamageKind, beside_parts, damaged_records, strays
from framefleet.pipeline.outputs.parts.part_names import new_run
from framefleet.pipeline.outputs.parts.pending import disown, intent_to_sweep
from framefleet.pipeline.outputs.parts.replace_part import replace_part, set_aside
from framefleet.pipeline.outputs.parts.seals import Hold
from framefleet.pipeline.outputs.stores.store import Store

_SWEPT_AT_ONCE = 1000  # files between two looks at the lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was wrong, and what was done about it, or would be.

    num_found: by kind. num_rows: that lost their record. num_set_aside: damaged parts, and files that cannot
    be read, now in damaged/. num_swept: files that nothing named.
    """

    num_found: Mapping[DamageKind, int]
    num_rows: int
    num_set_aside: int
    num_swept: int


def mend(
    store: Store, hold: Hold | None, watch: Watch, found: Callable[[Damage], None] = lambda damage: None
) -> Mended:
    """Read the whole output, and take out of it what is damaged. found: is told all that is wrong.

    hold: of the output; None changes nothing, and returns what would be done.
    """
    counts: Counter[DamageKind] = Counter()

    def note(damage: Damage) -> Damage:
        counts[damage.kind] += 1
        found(damage)
        return damage

    with closing(ClipIndex()) as index:
        read = damaged_records(store, index, lambda count: watch.show(Checked(num_rows=count)))
        aside = [damage.path for damage in map(note, read) if damage.kind in ("part", "unreadable")]
        late = [damage.path for damage in map(note, beside_parts(store)) if damage.kind == "late"]
        if hold:
            for path in aside:
                set_aside(store, path, hold)
        num_rows = _take_back(store, index, hold)
        # A row without a record may get one that names its stray: the run that writes it sweeps the rest.
        intents: set[str] = set()
        unnamed = _spare(map(note, strays(store, index)), index, intents)
        num_swept = _sweep(store, hold, chain(late, unnamed))
        if hold:
            disown(store, intents)
    return Mended(num_found=counts, num_rows=num_rows, num_set_aside=len(aside), num_swept=num_swept)


def _take_back(store: Store, index: ClipIndex, hold: Hold | None) -> int:
    """Let no part name a row whose files are damaged, nor one that a later record names; return how many."""
    num_rows, run = 0, new_run(hold.epoch) if hold else ""
    for number, (path, row_ids) in enumerate(index.take_spare(), start=1):
        num_rows += len(row_ids)
        if hold:
            replace_part(store, path, row_ids, run=run, number=number, hold=hold)
    return num_rows


def _spare(damages: Iterable[Damage], index: ClipIndex, intents: set[str]) -> Iterator[str]:
    """Yield strays of rows whose records name other files; fill `intents` for those of other rows."""
    for damage in damages:
        if damage.kind != "stray" or damage.row_id is None:
            continue
        if index.has(damage.row_id):
            yield damage.path
        else:
            intents.add(intent_to_sweep(damage.path, damage.row_id))


def _sweep(store: Store, hold: Hold | None, paths: Iterator[str]) -> int:
    """Delete files, some at once; return how many."""
    num_swept = 0
    while some := list(islice(paths, _SWEPT_AT_ONCE)):
        num_swept += len(some)
        if hold:
            hold.check()
            store.delete_many(some)
    return num_swept
