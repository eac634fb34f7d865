"""Runs one process of a checked training until the trained weights are in its output.

A second run continues from the last checkpoint and gives the same weights, bit for bit: a step depends only
on the weights and moments before it, and on its number.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import torch

from framefleet.api.clips import Inputs, Media, Outcome, Request, clip_fps, encode
from framefleet.api.errors import JobError, RenderError, StoreError
from framefleet.api.models import ModelSettings, Renderer, is_out_of_memory, load
from framefleet.api.outputs import Store
from framefleet.pipeline.model.numerics import DEFAULT
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.outputs.clips import Failure
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.plugins.pictures.contact_sheet import contact_sheet
from framefleet.plugins.train.checkpoints import Checkpoints
from framefleet.plugins.train.dataset.batches import Batches, TrainingRows
from framefleet.plugins.train.dataset.prepared_cache import PreparedRows, read_ahead
from framefleet.plugins.train.finish import write_result
from framefleet.plugins.train.freezing import choose_parameters
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.learner import Learner
from framefleet.plugins.train.reports import Kept, Preparing, Step, TrainingReport, read_losses, write_losses
from framefleet.plugins.train.task import Finishes, Prepared, TrainingTask
from framefleet.plugins.train.world import World

# What a task measures over rows at the end (means, spreads) settles with this many.
FINISH_ROWS = 256

Tell = Callable[[TrainingReport], None]
STEPS_AHEAD = 1  # read while the step before is learned
_SAMPLES = "samples"  # the folder of clips and contact sheets, by step


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    model: ModelSettings
    files: Mapping[str, str]  # of the model, each with its SHA-256
    rows: TrainingRows
    settings: TrainSettings
    store: Store
    prepared: Store  # where latents and embeddings are kept
    inputs: Inputs  # opens the rows' videos
    samples: Sequence[Request] = ()  # what is rendered now and then


def run_training(training: Training, world: World, tell: Tell, is_ending: Callable[[], bool]) -> None:
    """Train to the last step, and write the result.

    tell: is given what happens, in the first process only. is_ending: asked there after each step; once it
    says so, a checkpoint is written, after which `tell` may raise.
    """
    try:
        with _repeatable(world.device):
            _Run(training, world, tell if world.is_first else lambda _: None, is_ending).run()
    except Exception as error:  # torch has no single class for it
        if not is_out_of_memory(error):
            raise
        raise JobError(
            f"memory ran out: {error}",
            "lower train.batch_size (and raise train.accumulation), set train.gradient_checkpointing, "
            "train.precision bf16 or smaller train.sizes; with several GPUs train.strategy fsdp",
        ) from error


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Make what torch computes repeatable, and leave it as it was: Python's caller may go on with it."""
    with warnings.catch_warnings():
        # Under autocast, norms of fp32 weights: that no fused kernel takes them is nothing to act on.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        if device.type != "cuda":
            yield
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable with it only
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        # On by default with it, for programs that read memory before they write it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


class _Run:
    def __init__(self, training: Training, world: World, tell: Tell, is_ending: Callable[[], bool]) -> None:
        self._training, self._world, self._tell, self._is_ending = training, world, tell, is_ending
        self._settings, self._store = training.settings, training.store
        tell("loading the model")
        # Batches of a training are what they are: nothing depends on how their products are summed.
        options = training.model.options.model_copy(update={"matmul": DEFAULT})
        self._model = load(replace(training.model, options=options), training.files)
        self._task = task_for(self._model.pipe, self._settings)
        self._rows = PreparedRows(
            training.rows,
            self._task,
            training.inputs.read,
            store=training.prepared,
            identity=_prepared_identity(training, self._model.pipe),
        )
        self._batches = Batches(training.rows, self._settings, world_size=world.size)
        self._checkpoints = Checkpoints(self._store, keep=self._settings.keep_checkpoints)
        self._losses: list[Step] = []

    def run(self) -> None:
        total, size = len(self._rows), self._world.size
        self._rows.prepare(
            rank=self._world.rank,
            world_size=size,
            progress=lambda done: self._tell(Preparing(done=min(done * size, total), total=total)),
        )
        self._world.wait()
        self._learner = Learner(self._task, self._settings, self._world)
        steps = range(self._resume(), self._settings.steps)
        places = range(self._settings.accumulation)

        def batches_of(step: int) -> list[list[Prepared]]:
            rows = (self._batches.rows_of(step, micro, self._world.rank) for micro in places)
            return [[self._rows[position] for position in batch] for batch in rows]

        for step, batches in zip(steps, read_ahead(batches_of, steps, count=STEPS_AHEAD), strict=True):
            done = self._learner.learn(step, batches)
            self._losses.append(done)
            self._tell(done)
            number, settings = done.step + 1, self._settings
            is_last = number == settings.steps
            is_sampled = settings.sample_every is not None and number % settings.sample_every == 0
            if self._training.samples and (is_last or is_sampled):
                self._sample(number)  # before the checkpoint, or a kill in between would leave them out
            if self._world.first_says(self._is_ending) or is_last or number % settings.checkpoint_every == 0:
                state = self._learner.state()
                if self._world.is_first:
                    write_losses(self._store, self._losses)
                    self._checkpoints.write(number, state, self._learner.scale())
                    self._tell(Kept(steps=number))
                else:
                    for _ in state:  # gathering takes all processes
                        pass
        with self._learner.result():
            if isinstance(self._task, Finishes):
                self._task.finish(self._rows.some(FINISH_ROWS))
            write_result(self._training, self._task, self._world)

    def _resume(self) -> int:
        """Return the first step to do, with weights and all else as they were before it."""
        if self._world.is_first:
            self._checkpoints.clear()
        self._world.wait()
        checkpoint = self._checkpoints.last()
        step = checkpoint.step if checkpoint else 0
        if self._world.mean(torch.tensor(float(step), device=self._world.device)).item() != step:
            raise StoreError(
                f"{self._store.url_of('')} differs between processes: this one is at step {step:,}",
                "choose an output that all machines of the fleet see",
            )
        if checkpoint is None:
            return 0
        self._tell(f"continuing after step {checkpoint.step:,}")
        try:
            self._learner.restore(self._checkpoints.read(checkpoint), checkpoint.scale)
        except (LookupError, RuntimeError, ValueError, TypeError) as error:  # sound, and of other weights
            raise JobError(
                f"checkpoint {checkpoint.step:,} of {self._store.url_of('')} does not fit this model: "
                f"{error!r}",
                "choose another output",
            ) from error
        self._losses = read_losses(self._store, before=checkpoint.step)
        return checkpoint.step

    def _sample(self, number: int) -> None:
        is_shared = self._settings.strategy == "fsdp"  # then a forward takes all processes
        if not (self._world.is_first or is_shared):
            return
        self._tell(f"rendering samples after step {number:,}")
        with self._learner.result():
            # One at a time: processes that share weights must make the same forwards, and a probe goes by
            # the clock.
            renderer = Renderer(self._model, Batching(mode="fast", max_rows=1), inputs=self._training.inputs)
            outcomes = list(renderer.render(self._training.samples))
        if self._world.is_first:
            for problem in _write_samples(self._store, number, outcomes):
                self._tell(problem)


def _prepared_identity(training: Training, pipe: Any) -> dict[str, Any]:
    """Return what latents and embeddings come from besides the rows: of denoisers the config, no weights."""
    denoisers: Mapping[str, Any] = modules_of(pipe, DENOISERS)
    return {
        "part": training.settings.part,
        "files": {file: sha256 for file, sha256 in training.files.items() if not file.startswith(DENOISERS)},
        # Without the version of diffusers that wrote a config, and the like.
        "denoisers": {
            name: {key: value for key, value in denoiser.config.items() if not key.startswith("_")}
            for name, denoiser in denoisers.items()
        },
        "dtypes": {name: str(part.dtype) for name, part in modules_of(pipe).items()},
        "options": training.model.options.numerics(),
        "versions": {name: metadata.version(name) for name in ("framefleet", "diffusers", "transformers")},
    }


def task_for(pipe: Any, settings: TrainSettings) -> TrainingTask:
    """Return the task; of its components' weights those that the job chooses require gradients."""
    task: TrainingTask
    # Imports one kind: each brings much along.
    if settings.part == "denoiser":
        from framefleet.plugins.train.denoiser.task import DenoiserTask

        task = DenoiserTask(pipe, settings)
    elif settings.part == "autoencoder":
        from framefleet.plugins.train.autoencoder import AutoencoderTask

        task = AutoencoderTask(pipe)
    else:
        from framefleet.plugins.train.text_encoder import TextEncoderTask

        task = TextEncoderTask(pipe)
    choose_parameters(task.trained, settings.only, settings.freeze, settings.lora is not None)
    return task


def _write_samples(store: Store, step: int, outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Write clips and their contact sheet; yield what is wrong with the others."""
    tiles = []
    for number, outcome in enumerate(outcomes, start=1):
        if isinstance(outcome, Failure):
            yield f"sample {number} could not be rendered: {outcome.error}"
            continue
        try:
            frames = to_frames(outcome)
        except RenderError as error:  # pixels beyond what a picture shows, as early weights may give
            yield f"sample {number} could not be shown: {error}"
            continue
        media = Media(format="png" if len(frames) == 1 else "mp4")
        fps = clip_fps(outcome.request.fps, outcome.native_fps)
        audio = outcome.audio if media.format == "mp4" else None
        content = encode(frames, media=media, fps=fps, metadata={"step": str(step)}, audio=audio)
        store.write(f"{_SAMPLES}/{step}/{number:02}{media.suffix}", content)
        prompt, seed = outcome.request.arguments.get("prompt", ""), outcome.request.seed
        tiles.append((frames, f"{prompt}\nseed {seed}, after step {step:,}"))
    if tiles:
        picture = io.BytesIO()
        contact_sheet(tiles).save(picture, format="PNG")
        store.write(f"{_SAMPLES}/{step}/contact-sheet.png", picture.getvalue())
