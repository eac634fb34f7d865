"""Pictures of the clips of a local output: a contact sheet, and an animation of the newest."""

from __future__ import annotations

from pathlib import Path

from framefleet.jobs.look.sheet.choice import MAX_CLIPS, ClipChoice
from framefleet.jobs.look.sheet.sheet import draw_grid, draw_sheet
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.parts import read_folder, rows_of
from framefleet.pipeline.outputs.stores.store import Store

MAX_MOVING, _TILE = 18, 224  # clips in the animation, and the width of one in pixels


def draw_pictures(folder: Path) -> dict[str, Path]:
    """Draw the clips of a local output, in table order; return what is where, nothing without clips."""
    store = Store(str(folder))
    rows = sorted(record["row_indices"][0] for record in rows_of(read_folder(store), store.url_of(RECORDS)))
    if not rows:
        return {}
    sheet, animation = folder / "contact-sheet.png", folder / "demo.gif"
    draw_sheet(store, sheet, ClipChoice(limit=min(len(rows), MAX_CLIPS)), tile=None)
    newest = f"row_indices[1] >= {rows[-MAX_MOVING]}" if len(rows) > MAX_MOVING else None
    draw_grid(store, animation, ClipChoice(limit=MAX_MOVING, where=newest), tile=_TILE)
    return {"contact sheet": sheet, "animation": animation}
