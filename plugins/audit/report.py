"""Summarize the distances of compared clips for each kind of row, with a bound for all rows."""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from framefleet.api.commands import Overview
from framefleet.api.errors import count_text
from framefleet.jobs.show.watch import share_text
from framefleet.plugins.audit.comparison import ComparedPair
from framefleet.plugins.audit.lots import Lots
from framefleet.plugins.keep.replay.machines import AuditedKind, AuditedSides, Quantiles

BITS = "bits"  # the frames of all rows were compared and are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class KindDistances(AuditedKind):
    """The result for one kind of row, or for all. Rows that cannot be compared are off."""

    num_rows: int
    num_chosen: int  # to be compared
    num_equal: int  # of the compared rows, bit-exact
    num_off: int  # of the chosen rows
    most_off: int  # upper bound for all rows, with 95 % confidence
    ssim: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuditReport(Overview):
    """The distances between the clips of an output and others of the same rows."""

    output: str
    against: str
    levels: float  # a clip that differs by more is off
    share: float  # of the rows that were chosen, at least
    total: KindDistances
    kinds: tuple[KindDistances, ...]
    problems: Mapping[str, int]  # number of chosen rows that could not be compared, by reason
    left_out: Mapping[str, int]  # number of rows that could not be chosen, by reason
    only_one_has: tuple[str, ...]  # arguments that were ignored when matching rows
    sides: AuditedSides  # what rendered the clips of both sides

    @property
    def bound(self) -> str:
        """The bound for all rows, in a sentence."""
        of, total = count_text(self.total.num_rows, "clip"), self.total
        is_whole = total.num_chosen == total.num_rows
        share = share_text(total.most_off / total.num_rows)
        most = f"{total.num_off:,} of {of} ({share})" if is_whole else f"at most {share} of {of}"
        unknown = " or could not be compared" * bool(self.problems)
        return f"{most} differ by more than {self.levels:g} levels{unknown}" + " (95 %)" * (not is_whole)

    @property
    def exactness(self) -> str:
        """The bound for the records of these rows; "bits" if all of them are equal."""
        is_equal = self.total.num_equal == self.total.num_rows
        return BITS if is_equal else f"{self.bound}, against {self.against}"

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "bound": self.bound}, ensure_ascii=False)

    def overview(self) -> Mapping[str, object]:
        total, reasons = self.total, {**self.problems, **self.left_out}
        return {
            "output": self.output,
            "against": self.against,
            "compared": f"{total.num_compared:,} of {count_text(total.num_rows, 'row')}",
            "bit-exact": f"{total.num_equal:,}",
            "bound": self.bound,
            "not compared": "; ".join(f"{reason}: {num:,}" for reason, num in reasons.items()) or None,
            "ignored arguments": ", ".join(self.only_one_has) or None,
        }


class DistanceTally:
    """Counts compared rows."""

    def __init__(self, lots: Lots, levels: float) -> None:
        self.lots, self.levels = lots, levels
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)  # by kind; "": all
        self._values: dict[tuple[str, str], array[float]] = defaultdict(lambda: array("d"))
        self.problems: Counter[str] = Counter()

    def add(self, row_id: str, kind: str, compared: ComparedPair) -> None:
        is_off, distance = compared.is_off(self.levels), compared.distance
        if distance is None:
            self.problems[compared.problem] += 1
        for key in ("", self.lots.counted(kind)):
            self._counts[key].update(
                chosen=1,
                compared=distance is not None,
                equal=compared.is_equal,
                off=is_off,
                off_by_odds=is_off and self.lots.is_by_odds(row_id),
            )
            if distance:
                self._values[key, "max_levels"].append(distance.max_levels)
                self._values[key, "psnr_db"].append(-distance.psnr_db)  # so that larger means farther
                self._values[key, "ssim"].append(-distance.ssim)

    def of(self, kind: str = "") -> KindDistances:
        """Return the result for a kind, or for all."""
        counts = self._counts[kind]
        num_rows = self.lots.num_rows[kind] if kind else self.lots.num_rows.total()
        return KindDistances(
            kind=kind,
            num_rows=num_rows,
            num_chosen=counts["chosen"],
            num_compared=counts["compared"],
            num_equal=counts["equal"],
            num_off=counts["off"],
            most_off=self.lots.most_off(
                num_rows,
                num_off_by_odds=counts["off_by_odds"],
                num_off=counts["off"],
                num_fine=counts["chosen"] - counts["off"],
            ),
            max_levels=_quantiles(self._values[kind, "max_levels"]),
            psnr_db=_quantiles(self._values[kind, "psnr_db"], sign=-1),
            ssim=_quantiles(self._values[kind, "ssim"], sign=-1),
        )


def _quantiles(values: array[float], sign: int = 1) -> Quantiles:
    if not values:
        return ()
    found = np.quantile(values, (0.5, 0.95, 1), method="higher") * sign
    return tuple(float(value) if np.isfinite(value) else None for value in found)
