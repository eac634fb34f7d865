"""The command `framefleet audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich import box
from rich.table import Table
from typer import Exit, Option

from framefleet.api.commands import (
    AsJson,
    OutputToRead,
    Sets,
    quiet_libraries,
    resumable,
    stderr,
    stdout,
)
from framefleet.api.errors import escaped

if TYPE_CHECKING:
    from framefleet.plugins.audit.report import AuditReport
    from framefleet.plugins.keep.replay.machines import Quantiles

_MAX_KINDS_SHOWN = 20  # a screenful; --json has them all


@resumable
def audit_command(
    output: OutputToRead,
    against: Annotated[
        str | None,
        Option(
            "--against",
            metavar="OUTPUT|MODEL",
            help="Output with the same rows, or a model (folder or hub id) that renders a random sample of "
            "the rows with plain calls.",
        ),
    ] = None,
    again: Annotated[
        str | None,
        Option(
            "--again",
            metavar="JOB.YAML",
            help="Job file of the output: render a random sample again, to see whether its clips repeat.",
        ),
    ] = None,
    share: Annotated[
        float | None,
        Option(
            "--share",
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of the rows to compare, at least one of each recipe and shape. Default: 0.01; of two "
            "outputs, all.",
        ),
    ] = None,
    levels: Annotated[
        float,
        Option(
            "--levels",
            min=0.0,
            max=255.0,
            metavar="LEVELS",
            help="Largest tolerated pixel difference (of 255).",
        ),
    ] = 2.0,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Compare clips with those of another output, model or run, and estimate how many of all may be off.

    For each kind of row, reports the largest difference, PSNR and SSIM of decoded clips, and a bound for all
    rows, which also becomes the column `exactness` of records. Run it again to continue. Exit code 1: a clip
    is off.
    """
    from framefleet.api.jobs import watch_on
    from framefleet.plugins.audit.audit import audit_output

    quiet_libraries()
    with watch_on(stderr) as watch:
        report = audit_output(output, against, again, watch, share=share, levels=levels, sets=sets or [])
    if as_json:
        stdout.say(report.to_json())
    else:
        _show(report)
    raise Exit(1 if report.total.num_off else 0)


def _show(report: AuditReport) -> None:
    titles = ("rows of", "compared", "equal", "off", "levels", "PSNR in dB", "SSIM", "off at most (95 %)")
    table = Table(*titles, box=box.SIMPLE_HEAD, caption="median / 95 % / worst")
    for one in report.kinds[:_MAX_KINDS_SHOWN]:
        table.add_row(
            escaped(one.kind),
            f"{one.num_compared:,} of {one.num_rows:,}",
            f"{one.num_equal:,}",
            f"{one.num_off:,}",
            _text(one.max_levels, ".0f"),
            _text(one.psnr_db, ".1f"),
            _text(one.ssim, ".4f"),
            f"{one.most_off:,}",
        )
    stdout.print(table)
    if (num_more := len(report.kinds) - _MAX_KINDS_SHOWN) > 0:
        stdout.say(f"{num_more:,} more kinds of rows: see --json")
    for reason, num in {**report.problems, **report.left_out}.items():
        stderr.say(f"{reason}: {num:,}", level="warning")
    if report.only_one_has:
        names = escaped(", ".join(report.only_one_has))
        stderr.say(f"only one side has these arguments, which were not compared: {names}", level="warning")
    stdout.say(f"{report.bound}; against {report.against}")


def _text(quantiles: Quantiles, digits: str) -> str:
    return " / ".join("inf" if value is None else f"{value:{digits}}" for value in quantiles)
