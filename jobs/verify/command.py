"""`framefleet verify`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import AsJson, Sets, Verbose
from framefleet.jobs.replay.command import (
    AllowPickle,
    MovedIpAdapter,
    MovedLoras,
    MovedModel,
    MovedSecondModels,
    OwnRecipe,
    ReadableRoots,
)
from framefleet.jobs.show.console import reporting
from framefleet.jobs.verify.choice import SAMPLE, RowChoice

_Output = Annotated[str, typer.Argument(help="Output to read: a folder or a URL.")]
_Files = Annotated[bool, typer.Option("--files", help="Read every file and compare digests. Render nothing.")]
_Sample = Annotated[int, typer.Option("--sample", min=1, help="Number of rows to render again.")]
_Seed = Annotated[int, typer.Option("--seed", help="Random seed for choosing which rows to check.")]
_RowIds = Annotated[
    list[str] | None,
    typer.Option("--row", metavar="ROW_ID", help="Check this row instead of a sample; repeatable."),
]
_ByFleet = Annotated[
    bool, typer.Option("--fleet", help="Render on a fleet, as in job.json or --set fleet.address=...")
]


def verify_command(
    output: _Output,
    files: _Files = False,
    sample: _Sample = SAMPLE,
    seed: _Seed = 0,
    row_ids: _RowIds = None,
    by_fleet: _ByFleet = False,
    as_json: AsJson = False,
    model: MovedModel = None,
    loras: MovedLoras = None,
    ip_adapter: MovedIpAdapter = None,
    second_models: MovedSecondModels = None,
    recipe: OwnRecipe = None,
    roots: ReadableRoots = None,
    allow_pickle: AllowPickle = False,
    sets: Sets = None,
    verbose: Verbose = False,
) -> None:
    """Check an output: render some rows again and compare. With --files, check the digest of every file.

    Exit code 0: all is well, every row bit-exact. 1: not all; each row's verdict says what is wrong: its
    record, its file or its pixels. 2: no row could be rendered.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import places, set_values
        from framefleet.jobs.replay.recorded_row import Given
        from framefleet.jobs.verify.shown import show_damages, show_verified

        given = Given(
            model=model,
            loras=places(loras or [], "--lora"),
            ip_adapter=ip_adapter,
            second_models=places(second_models or [], "--second-model"),
            recipe=recipe,
            roots=tuple(roots or []),
            allow_pickle=allow_pickle,
            storage_options=set_values(sets or []).get("storage_options", {}),
        )
        if files:
            is_well = show_damages(output, given.storage_options, as_json=as_json)
        else:
            choice = RowChoice(sample=sample, seed=seed, row_ids=tuple(row_ids or []), by_fleet=by_fleet)
            is_well = show_verified(output, choice, given, sets=sets or [], as_json=as_json)
    raise typer.Exit(0 if is_well else 1)
