"""From records to some rows that stand for all: by chance, and of all kinds, machines and workers."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from framefleet.pipeline.outputs.parts.parts import rows_in_table, tables_by_part
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.stores.store import Store

_KIND = ("recipe", "height", "width", "num_frames")
_FIELDS = fields_named(FIRST_FIELDS, "row_id", *_KIND, "node", "worker")
_MAX_CANDIDATES = 100_000  # some 50 MB, however many records there are


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A row that may be chosen. lot: by it, the lower the sooner; it depends on the seed."""

    lot: bytes
    row_id: str
    part: str
    kind: str
    node: str
    worker: str


def sample_rows(store: Store, count: int, *, seed: int = 0) -> list[Candidate]:
    """Return `count` rows, or all if there are fewer: spread over kinds, nodes and workers.

    Equal records and an equal seed give the same rows.
    """
    return _spread(_candidates(store, count, seed), count)


def _candidates(store: Store, count: int, seed: int) -> list[Candidate]:
    """Return of each group of like rows those with the lowest lots."""
    groups: dict[tuple[str, ...], list[tuple[int, Candidate]]] = {}
    max_groups = max(1, _MAX_CANDIDATES // count)
    for one in _all(store, seed):
        group = (one.kind, one.node, one.worker)
        if group not in groups and len(groups) >= max_groups:
            group = ("", "", "")  # the rest together: what a group is called may be anybody's
        heap = groups.setdefault(group, [])
        entry = (-int.from_bytes(one.lot), one)
        if len(heap) < count:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
    return [one for heap in groups.values() for _, one in heap]


def _all(store: Store, seed: int) -> Iterator[Candidate]:
    for path, table in tables_by_part(store, _FIELDS):
        for rows in rows_in_table(table, store.url_of(path)):
            for row in rows:
                lot = hashlib.sha256(f"{seed} {row['row_id']}".encode()).digest()[:8]
                kind = " ".join(str(row[name]) for name in _KIND)
                yield Candidate(lot, row["row_id"], path, kind, row["node"], row["worker"])


def _spread(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose one after the other what there is least of among the chosen."""
    left = sorted({one.row_id: one for one in candidates}.values())
    chosen: list[Candidate] = []
    kinds, nodes, workers = Counter[str](), Counter[str](), Counter[str]()
    while left and len(chosen) < count:
        best = min(left, key=lambda one: (kinds[one.kind], nodes[one.node], workers[one.worker], one.lot))
        left.remove(best)
        chosen.append(best)
        for counter, name in ((kinds, best.kind), (nodes, best.node), (workers, best.worker)):
            counter[name] += 1
    return chosen
