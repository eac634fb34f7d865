"""How long a model waits for pixels: clips of few steps, where all but the networks is real.

    python -m tools.benchmarks.pixels                    # 16 rows of 81 x 480 x 832, 4 steps of 0.5 s
    python -m tools.benchmarks.pixels --max-rows 8 --cache
    python -m tools.benchmarks.pixels --all              # max_rows of 1 and 8, without and with a step cache
    python -m tools.benchmarks.pixels --short

The denoiser sleeps without holding the GIL, as a thread does whose GPU computes, as long for each row of a
forward: large clips do not gain from batches. The decoder gives coloured blocks. The pipeline, its
postprocessing, the worker, its encoders and the store are what they always are. One line is a recipe that
looks at its frames, so that the array is made between two forwards. Idle is counted from the first row's
start to the last one's clip. The scheduler's arithmetic is work of the GPU, which the processor does here, so
idle time is told without it too. The first line is a script for this one model: it calls the pipeline, and a
thread makes and writes the frames. Prints figures and judges none.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler

from framefleet import Request, load_model
from framefleet.cluster.worker.messages import Assignment, Hello, WorkerReport, WorkerSetup
from framefleet.cluster.worker.worker import Worker
from framefleet.pipeline.metrics import BUSY, WORKER_SECONDS
from framefleet.pipeline.model.model import Model, ModelSettings
from framefleet.pipeline.model.options.schema import FirstBlock, Options
from framefleet.pipeline.outputs.file_step import FileStep
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.fused import trials
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.inputs.access import Inputs
from tools.benchmarks.command_line import parsed
from tools.benchmarks.results import Result, Tell, tables
from tools.benchmarks.table import build_model

_STEPS, _MEDIA = 4, Media()
_SCHEDULER = UniPCMultistepScheduler  # of the model


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """What is rendered."""

    rows: int
    num_frames: int
    height: int
    width: int
    step_s: float


FULL = Clips(rows=16, num_frames=81, height=480, width=832, step_s=0.5)
SHORT = Clips(rows=2, num_frames=5, height=32, width=64, step_s=0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """busy_s: while there were rows. cpu_s: of the process. idle: seconds of busy_s, by cause.

    scheduler_s: of the idle ones, in the scheduler's arithmetic.
    """

    busy_s: float
    cpu_s: float
    idle: Mapping[str, float]
    scheduler_s: float


def looking(pipe: Any, request: Request) -> Any:
    """Render as the recipe generate does, and have an array."""
    output = pipe(**request.arguments, generator=request.generator(), output_type="np")
    return np.asarray(output.frames)


WAYS = {"generate": None, "a recipe that looks": Recipe(name="looking", function=looking, digest="0" * 64)}


def main() -> None:
    found: list[Result] = []
    run(sys.argv[1:], found.append)
    print(tables(found))


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell what is measured of each recipe."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.pixels", description=__doc__)
    parser.add_argument("--device", default="cpu", help="where pixels are made; cuda: of a GPU")
    parser.add_argument("--max-rows", type=int, default=1, help="rows that may share a forward")
    parser.add_argument("--cache", action="store_true", help="with a step cache, so that rows run alone")
    parser.add_argument("--short", action="store_true", help="two small rows; its figures mean nothing")
    parser.add_argument(
        "--all", action="store_true", help="rows of one and of 8, without and with a step cache"
    )
    options = parsed(parser, argv)
    clips = SHORT if options.short else FULL
    ways = (
        [(1, False), (8, False), (1, True), (8, True)] if options.all else [(options.max_rows, options.cache)]
    )
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(Path(folder, "model"))
        tell({"max_rows": 1, "step cache": "no"} | _result(clips, "a script", measure_script(clips, model)))
        for place, (max_rows, is_cached) in enumerate(ways):
            setup = {"device": options.device, "max_rows": max_rows, "is_cached": is_cached}
            for result in figures(clips, model, Path(folder, f"{place}"), **setup):
                tell({"max_rows": max_rows, "step cache": "yes" if is_cached else "no"} | result)


def figures(clips: Clips, model: Path, folder: Path, **setup: Any) -> Iterator[Result]:
    """Yield those of each recipe. setup: see `measure`."""
    for name, recipe in WAYS.items():
        yield _result(clips, name, measure(clips, model, folder / name, recipe, **setup))


def _result(clips: Clips, name: str, spent: Spent) -> Result:
    causes = ", ".join(f"{cause} {seconds / spent.busy_s:.1%}" for cause, seconds in spent.idle.items())
    return {
        "recipe": name,
        "clips": f"{clips.rows} of {clips.num_frames} x {clips.height} x {clips.width}",
        "s a row": f"{spent.busy_s / clips.rows:.2f}",
        "of it steps": f"{_STEPS * clips.step_s:.2f}",
        "CPU s a row": f"{spent.cpu_s / clips.rows:.2f}",
        "idle": f"{(idle_s := sum(spent.idle.values())) / spent.busy_s:.1%}",
        "without the scheduler": f"{(idle_s - spent.scheduler_s) / spent.busy_s:.1%}",
        "by cause": causes,
    }


def measure_script(clips: Clips, model: Path) -> Spent:
    """Call the pipeline for one row after the other, while a thread makes and writes the frames."""
    pipe = load_model(str(model), dtype="fp32", device="cpu").pipe
    _replace_networks(pipe, clips)
    networks, scheduler = _Stopwatch(), _Stopwatch()
    for part, method in ((pipe.text_encoder, "forward"), (pipe.transformer, "forward"), (pipe.vae, "decode")):
        setattr(part, method, networks.around(getattr(part, method)))
    pipe.scheduler.step = scheduler.around(pipe.scheduler.step)
    convert = pipe.video_processor.postprocess_video
    pipe.video_processor.postprocess_video = lambda video, output_type: video

    def write(video: torch.Tensor) -> bytes:
        frames = (convert(video, output_type="np")[0] * 255).round().astype(np.uint8)
        return encode(frames, media=_MEDIA, fps=16, metadata={})

    def render(queue: ThreadPoolExecutor, seed: int) -> None:
        request = _request(clips, "generate", seed)
        video = pipe(**request.arguments, generator=request.generator(), output_type="np").frames
        queue.submit(write, video)

    with ThreadPoolExecutor(1) as queue:
        render(queue, 0)
    with ThreadPoolExecutor(1) as queue:
        networks.seconds = scheduler.seconds = 0.0
        cpu_s, started = _cpu_s(), time.perf_counter()
        for seed in range(1, clips.rows + 1):
            render(queue, seed)
        busy_s = time.perf_counter() - started
    idle = {"pipeline": busy_s - networks.seconds}
    return Spent(busy_s=busy_s, cpu_s=_cpu_s() - cpu_s, idle=idle, scheduler_s=scheduler.seconds)


def measure(
    clips: Clips,
    model: Path,
    output: Path,
    recipe: Recipe | None,
    *,
    device: str = "cpu",
    media: Media = _MEDIA,
    steps: Mapping[str, FileStep] | None = None,
    max_rows: int = 1,
    is_cached: bool = False,
) -> Spent:
    """Render all rows with one worker, which has rendered one before. is_cached: with a step cache."""
    options = Options(cache=FirstBlock(type="first_block") if is_cached else None)
    worker = _sleeping(clips)(
        WorkerSetup(
            model=ModelSettings(path=str(model), dtype="fp32", device=device, options=options),
            batching=Batching(max_rows=max_rows, remember=False),
            media=media,
            steps=steps or {},
            audit=Audit(every=0),
            store=Store(str(output)),
            recipes={recipe.name: recipe} if recipe else {},
            inputs=Inputs([str(output)]),
        )
    )
    name, scheduler = recipe.name if recipe else "generate", _Stopwatch()
    with (
        mock.patch.object(trials, "now", time.perf_counter),  # as on a GPU: who sleeps takes no CPU time
        mock.patch.object(_SCHEDULER, "step", scheduler.around(_SCHEDULER.step)),
    ):
        while not isinstance(worker.start(), Hello):
            pass
        before, cpu_s = _rendered(worker, [_assignment(clips, name, 0)]), _cpu_s()
        scheduler.seconds = 0.0
        after = _rendered(worker, [_assignment(clips, name, seed) for seed in range(1, clips.rows + 1)])
    first, last = (WORKER_SECONDS.by_label(report.figures) for report in (before, after))
    spent = {cause: seconds - first.get(cause, 0.0) for cause, seconds in last.items()}
    busy_s = sum(spent.values()) - spent.pop("rows", 0.0)
    idle = {cause: seconds for cause, seconds in spent.items() if cause not in BUSY and seconds}
    by_size = dict(sorted(idle.items(), key=lambda part: -part[1]))
    return Spent(busy_s=busy_s, cpu_s=_cpu_s() - cpu_s, idle=by_size, scheduler_s=scheduler.seconds)


def _rendered(worker: Worker, assignments: list[Assignment]) -> WorkerReport:
    """Hand rows to a worker; return its report once all of them are stored."""
    report, left = worker.exchange(assignments), len(assignments)
    while True:
        assert not report.failed, report.failed
        left -= len(report.rendered)
        if not left:
            return report
        report = worker.exchange([])


def _assignment(clips: Clips, recipe: str, seed: int) -> Assignment:
    return Assignment(row_id=f"{seed:032x}", request=_request(clips, recipe, seed), attempt=1)


def _request(clips: Clips, recipe: str, seed: int) -> Request:
    arguments = {
        "prompt": "a red ball bounces",
        "num_inference_steps": _STEPS,
        "guidance_scale": 1.0,
        "num_frames": clips.num_frames,
        "height": clips.height,
        "width": clips.width,
    }
    return Request(arguments=arguments, seed=seed, recipe=recipe)


def _sleeping(clips: Clips) -> type[Worker]:
    class Sleeping(Worker):
        """A worker whose networks take time in place of the processor."""

        def _load(self, model: Model | None) -> Model:
            loaded = super()._load(model)
            _replace_networks(loaded.pipe, clips)
            return loaded

    return Sleeping


def _replace_networks(pipe: Any, clips: Clips) -> None:
    def denoise(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        time.sleep(clips.step_s * len(hidden_states))
        return (hidden_states * 0.1,)

    def decode(latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        size = (clips.num_frames, clips.height, clips.width)
        return (torch.nn.functional.interpolate(latents[:, :3] / 2, size=size),)

    pipe.transformer.forward, pipe.vae.decode = denoise, decode


@dataclass
class _Stopwatch:
    """How long calls took, of one thread at a time."""

    seconds: float = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
