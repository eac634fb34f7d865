"""A job that a Ray cluster runs by itself: submitted, seen and ended by its output; no secret shows."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import framefleet
from framefleet import Store
from tests.commands import command
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.servers import S3Server, free_port, ray_head

CANARY = f"c4n4ry{uuid.uuid4().hex}"
PORTS = ("dashboard-agent-listen-port", "ray-client-server-port")  # those that are fixed, if not said
RECIPE = """
import os, time
def slow(pipe, request):
    time.sleep(0 if request.seed < 8 or os.path.exists(GATE) else 6)
    return pipe(**request.arguments, generator=request.generator(), output_type="np")
"""


@contextmanager
def cluster_with_job_server() -> Iterator[tuple[str, Path]]:
    """Yield the address of the job server of a cluster on loopback, and the folder of its files."""
    server = f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="js-", ignore_cleanup_errors=True) as name:  # short: sockets
        folder = Path(name)
        options = [f"--{name}={free_port()}" for name in PORTS]
        options += ["--num-cpus=3", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
        options += [f"--dashboard-port={server.rpartition(':')[2]}", "--object-store-memory=134217728"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with ray_head(folder, free_port(), *options, PATH=path):
            yield server, folder


def seen_by_others(server: str) -> str:
    """Return what the cluster's users see of jobs, and what this machine's users see of processes."""
    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    with urllib.request.urlopen(urllib.request.Request(f"{server}/api/jobs/", headers=headers)) as answer:
        found = [answer.read().decode()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:  # it has ended
            continue
    return "\n".join(found)


@pytest.mark.timeout(600)
def test_a_submitted_job_renders_without_this_process(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = f"{s3_server.url}/run", {**s3_server.storage_options, "secret": CANARY}
    gate = tmp_path / "gate"
    (tmp_path / "own_recipe.py").write_text(RECIPE.replace("GATE", repr(str(gate))))
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(40)), out)
    values |= {"table": "t.parquet", "recipe": "own_recipe:slow", "storage_options": options}
    job = write_job(tmp_path / "job.yaml", values)
    monkeypatch.chdir(tmp_path)
    sets = [f"--set=storage_options.{name}={value}" for name, value in options.items()]
    lost = command("submit", job, "--address=http://127.0.0.1:1")
    assert lost.exit_code == 3 and "the Ray job server at http://127.0.0.1:1 cannot be used" in lost.stderr
    with cluster_with_job_server() as (server, folder):
        refused = command("logs", out, "--submitted", f"--address={server}", *sets)
        assert refused.exit_code == 2 and f"no job for {out} was submitted to {server}" in refused.stderr
        while "No available agent" in (found := command("submit", job, f"--address={server}")).stderr:
            time.sleep(1)  # Ray's head has just started
        assert found.exit_code == 0 and f"submitted to {server} as raysubmit_" in found.stdout, found.output
        assert f"table {tmp_path}/t.parquet" in found.stderr, "as the cluster must have it"
        store = Store(out, options)
        wait_for(lambda: bool(store.list("clips")), server, out, sets)
        assert CANARY not in seen_by_others(server)
        assert command("stop", out, *sets).exit_code == 0
        printed = "".join(framefleet.logs(out, address=server, follow=True, storage_options=options))
        assert "asked to end by `framefleet stop`" in printed and CANARY not in printed
        assert 0 < framefleet.status(out, storage_options=options).num_done < 40
        gate.touch()
        again = framefleet.submit(values, address=server)
        said = command("logs", out, "--submitted", f"--address={server}", "--follow", *sets)
        assert f"{again.submission_id} is succeeded" in said.stderr, said.output
        assert "rows rendered in" in said.stdout
        found_status = framefleet.status(out, storage_options=options)
        assert (found_status.num_done, found_status.num_left) == (40, 0)
        of_jobs = 0
        for path in (path for path in folder.rglob("*") if path.is_file()):
            if "working_dir_files" in path.parts and path.name == "job.json":
                of_jobs += 1
                assert path.stat().st_mode & 0o777 == 0o600, "for Ray's user alone"
            else:
                assert CANARY.encode() not in path.read_bytes(), path
        assert of_jobs


def wait_for(condition: object, server: str, out: str, sets: list[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():  # type: ignore[operator]
        said = command("logs", out, "--submitted", f"--address={server}", *sets).output
        assert time.monotonic() < deadline and " is failed" not in said, said
        time.sleep(1)
