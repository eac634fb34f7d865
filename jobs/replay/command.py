"""`framefleet replay`, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_RecordedOutput = Annotated[str, typer.Argument(help="Output that holds the record.")]
_RowId = Annotated[str, typer.Argument(help="row_id, as in the record and the name of the clip.")]
MovedModel = Annotated[str | None, typer.Option("--model", help="New place of the model, if it has moved.")]
MovedLoras = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="NAME=PLACE", help="New place of a LoRA, if it has moved; repeatable."),
]
MovedIpAdapter = Annotated[
    str | None, typer.Option("--ip-adapter", help="New place of the IP-adapter, if it has moved.")
]
MovedSecondModels = Annotated[
    list[str] | None,
    typer.Option(
        "--second-model",
        metavar="NAME=PLACE",
        help="New place of a second model, if it has moved; repeatable.",
    ),
]
OwnRecipe = Annotated[
    str | None, typer.Option("--recipe", help="Your recipe as module:function, if the row uses one.")
]
ReadableRoots = Annotated[
    list[str] | None,
    typer.Option("--root", help="Folder or URL from which its images and videos may be read; repeatable."),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Allow pickles of tensors where there are no safetensors.")
]
_Save = Annotated[Path | None, typer.Option("--save", help="Write the clip to this file.")]
_Script = Annotated[
    bool, typer.Option("--script", help="Print a script that renders the row with torch and diffusers alone.")
]


def replay_command(
    output: _RecordedOutput,
    row_id: _RowId,
    model: MovedModel = None,
    loras: MovedLoras = None,
    ip_adapter: MovedIpAdapter = None,
    second_models: MovedSecondModels = None,
    recipe: OwnRecipe = None,
    roots: ReadableRoots = None,
    allow_pickle: AllowPickle = False,
    save: _Save = None,
    script: _Script = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Render one row again from its record and compare. Exit code 0: equal frames and sound; 1: other.

    The output is not trusted: code, pickles and places on private networks are yours to name.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import places, storage_options
        from framefleet.jobs.replay.recorded_row import Given
        from framefleet.jobs.replay.shown import show_replay, show_script

        given = Given(
            model=model,
            loras=places(loras or [], "--lora"),
            ip_adapter=ip_adapter,
            second_models=places(second_models or [], "--second-model"),
            recipe=recipe,
            roots=tuple(roots or []),
            allow_pickle=allow_pickle,
            storage_options=storage_options(sets or []),
        )
        is_equal = True
        if script:
            show_script(output, row_id, given)
        else:
            is_equal = show_replay(output, row_id, given, save=save)
    raise typer.Exit(0 if is_equal else 1)
