"""Secrets given in every way there is: after a real run they are in nothing that was printed or left."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from framefleet import Store
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.servers import S3Server
from tests.warm.process import start

CANARY = f"c4n4ry{uuid.uuid4().hex}"  # which is not in this file, that Ray brings to the workers
PASSWORD, SIGNATURE, HUB, OF_PROXY = (f"{CANARY}-{number}" for number in range(4))
ENVIRONMENT = {
    "HF_TOKEN": HUB,
    "NO_PROXY": "127.0.0.1",
    "HTTPS_PROXY": f"http://me:{OF_PROXY}@127.0.0.1:1",
    # What a library may say; the recipe raises it.
    "QUOTED": f"refused: {PASSWORD}, {HUB}, http://me:{CANARY}/9@h/x, https://h/x?X-Amz-Signature={SIGNATURE}",
}


@pytest.mark.timeout(400)
def test_no_secret_is_printed_or_left(s3_server: S3Server, tmp_path: Path) -> None:
    rows = prompt_rows(3)
    rows[1]["prompt"], rows[2]["prompt"] = "poison", "killer"
    values = job_values(tmp_path / "t.parquet", s3_server.url + "/run", recipe="tests.faults:tells")
    values["fleet"]["workers"] = 1
    write_table(tmp_path / "t.parquet", rows)
    values |= {"inputs": {"roots": [f"https://me:{PASSWORD}@127.0.0.1:1/pictures?sig={SIGNATURE}"]}}
    options = {**s3_server.storage_options, "secret": PASSWORD}
    given = [f"--set=storage_options.{name}={value}" for name, value in options.items()]
    process = start(
        *("-m", "framefleet", "render", write_job(tmp_path / "job.yaml", values), *given),
        env={**ENVIRONMENT, "KILLED": str(tmp_path / "killed")},
        stderr=subprocess.PIPE,
    )
    printed, said = process.communicate()
    kept = re.search(r"logs of this run are kept in (\S+)/ray/session_latest/logs", said)
    assert kept, said  # a worker died
    folder = Path(kept[1])
    assert process.returncode == 1, said  # the row that was poison
    assert "refused: ***, ***, http://h/x, https://h/x" in said
    assert CANARY not in printed + said
    store = Store(s3_server.url + "/run", options)
    for path in store.list(""):
        content = store.read(path)
        text = str(pq.read_table(BytesIO(content)).to_pylist()) if path.endswith(".parquet") else content
        assert CANARY not in str(text), path
    for path in folder.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("ray/session_*/logs/worker-*"))
    shutil.rmtree(folder)
