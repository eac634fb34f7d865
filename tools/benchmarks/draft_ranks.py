"""How well cheap drafts of the demo's model tell which are good in full: the figures of docs/why/commands.md.

    python -m tools.benchmarks.draft_ranks [--seeds 6] [--prompts 8] [--sheet docs/drafts.png]

Renders the same rows at several step counts, sizes and guidance scales in this process, and prints
Spearman's rank correlations of their scores. Takes seven minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

import framefleet
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.demo.prepare import MODEL, PROMPTS
from framefleet.plugins.scores.clip_scores import OWN_SCORES

SCORES = ("sharpness", "motion", "flicker")
WAYS = {
    "4 steps": {"num_inference_steps": 4},
    "8 steps": {"num_inference_steps": 8},
    "16 steps": {"num_inference_steps": 16},
    "16 steps, 96 x 96": {"num_inference_steps": 16, "height": 96, "width": 96},
    "16 steps, guidance 7": {"num_inference_steps": 16, "guidance_scale": 7.0},
}
FULL, SHOWN = "16 steps", 3  # prompts on the sheet
Row = tuple[str, int]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    with open(PROMPTS, encoding="utf-8") as file:
        prompts = list(dict.fromkeys(row["prompt"] for row in csv.DictReader(file)))[: options.prompts]
    model = framefleet.load_model(str(MODEL))
    rows = [(prompt, seed) for prompt in prompts for seed in range(options.seeds)]
    clips = {way: rendered(model, rows, changed) for way, changed in WAYS.items()}
    for way in clips:
        if way != FULL:
            print(f"{way} against {FULL}: {ranks(clips[way], clips[FULL])}")
    if options.sheet:
        sheet(clips, [(prompt, 1) for prompt in prompts[: 2 * SHOWN : 2]]).save(options.sheet)


def rendered(model: framefleet.Model, rows: list[Row], changed: dict[str, float]) -> dict[Row, Frames]:
    given = {**next(one.arguments for one in PRESETS if one.name == "framefleet-shapes"), **changed}
    requests = [framefleet.Request(arguments={**given, "prompt": prompt}, seed=seed) for prompt, seed in rows]
    found = {}
    for clip in framefleet.Renderer(model).render(requests):
        assert isinstance(clip, framefleet.Clip)
        found[clip.request.arguments["prompt"], clip.request.seed] = clip.frames
    return found  # type: ignore[return-value]  # 8 bits, with frames


def ranks(drafts: dict[Row, Frames], full: dict[Row, Frames]) -> str:
    """Over all rows; the mean within prompts; and in how many rows the score is higher than in full."""
    said = []
    for name in SCORES:
        pairs = {row: (measured(name, drafts[row]), measured(name, full[row])) for row in full}
        by_prompt = [
            spearman([pair for row, pair in pairs.items() if row[0] == prompt])
            for prompt in dict.fromkeys(row[0] for row in full)
        ]
        higher = np.mean([one > other for one, other in pairs.values()])
        said.append(
            f"{name} {spearman(list(pairs.values())):.2f} (within prompts {np.mean(by_prompt):.2f}, "
            f"higher in {higher:.0%})"
        )
    return ", ".join(said)


def measured(name: str, frames: Frames) -> float:
    return float(OWN_SCORES[name].function(frames, {}))  # type: ignore[arg-type]  # of nine frames none is None


def spearman(pairs: list[tuple[float, float]]) -> float:
    places = [np.argsort(np.argsort(values)) for values in zip(*pairs, strict=True)]
    return float(np.corrcoef(*places)[0, 1])


def sheet(clips: dict[str, dict[Row, Frames]], rows: list[Row]) -> Image.Image:
    """Five frames of each row, one line for each way, all at one size."""
    lines = []
    for row in rows:
        for way in WAYS:
            stills = [Image.fromarray(frame).resize((64, 64)) for frame in clips[way][row][::2]]
            lines.append(np.concatenate([np.asarray(still) for still in stills], axis=1))
    columns = np.array_split(np.stack(lines), len(rows))
    whole = np.concatenate([np.concatenate(list(column)) for column in columns], axis=1)
    return Image.fromarray(whole).quantize(64)


if __name__ == "__main__":
    main()
