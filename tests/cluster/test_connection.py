"""A cluster that framefleet starts is for the process that started it, and for nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from tests.jobs import ROOT

SECRET = "c4n4ry-of-the-command-line"
LOOK = """
import json, os, stat, sys, threading, time
from contextlib import suppress
from pathlib import Path
import grpc, psutil, ray
from framefleet.cluster.fleet.connection import connect

def of_each(what):
    # Of those that have not ended meanwhile.
    answers = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            answers.append(getattr(process, what)())
    return answers

def drop():
    while refs:
        refs.pop()
        time.sleep(0.0001)

with connect(None, num_cpus=1):
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    folder = token.parent
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for there in of_each("net_connections") for c in there if c.status == "LISTEN"]
    gcs = grpc.insecure_channel(ray.get_runtime_context().gcs_address)
    try:
        gcs.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=120)
        stranger = "welcome"
    except grpc.RpcError as error:
        stranger = error.code().name
    found = {
        "modes": [stat.S_IMODE(path.stat().st_mode) for path in (folder, token)],
        "listening": sorted(set(listening)),
        "stranger": stranger,
        "jobs": str(ray._private.state.jobs()),
        "typed": sys.argv,
        "processes": of_each("cmdline")[1:],
        "token": token.read_text(),
    }
    refs = [ray.put(number) for number in range(20_000)]
    dropping = threading.Thread(target=drop)
    dropping.start()
found["kept"] = len(refs)
left = [name for name in os.environ if name.startswith("RAY_AUTH")]
print(json.dumps(found | {"left": left + [str(folder)] * folder.exists()}))
dropping.join()
"""


def run(script: str, *words: str, env: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *words]
    ended = subprocess.run(command, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended


def test_a_cluster_of_ours_is_for_its_owner_and_leaves_nothing() -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    found = json.loads(run(LOOK, f"--set=storage_options.secret={SECRET}", env=ours).stdout)
    assert found["modes"] == [0o700, 0o600], "its folder and its token are for their owner"
    assert found["listening"] and set(found["listening"]) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert found["stranger"] == "UNAUTHENTICATED"
    words = [argument for command in found["processes"] for argument in command]
    assert not any(found["token"] in argument for argument in words)
    assert SECRET in str(found["typed"]) and "framefleet" in found["jobs"]
    assert SECRET not in found["jobs"], "its table of jobs has no command line"
    started = {argument.rpartition("/")[2] for argument in words}
    assert {"raylet", "gcs_server"} <= started
    unasked = {"dashboard.py", "agent.py", "monitor.py", "log_monitor.py", "ray::DashboardAgent"}
    assert not unasked & started
    assert found["left"] == []
    assert found["kept"] < 20_000, "what dropped some while Ray ended did not end the process"


JOIN = """
import logging, sys
import ray
from framefleet.cluster.fleet.connection import connect
from framefleet.plugins.doctor.everywhere import everywhere, run_on
from framefleet.cluster.fleet.ray_folder import ray_folder_problem

logging.basicConfig(level=logging.WARNING)
ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=2**27, _temp_dir=sys.argv[1])
with connect(None, num_cpus=0):
    pass
with everywhere("auto") as machines:
    print(*run_on(machines, ray_folder_problem, timeout_s=60).values())
"""


def test_who_joins_a_ray_that_others_can_write_is_warned() -> None:
    for mode in (0o755, 0o700):
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="fw-") as folder:  # pytest's own are closed
            os.chmod(folder, mode)
            ended = run(JOIN, f"{folder}/ray")
        said = f"other users of this machine can write {folder}/ray"
        is_open = mode == 0o755
        assert (said in ended.stderr, "mkdir -m 700" in ended.stderr) == (is_open, is_open)
        assert (said in ended.stdout, "None" in ended.stdout) == (is_open, not is_open), "as doctor sees it"
