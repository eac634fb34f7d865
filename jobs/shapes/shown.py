"""What the commands of `framefleet shapes` do, and what they print about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from framefleet.jobs.shapes.blank_model import write_blank_model
from framefleet.jobs.shapes.captions import LANGUAGES
from framefleet.jobs.shapes.dataset import write_dataset
from framefleet.jobs.shapes.evaluate import ATTRIBUTES, Score, evaluate
from framefleet.jobs.shapes.prompts import (
    GUIDANCE_SCALES,
    NUM_INFERENCE_STEPS,
    NUM_SCENES,
    prompt_rows,
    write_prompts,
)
from framefleet.jobs.shapes.scene import new_scenes
from framefleet.jobs.shapes.size import SIZE, Size, read_size
from framefleet.jobs.show.console import stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.pipeline.errors import JobError


def show_dataset(
    output: str,
    *,
    clips: int,
    seed: int = 0,
    new_clips: int = 0,
    sizes: Sequence[str] = (),
    repeats: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a dataset and print its table's place.

    new_clips: how many of them have the new shape or the new colour. sizes: each as "9x64x64". repeats: each
    as "star:4".
    """
    table = write_dataset(
        output,
        num_clips=clips,
        seed=seed,
        num_new=new_clips,
        sizes=_sizes(sizes),
        repeats=_repeats(repeats),
        storage_options=storage_options,
    )
    stdout.say(table)


def show_model(folder: Path, *, seed: int = 0) -> None:
    """Write the untrained pipeline and print where."""
    if folder.exists():
        raise JobError(f"{folder} exists already", "give a new folder")
    quiet_libraries()
    write_blank_model(folder, seed=seed)
    stdout.say(str(folder))


def show_prompts(
    file: str,
    *,
    scenes: int = NUM_SCENES,
    seed: int = 0,
    new: bool = False,
    languages: Sequence[str] = LANGUAGES,
    guidance_scales: Sequence[float] = GUIDANCE_SCALES,
    num_inference_steps: Sequence[int] = NUM_INFERENCE_STEPS,
    sizes: Sequence[str] = (),
    loras: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a table of held-out prompts for `render`; print its place."""
    rows = prompt_rows(
        num_scenes=scenes,
        seed=seed,
        among=new_scenes() if new else None,
        languages=languages,
        guidance_scales=guidance_scales,
        num_inference_steps=num_inference_steps,
        sizes=_sizes(sizes),
        loras=loras,
    )
    stdout.say(write_prompts(file, rows, storage_options))


def show_evaluate(
    output: str, *, as_json: bool = False, storage_options: Mapping[str, Any] | None = None
) -> None:
    """Print how often the clips of a render job show what was asked, for people or for machines."""
    scores = evaluate(output, storage_options)
    if as_json:
        print(json.dumps([_flat(score) for score in scores], indent=2))
    else:
        stdout.print(_table(scores))


def _sizes(texts: Sequence[str]) -> list[Size]:
    return [read_size(text) for text in texts] or [SIZE]


def _repeats(texts: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in texts:
        word, _, count = text.partition(":")
        if not count.isdecimal():
            raise JobError(f"--repeats {text!r}: it has no count", "write it as star:4")
        if word in counts:
            raise JobError(f"--repeats {text!r}: {word} is given twice", "leave one of them out")
        counts[word] = int(count)
    return counts


def _flat(score: Score) -> dict[str, Any]:
    values = asdict(score)
    return {**values.pop("settings"), "size": str(score.settings.size), **values}


def _table(scores: Sequence[Score]) -> Table:
    # The box has a space between columns; with more, 80 are not enough for a terminal.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    with_loras = any(score.settings.lora for score in scores)
    for name in (*(("lora",) if with_loras else ()), "lang.", "size"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "guidance", "clips", *(f"{name}\n%" for name in (*ATTRIBUTES, "all"))):
        table.add_column(name, justify="right")
    for score in scores:
        asked = score.settings
        shares = (f"{100 * getattr(score, name):.1f}" for name in (*ATTRIBUTES, "all"))
        lora = (asked.lora or "none",) if with_loras else ()
        guidance = f"{asked.guidance_scale:g}"
        numbers = (str(asked.num_inference_steps), guidance, str(score.num_clips))
        table.add_row(*lora, asked.language, str(asked.size), *numbers, *shares)
    return table
