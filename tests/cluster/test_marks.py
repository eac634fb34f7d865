"""Clips that were rendered with every mark, and edited: each is traced to its row."""

from __future__ import annotations

from tools.benchmarks.marks import round_trip


def test_edited_clips_are_traced_to_their_rows(ray_cluster: str) -> None:
    *_, total = round_trip(6, ray_cluster)
    names = ("rows", "found", "wrong", "stored ones signed and stamped")
    assert [total[name] for name in names] == [6, 6, 0, 6]
