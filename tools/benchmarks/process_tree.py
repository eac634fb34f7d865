"""A process and all that it started, and the memory of each. Linux only: reads /proc."""

from __future__ import annotations

from pathlib import Path

from tests.jobs import descendants


def process_tree(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def pss_mib(pid: int) -> float:
    """Return what a process has in MiB, its part of what it shares (PSS); 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
