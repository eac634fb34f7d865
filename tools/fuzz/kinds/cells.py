"""Cells that no row can be rendered with."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.pipeline.recipes.catalog import BUILT_IN
from tools.fuzz import hostile
from tools.fuzz.case import Case
from tools.fuzz.kinds.tables import planned
from tools.fuzz.material import Material

COLUMNS = (
    "prompt",
    "negative_prompt",
    "seed",
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "max_sequence_length",
    "scheduler",
    "recipe",
    "lora",
    "fps",
    "image",
    "video",
    "image_model",
    "keyframe_model",
    "duration_s",
    "strength",
    "tag",
)


def cells(rng: Random, folder: Path, material: Material) -> Case:
    """A table of valid Parquet, some columns of which hold hostile cells."""
    count = rng.choice((1, 3, 12))
    columns = {"prompt": pa.array([f"a ball {number}" for number in range(count)])}
    chosen = rng.sample(COLUMNS, rng.choice((1, 2, 3, 6)))
    for name in chosen:
        columns[name] = _column(rng, count)
    pq.write_table(pa.table(columns), folder / "t.parquet")
    (folder / "style.safetensors").write_bytes(material.lora)
    # what a cell may reach by mistake: importing it would leave a file
    (folder / "generate.py").write_text("open('was-run', 'w').close()\ndef x(pipe, request): ...\n")
    more = {"on_invalid": rng.choice(("fail", "skip"))}
    if rng.random() < 0.3:
        more |= {"loras": {"style": "style.safetensors"}}
    if rng.random() < 0.3:
        more |= {"recipe": rng.choice(list(BUILT_IN))}
    return planned(folder, "t.parquet", material, f"cells of {', '.join(chosen)}", **more)


def _column(rng: Random, count: int) -> pa.Array:
    """Return cells of one type, as a column has them."""
    if rng.random() < 0.5:
        texts = [hostile.cell(rng) for _ in range(count)]
        return pa.array(texts)
    numbers = [hostile.number(rng) for _ in range(count)]
    try:
        return pa.array(numbers, pa.int64()) if rng.random() < 0.5 else pa.array([float(n) for n in numbers])
    except (pa.ArrowException, OverflowError):
        return pa.array([rng.choice((0, -1, 1, 7, 2**62, -(2**63))) for _ in range(count)])
