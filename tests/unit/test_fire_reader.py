"""What tools/benchmarks/fire_reader.py counts: rows of an output, each with the digests of its clips."""

from __future__ import annotations

from tools.benchmarks.fire_reader import Counts, counts


def test_rows_are_counted_once_twice_never_and_with_wrong_bytes() -> None:
    undisturbed = {"a": ["1"], "b": ["2"], "c": ["3"], "d": ["4"], "e": ["5"]}
    clips = {"a": ["1"], "b": ["2", "2"], "d": ["x"], "e": ["5", ""]}
    assert counts([*undisturbed], clips, undisturbed) == Counts(once=2, twice=2, never=1, wrong=2)
    assert counts([*undisturbed], undisturbed, undisturbed) == Counts(once=5, twice=0, never=0, wrong=0)
