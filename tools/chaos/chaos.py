"""One job twice: undisturbed, and in a storm. Both leave the same."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framefleet.pipeline.outputs.stores.store import Store
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.servers import S3Server
from tools.chaos.checks import check, frames_by_seed
from tools.chaos.figures import figures
from tools.chaos.rig import Rig, rig
from tools.chaos.storm import Forecast, Storm

# Done, fleet or store lost, killed.
ENDINGS = {0, 3, -signal.SIGKILL}


def chaos(
    server: S3Server,
    folder: Path,
    *,
    num_rows: int,
    forecast: Forecast,
    say: Callable[[str], None],
) -> None:
    """Say what happened, and figures. AssertionError where anything was lost, doubled, changed or left."""
    table = write_table(folder / "rows.parquet", prompt_rows(num_rows))
    with rig(server, folder) as made:
        say(f"seed {forecast.seed}: {num_rows} rows, first undisturbed")
        made.start_driver(chaos_job(made, table, "undisturbed"), made.hosts[0]).finish(
            timeout_s=forecast.limit_s
        )
        undisturbed = frames_by_seed(Store(f"{server.url}/undisturbed", server.storage_options))
        made.trace.unlink()
        say("now in a storm")
        happened = Storm(made, forecast, say=say).run(chaos_job(made, table, "storm"))
        for line in figures(happened, made.begun()):
            say(line)
        check(Store(f"{server.url}/storm", server.storage_options), undisturbed)
    say(f"{num_rows} rows: one record each, frames as undisturbed, no object astray")
    assert happened.endings.keys() <= ENDINGS, "drivers ended by something else than kills and lost services"


def chaos_job(rig: Rig, table: Path, output: str, **more: Any) -> Path:
    """Write a job for the rig: one worker on each host, each row noted when it begins."""
    values = job_values(table, f"{rig.s3.server.url}/{output}", address=rig.address)
    values["fleet"]["workers"] = len(rig.hosts)
    # Audits would begin rows once more that nothing befell.
    values |= {"recipe": "tools.chaos.traced:generate", "audit": {"every": 0}, **more}
    return write_job(rig.folder / f"{output}.yaml", values)
