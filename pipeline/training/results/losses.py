"""In: what each step was like. Out: `loss.jsonl` in the output, a line for each step; and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import TypeAdapter

from framefleet.pipeline.outputs.stores.json_file import read_as
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.training.reports import Step

LOSSES_PATH = "loss.jsonl"
_STEP = TypeAdapter(Step)


def write_losses(store: Store, steps: Sequence[Step]) -> None:
    """Write all of them: no object store appends."""
    store.write(LOSSES_PATH, "".join(json.dumps(asdict(step)) + "\n" for step in steps).encode())


def read_losses(store: Store, *, before: int | None = None) -> list[Step]:
    """Return what was written, or what of it came before a step; a resumed run does the others again."""
    if not store.exists(LOSSES_PATH):
        return []
    where = store.url_of(LOSSES_PATH)
    fix = f"delete {where}, and run the same command"
    steps = [read_as(_STEP, line, where, fix=fix) for line in store.read(LOSSES_PATH).splitlines()]
    return [step for step in steps if before is None or step.step < before]
