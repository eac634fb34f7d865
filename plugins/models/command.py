"""The commands `framefleet model list`, `info`, `lock` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from framefleet.api.commands import AllowPickle, stderr, stdout
from framefleet.api.errors import bytes_text, command, count_text
from framefleet.api.texts import public_url

if TYPE_CHECKING:
    from framefleet.plugins.models.models import ModelFiles, ModelInfo

_ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Pipeline: a folder, a hub id (org/name) or a URL.")
]
_Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")]
_Base = Annotated[
    str | None,
    typer.Option("--base", help="Pipeline that MODEL was made for, if it is one file, as in `model.base`."),
]
_Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part", metavar="NAME=FILE", help="File with a component's weights, as in a job; repeatable."
    ),
]

_COMPARED = {"lock": "locked", "cache": "named in the cache"}


def lock_command(
    model: _ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="File to write. Default: in the model's folder if it is local and has no --part, else in "
            "the current folder.",
        ),
    ] = None,
    revision: _Revision = None,
    base: _Base = None,
    parts: _Parts = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write model.lock.json with size and SHA-256 of each file to load. `render` then refuses other files."""
    from framefleet.api.jobs import places
    from framefleet.plugins.models.models import lock_model

    with stderr.status(f"reading {public_url(model)}"):
        locked = lock_model(
            model,
            output,
            revision=revision,
            base=base,
            parts=places(parts or [], "--part"),
            allow_pickle=allow_pickle,
        )
    stdout.say(f"{locked.lock}: {_counted(locked)}, digest {locked.digest}")


def verify_command(
    model: _ModelArgument,
    lock: Annotated[
        Path | None, typer.Option("--lock", help="Lock file. Default: the one in the model's folder.")
    ] = None,
    revision: _Revision = None,
    base: _Base = None,
    parts: _Parts = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Read every file that would be loaded, and compare it with the lock and with the hub's digests."""
    from framefleet.api.jobs import places
    from framefleet.plugins.models.models import verify_model

    with stderr.status(f"reading {public_url(model)}"):
        read = verify_model(
            model,
            lock,
            revision=revision,
            base=base,
            parts=places(parts or [], "--part"),
            allow_pickle=allow_pickle,
        )
    by = " and ".join(_COMPARED[one] for one in read.compared_with)
    stdout.say(f"{_counted(read)}, as {by}, digest {read.digest}")


def list_command(
    classes: Annotated[
        bool,
        typer.Option("--classes", help="List every pipeline class of diffusers, with its results in tests."),
    ] = False,
) -> None:
    """List the known models: native size, frames and steps, size of the weights, and hub name."""
    stdout.print(_classes() if classes else _presets())


def info_command(
    model: _ModelArgument,
    revision: _Revision = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Show what a model consists of and what it renders. Fetches only small files and headers."""
    from framefleet.plugins.models.descriptions import in_company, read_measured
    from framefleet.plugins.models.models import model_info

    with stderr.status(f"reading {public_url(model)}, and counting the memory of one row"):
        info = model_info(model, revision=revision, allow_pickle=allow_pickle)
    findings = read_measured().of_class(info.class_name)
    lines = {
        "model": info.name,
        "pipeline": f"{info.class_name} ({info.kind})",
        "preset": info.preset or "none; defaults are from its class and configs",
        "measured": f"{in_company(findings)} (with tiny models)" if findings else "",
        "license": info.license,
        **info.rules,
        "digest": info.digest or f"not locked ({command('model', 'lock', model)})",
    }
    for name, text in lines.items():
        if text:
            stdout.say(f"{name + ':':<11}{text}")
    stdout.print(_components(info))
    stdout.say(f"memory:    {info.memory}")


def _counted(files: ModelFiles) -> str:
    return f"{count_text(files.num_files, 'file')}, {bytes_text(files.num_bytes)}"


def _components(info: ModelInfo) -> Table:
    table = Table("component", "class", "dtype", box=box.SIMPLE_HEAD)
    for name in ("parameters", "bytes"):
        table.add_column(name, justify="right")
    for one in info.components:
        count = f"{one.num_parameters:,}" if one.num_parameters else ""
        table.add_row(one.name, one.class_name, ", ".join(one.dtypes), count, f"{one.num_bytes:,}")
    sums = (sum(one.num_parameters for one in info.components), sum(one.num_bytes for one in info.components))
    table.add_row("all", "", "", *(f"{number:,}" for number in sums))
    return table


def _classes() -> Table:
    """Return a table of every pipeline class of diffusers, what it makes, and its test results."""
    from framefleet.plugins.models.descriptions import class_states, read_measured

    measured = read_measured()
    table = Table("class", "makes", f"with diffusers {measured.diffusers}", box=box.SIMPLE_HEAD)
    for row in class_states(measured):
        table.add_row(*row)
    return table


def _presets() -> Table:
    """Return a table of every preset, with its native values and hub model."""
    from framefleet.pipeline.model.families.registry import PRESETS
    from framefleet.plugins.models.descriptions import frames_text, makes, size_text

    table = Table("preset", "makes", "size", "frames", box=box.SIMPLE_HEAD)
    for name in ("steps", "weights GB"):
        table.add_column(name, justify="right")
    table.add_column("model", overflow="fold")
    for preset in PRESETS:
        steps, weights_gb = preset.arguments["num_inference_steps"], sum(preset.weights_gb().values())
        made = (makes(preset), size_text(preset), frames_text(preset))
        size_gb = f"{weights_gb:.1f}" if weights_gb >= 0.1 else f"{weights_gb:.2g}"
        table.add_row(preset.name, *made, str(steps), size_gb, preset.place)
    return table
