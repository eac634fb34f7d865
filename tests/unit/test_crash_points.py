"""Commands that are killed at changes of an output, and run again: at some points, and at all (long)."""

from __future__ import annotations

import subprocess

import pytest

from tests.warm.process import start
from tools.chaos.crash_points import COMMANDS


def check(*arguments: str) -> None:
    process = start("-m", "tools.chaos.crash_points", *arguments, stderr=subprocess.STDOUT)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed


def test_nothing_is_lost_doubled_changed_or_astray_after_a_kill() -> None:
    check("--every", "80")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_nor_after_a_kill_at_any_other_point(name: str) -> None:
    check(name)
