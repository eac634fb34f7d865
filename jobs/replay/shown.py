"""What `framefleet replay` does, and what it prints about it."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from framefleet.jobs.replay.recorded_row import Given
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.pipeline.errors import JobError


def show_replay(output: str, row_id: str, given: Given, *, save: Path | None) -> bool:
    """Render one row again and print what is equal; return whether frames and sound are."""
    if save is not None and not save.parent.is_dir():
        raise JobError(f"--save {save}: {save.parent} is not a folder", "make it first")
    quiet_libraries()
    from framefleet.jobs.replay.replay import replay

    replayed = replay(output, row_id, given)
    for name, then, now in replayed.digests:
        outcome = Text("equal", style="green") if then == now else Text("different", style="red")
        said = f"  {now}" if then == now else f"\n  record {then}\n  now    {now}"
        stdout.say(Text(f"{name}: ").append(outcome).append(said))
    for damage in replayed.damages:
        stdout.say(Text("stored clip: ").append(damage.kind, style="red").append(f"  {damage.path}"))
    for name, then, now in replayed.differences:
        line = f"{name}: {then} then, {now} now"  # of records, which could forge the lines above
        stdout.say(line.replace("\n", "\\n"))
    if save is not None:
        save.write_bytes(replayed.media)
        stderr.say(f"clip: {save}")
    return replayed.is_equal


def show_script(output: str, row_id: str, given: Given) -> None:
    """Print the script that renders one row again."""
    quiet_libraries()
    from framefleet.jobs.replay.script import replay_script

    print(replay_script(output, row_id, given), end="")
