"""A table may be a dataset of the hub, or a file in one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from framefleet.pipeline.errors import InputError, JobError
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.sweeps.factors import lines_of
from tests.answering import Answering, answered_by
from tests.hub_server import HubServer, hub
from tests.unit.test_table_folders import refusal, rows

__all__ = ["hub"]  # a fixture


@pytest.fixture
def dataset(hub: HubServer, tmp_path: Path) -> str:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for number in range(2):
        table = pa.table({"prompt": [f"a fox {number}"], "seed": [number]})
        pq.write_table(table, tmp_path / "set" / "data" / f"train-{number}.parquet")
    (tmp_path / "set" / "README.md").write_text("prompts")
    hub.repos["org/prompts"] = tmp_path / "set"
    HfFileSystem.clear_instance_cache()
    return "hf://datasets/org/prompts"


def test_a_dataset_of_the_hub_is_a_table(dataset: str) -> None:
    prompts = ["a fox 0", "a fox 1"]
    assert [row["prompt"] for row in rows(dataset)] == prompts
    assert [row["prompt"] for row in rows(f"{dataset}/data/*.parquet")] == prompts
    assert [row["prompt"] for row in rows(f"{dataset}@main/data/train-1.parquet")] == prompts[1:]


@pytest.mark.parametrize(
    ("repo", "reason", "fix"),
    [
        ("gated", "cannot be read: GatedRepo", "accept its terms"),
        ("private", "cannot be read: RepoNotFound", "for a private repository set HF_TOKEN"),
        ("none", "cannot be read: RepoNotFound", "check the spelling"),
        ("prompts@v9", "cannot be read: RevisionNotFound", "a branch, a tag or a commit"),
        ("prompts/data/none.csv", "does not exist", "check the path"),
    ],
)
def test_the_reason_of_the_hub_reaches_the_user(
    repo: str, reason: str, fix: str, dataset: str, hub: HubServer
) -> None:
    for name in ("gated", "private"):
        hub.repos[f"org/{name}"] = hub.repos["org/prompts"]
        getattr(hub, name).add(f"org/{name}")
    url = f"hf://datasets/org/{repo}"
    for place in [url] + [f"{url}/data/train-0.parquet", f"{url}/data/*.parquet"] * ("none.csv" not in url):
        refused = refusal(place)
        assert reason in refused.problem and fix in refused.fix
    if "none" not in repo:
        with pytest.raises(JobError) as unread:
            lines_of(f"{url}/a.txt", "sweep.prompt.file", {})
        assert fix in unread.value.fix
        with pytest.raises(InputError) as unread_image:
            Inputs([url]).read(f"{url}/a.png")
        assert fix in unread_image.value.fix


@pytest.mark.parametrize(("status", "reason"), [(401, "Unauthorized"), (403, "Forbidden"), (404, "")])
def test_the_reason_of_a_web_server_reaches_the_user(status: int, reason: str) -> None:
    class Refusing(Answering):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET

    with answered_by(Refusing) as url:
        problem = refusal(f"{url}/prompts.csv").problem
    assert f"{status}, message='{reason}'" in problem if reason else "does not exist" in problem
