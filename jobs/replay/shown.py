"""What `framefleet replay` does, and what it prints about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from framefleet.jobs.replay.recorded_row import Given
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.pipeline.errors import JobError

if TYPE_CHECKING:
    from framefleet.jobs.replay.compare import Compared


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
    if not replayed.is_equal:
        said = ", ".join([replayed.compared.verdict, *said_of(replayed.compared)])
        stdout.say(Text("verdict: ").append(said, style="red"))
        if replayed.compared.doubt:
            stdout.say(unforged(f"  {replayed.compared.doubt}"))
    for name, then, now in replayed.differences:
        stdout.say(unforged(f"{name}: {then} then, {now} now"))
    if save is not None:
        save.write_bytes(replayed.media)
        stderr.say(f"clip: {save}")
    return replayed.is_equal


def said_of(compared: Compared) -> list[str]:
    """Return what is said of a difference beside its verdict, in the order in which it is read."""
    found = [" and ".join(compared.which)] if compared.which else []
    if compared.share is not None:
        found.append(f"{compared.num_pixels:,} pixels ({100 * compared.share:.2g} %)")
        found.append(f"by {compared.max_levels:.3g} of 255 levels at most")
    if compared.psnr_db is not None:
        found.append(f"PSNR {compared.psnr_db:.1f} dB")
    if compared.one_level_psnr_db is not None:
        found.append(f"where one level everywhere is {compared.one_level_psnr_db:.1f} dB")
    return found


def unforged(text: str) -> str:
    """Return text of records, which could forge lines, in one line."""
    return text.replace("\n", "\\n")


def show_script(output: str, row_id: str, given: Given) -> None:
    """Print the script that renders one row again."""
    quiet_libraries()
    from framefleet.jobs.replay.script import replay_script

    print(replay_script(output, row_id, given), end="")
