"""The simulator's own command, small, and worlds that it draws."""

from __future__ import annotations

import re

import pytest

from tests.simulator.__main__ import check_small_world, main


def test_small_worlds_end_every_row_once() -> None:
    for seed in range(200):
        check_small_world(seed)


@pytest.mark.ci
def test_thousands_of_small_worlds_end_every_row_once() -> None:
    for seed in range(200, 3200):
        check_small_world(seed)


@pytest.mark.parametrize(
    "faults", [[], ["--tail", "0.5", "--deaths", "0.01", "--sick"]], ids=["no faults", "faults"]
)
def test_a_fleet_is_compared_with_one_that_never_rests(
    faults: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--workers", "50", "--rows", "5000"]
    monkeypatch.setattr("sys.argv", ["simulator", *few, *faults])
    main()
    said = capsys.readouterr().out
    above = re.search(r"([\d.]+)% above the ideal", said)
    assert above and float(above[1]) < 20  # of virtual time: the same on every machine
    assert f"given up      0 rows, {5 if faults else 0} machines" in said
