"""What `framefleet model list` prints: the presets, one line each."""

from __future__ import annotations

from rich import box
from rich.table import Table

from framefleet.jobs.model.page import frames_text, makes, size_text
from framefleet.jobs.show.console import EscapingConsole, stdout
from framefleet.pipeline.model.families.known import PRESETS

# Where stdout is no terminal: more than any line has, for a line that is cut cannot be searched.
WIDTH = 1000


def show_list() -> None:
    """Print every preset with its native values and the hub model it is of."""
    console = stdout if stdout.is_terminal else EscapingConsole(width=WIDTH)
    console.print(_table())


def _table() -> Table:
    table = Table("preset", "makes", "size", "frames", box=box.SIMPLE_HEAD)
    for name in ("steps", "weights GB"):
        table.add_column(name, justify="right")
    table.add_column("model", overflow="fold")
    for preset in PRESETS:
        steps, weights_gb = preset.arguments["num_inference_steps"], sum(preset.weights_gb().values())
        model = preset.models[0] if preset.models else "see docs/models.md"
        made = (makes(preset), size_text(preset), frames_text(preset))
        table.add_row(preset.name, *made, str(steps), f"{weights_gb:.1f}", model)
    return table
