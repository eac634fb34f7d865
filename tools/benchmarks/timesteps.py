"""What changes where a flow's denoiser is shown timesteps with fractions: losses of the same rows and noise.

    python -m tools.benchmarks.timesteps [--short]

Tiny pipelines with random weights, and the model of `framefleet demo`, which was trained at whole timesteps.
For each, of the same draws: the mean loss as rendering shows timesteps and with fractions, and the largest
change of one draw's loss. Judges none.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import framefleet
from framefleet.plugins.train.denoiser.objective import FlowMatching
from framefleet.plugins.train.denoiser.task import DenoiserTask
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow
from tests.denoiser_rows import bucket_of, pipe_of, prepared
from tools.shapes.drawing import draw
from tools.shapes.scenes import captions, training_scenes

TINY = ("wan", "wan_ti2v", "wan_i2v", "ltx", "sd3", "flux")
DEMO = Path(framefleet.__file__).resolve().parents[1] / "plugins/demo/shapes/model"
NUM_DRAWS = 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.timesteps", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the first tiny pipeline alone")
    is_short = parser.parse_args().short
    for name in TINY[: 1 if is_short else None]:
        pipe = pipe_of(name)
        tasks = [_task(pipe, is_on) for is_on in (False, True)]
        compare(name, tasks, prepared(tasks[0], name), bucket_of(name))
    if is_short:
        return
    pipe, bucket = framefleet.load_model(DEMO, dtype="fp32").pipe, Bucket(num_frames=9, height=64, width=64)
    tasks = [_task(pipe, is_on) for is_on in (False, True)]
    rows = []
    for index, scene in enumerate(training_scenes(3, seed=0)):
        arguments = {"prompt": next(iter(captions(scene, seed=index).values())), "max_sequence_length": 64}
        row = TrainingRow(index=index, video="", sha256="", arguments=arguments, bucket=bucket)
        rows.append(tasks[0].prepare(row, draw(scene, seed=index)))
    compare("demo's model", tasks, rows, bucket)


def _task(pipe: object, is_fractional: bool) -> DenoiserTask:
    return DenoiserTask(pipe, TrainSettings(steps=1, fractional_timesteps=is_fractional, prompt_dropout=0))


@torch.no_grad()
def compare(name: str, tasks: Sequence[DenoiserTask], rows: Sequence[Prepared], bucket: Bucket) -> None:
    """Print the losses of the same draws with whole timesteps and with fractions."""
    _, objective = tasks[0]._bucket(bucket)
    assert isinstance(objective, FlowMatching)
    draws = [(rows[seed % len(rows)], seed) for seed in range(NUM_DRAWS)]
    shown, fractional = (
        torch.stack([task.loss([row], torch.Generator().manual_seed(seed)) for row, seed in draws])
        for task in tasks
    )
    most = float(((fractional - shown).abs() / shown).max())
    change = float(fractional.mean() / shown.mean() - 1)
    print(
        f"{name}: loss {shown.mean():.4f} as rendering shows timesteps, {fractional.mean():.4f} with "
        f"fractions ({100 * change:+.2f} %); of one draw by {100 * most:.1f} % at most"
    )


if __name__ == "__main__":
    main()
