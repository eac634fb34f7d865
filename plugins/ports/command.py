"""The command `framefleet model convert`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from framefleet.api.commands import quiet_libraries, stderr, stdout
from framefleet.api.errors import command


def convert_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="Original .ckpt, .safetensors or .gguf file, or the folder of one."
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Pipeline folder to write. Must not exist yet.")
    ],
    variant: Annotated[
        str | None, typer.Option("--variant", help="Name of the model, if its tensors do not show it.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Pipeline that a single file was made for: a folder, org/name on the hub, or a URL.",
        ),
    ] = None,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="NAME=FILE",
            help="File with the weights of one component of the base, e.g. vae=vae.safetensors; repeatable.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Dtype of weights, but not those of --base: fp32, fp16 or bf16. Default: as they are.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Set what the tensors do not show, e.g. vae.norm_num_groups=8, or the place of an encoder "
            "that the checkpoint lacks, e.g. text_encoder=DIR; repeatable.",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint into a pipeline folder with plain weights.

    Without --base: the original files of VideoCrafter, DynamiCrafter or Open-Sora, which diffusers does not
    have. With --base: whatever diffusers reads from a single file.
    """
    from framefleet.api.jobs import places
    from framefleet.jobs.job.file import config_values

    settings, files = config_values(sets or []), places(parts or [], "--part")
    quiet_libraries()
    from framefleet.plugins.ports.conversion.convert import convert_model

    with _bytes_written() as on_progress:
        done = convert_model(
            checkpoint,
            folder,
            base=base,
            parts=files,
            variant=variant,
            dtype=dtype,
            settings=settings,
            on_progress=on_progress,
        )
    of_file = f"with {', '.join(done.components)} of the file"
    what = f"{done.variant}, {done.class_name}" if done.variant else f"{done.class_name}, {of_file}"
    stdout.say(f"{folder}: {what}")
    stdout.say(f"next: {command('model', 'lock', folder)}")


@contextmanager
def _bytes_written() -> Iterator[Callable[[int, int], None]]:
    """Show bytes, rate and time left on a terminal, and nothing in a log. Yield what reports to it."""
    from framefleet.jobs.show.progress import BAR_WIDTH

    columns = (BarColumn(BAR_WIDTH), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
