"""The command `framefleet skill`."""

from __future__ import annotations

from pathlib import Path

from framefleet.api.commands import stdout

SKILL = Path(__file__).with_name("SKILL.md")


def skill_command() -> None:
    """Print a skill: one page for agents on how to use framefleet."""
    stdout.say(SKILL.read_text("utf-8").rstrip("\n"))
