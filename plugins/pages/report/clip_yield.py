"""From what a job took to what became of it: how much went into clips that are accepted, and what each cost.

What workers' time went to, drivers counted (`pipeline/metrics.py`), drafts and failed attempts included; how
much of it became a clip is in the clip's record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.jobs.look.status.status import figures_of
from framefleet.pipeline.metrics import BUSY, LOAD, NETWORKS, WORKER_SECONDS
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.query import columns_in, rows_where
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.pages.report.figures import COMPUTE, positive
from framefleet.plugins.picks import read_picks

_STARS = "stars"  # in conditions: of the output's own picks, null of clips that nobody gave any


@dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """seconds: of all workers, by what became of them; they add up to the whole. accepted: the condition.

    networks_share: of all time, that of the model's networks. ceiling_share: of what this GPU can do, as it
    was measured; None where nobody said. cost_per_accepted: None without a price.
    """

    accepted: str | None
    num_clips: int
    num_accepted: int
    seconds: Mapping[str, float]
    networks_share: float
    ceiling_share: float | None
    cost_per_accepted: float | None

    @property
    def accepted_share(self) -> float:
        """Which part of the workers' time became clips that are accepted."""
        return self.seconds["accepted clips"] / sum(self.seconds.values())

    def text(self) -> str:
        """Return it in words: "94 % of what this GPU can do; 31 % of the time became accepted clips"."""
        used = f"{self.networks_share:.0%} of the time in networks"
        if self.ceiling_share is not None:
            used = f"{self.ceiling_share:.0%} of what this GPU can do"
        clips = f"{self.num_accepted:,} of {self.num_clips:,} clips"
        cost = "" if self.cost_per_accepted is None else f"; {self.cost_per_accepted:,.4g} for each of them"
        return f"{used}; {self.accepted_share:.0%} of the time became accepted clips ({clips}){cost}"


def yield_of(
    store: Store, *, accepted: str | None, ceiling: float | None, hour_price: float | None
) -> Yield | None:
    """Return the yield; None where no driver counted anything.

    accepted: a condition on records in SQL; None accepts all. ceiling: rows that one worker renders in an
    hour at most. hour_price: of a worker's hour.
    """
    own = WORKER_SECONDS.by_label(figures_of(store))
    inner = {name: WORKER_SECONDS.total(figures_of(one.store)) for name, one in Output(store).inner.items()}
    if not (whole_s := sum(own.values()) + sum(inner.values())):
        return None
    num_clips, clips_s = _sums(_records(store, None))
    num_accepted, accepted_s = (num_clips, clips_s) if accepted is None else _sums(_records(store, accepted))
    busy_s = sum(own.get(cause, 0.0) for cause in BUSY)
    seconds = {
        "accepted clips": accepted_s,
        "other clips": clips_s - accepted_s,
        **inner,
        "failed or repeated": max(0.0, busy_s - clips_s),
        "loading": own.get(LOAD, 0.0),
        "waiting": sum(spent for cause, spent in own.items() if cause not in (*BUSY, LOAD)),
    }
    hours = whole_s / 3600
    return Yield(
        accepted=accepted,
        num_clips=num_clips,
        num_accepted=num_accepted,
        seconds={name: spent for name, spent in seconds.items() if spent or name == "accepted clips"},
        networks_share=sum(own.get(cause, 0.0) for cause in NETWORKS) / whole_s,
        ceiling_share=num_clips / (sum(own.values()) / 3600) / ceiling if ceiling and own else None,
        cost_per_accepted=hours * hour_price / num_accepted if hour_price and num_accepted else None,
    )


def _records(store: Store, condition: str | None) -> Iterator[pa.Table]:
    """Yield what records took, of those for which the condition is true."""
    schema = record_schema_of(store)
    columns = [COMPUTE, *(columns_in(condition, schema) if condition else [])]
    columns = [name for name in dict.fromkeys([*columns, "row_id"]) if name in schema.names]
    tables = record_tables(store, columns)
    return rows_where(_with_stars(tables, store), condition) if condition else tables


def _with_stars(tables: Iterator[pa.Table], store: Store) -> Iterator[pa.Table]:
    picks = read_picks(store).items()
    stars = {row_id: pick.stars for row_id, pick in picks if "stars" in pick.model_fields_set}
    for table in tables:
        if _STARS not in table.column_names:
            values = [stars.get(row_id) for row_id in table["row_id"].to_pylist()]
            table = table.append_column(_STARS, pa.array(values, pa.int64()))
        yield table


def _sums(tables: Iterator[pa.Table]) -> tuple[int, float]:
    num, seconds = 0, 0.0
    for table in tables:
        num += len(table)
        if COMPUTE in table.column_names:
            seconds += pc.sum(positive(table[COMPUTE])).as_py() or 0.0
    return num, seconds
