"""In: how many held-out scenes, at which settings. Out: a table of prompts for `render`.

What they ask for stands in columns of its own, which records carry for `evaluate`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.demo.prepare import Size
from tools.shapes.measure import MIN_FRAMES
from tools.shapes.scenes import LANGUAGES, SIZE, Scene, captions, check_size, held_out_scenes

NUM_SCENES = 200
GUIDANCE_SCALES = (1.0, 4.0, 6.0)
NUM_INFERENCE_STEPS = (16,)
SEED_STEP = 100_000  # seeds of two tables do not meet


def prompt_rows(
    *,
    num_scenes: int = NUM_SCENES,
    seed: int = 0,
    among: Sequence[Scene] | None = None,
    languages: Sequence[str] = LANGUAGES,
    guidance_scales: Sequence[float] = GUIDANCE_SCALES,
    num_inference_steps: Sequence[int] = NUM_INFERENCE_STEPS,
    sizes: Sequence[Size] = (SIZE,),
    loras: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return each scene once for every combination of settings, always with the same seed and wording.

    loras: as rows give them ("none", "style:0.8"); without any there is no such column.
    """
    _check(num_scenes, languages, sizes)
    rows = []
    for index, scene in enumerate(held_out_scenes(num_scenes, seed=seed, among=among)):
        row_seed = seed * SEED_STEP + index
        said = captions(scene, seed=row_seed)
        for language, guidance_scale, steps, size, lora in product(
            languages, guidance_scales, num_inference_steps, sizes, loras or (None,)
        ):
            row = {
                "prompt": said[language],
                "seed": row_seed,
                "guidance_scale": guidance_scale,
                "num_inference_steps": steps,
                **size._asdict(),
                "language": language,
                **asdict(scene),
            }
            rows.append(row if lora is None else row | {"lora": lora})
    return rows


def _check(num_scenes: int, languages: Sequence[str], sizes: Sequence[Size]) -> None:
    if num_scenes < 1:
        raise JobError(f"{num_scenes} scenes are not table", "ask for at least 1")
    for language in languages:
        if language not in LANGUAGES:
            raise JobError(f"no prompts in {language!r}", f"use {' or '.join(LANGUAGES)}")
    for size in sizes:
        check_size(size)
        if size.num_frames < MIN_FRAMES:
            raise JobError(f"size {size}: motion is not to be seen in it", f"use {MIN_FRAMES} frames or more")


def write_prompts(
    file: str, rows: Sequence[Mapping[str, Any]], storage_options: Mapping[str, Any] | None = None
) -> str:
    """Write the rows as CSV and return where; StoreConflict when another table is there."""
    folder, _, name = file.replace("\\", "/").rpartition("/")
    if not name.endswith(".csv"):
        raise JobError(f"{file} is not a name for a table", "give one that ends in .csv")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    store = Store(folder or ".", storage_options)
    store.create(name, text.getvalue().encode())
    return store.url_of(name)
