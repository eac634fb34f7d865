"""Jobs with judges on a fleet: rows end whatever the endpoint does, and nothing is chosen unjudged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from framefleet import Store
from framefleet.pipeline.outputs.parts.record_tables import record_tables
from tests.chat_server import SERVER, Chat
from tests.cluster.test_example_plugin import run
from tests.commands import command
from tests.jobs import PROMPTS, job_values, prompt_rows, records_of, seconds_of_loads, write_job, write_table
from tests.servers import listening

EXAMPLE = Path(__file__).parents[2] / "examples" / "judge"
KEY = "sk-of-the-cluster-test-0123456789"


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with listening(SERVER, tmp_path) as address:
        yield Chat(address)


def question(chat: Chat, **more: Any) -> dict[str, Any]:
    asked = {"name": "quality", "url": chat.url, "model": "eye", "question": "Good? {prompt}"}
    return asked | {"answer": {"number": [0, 10]}, "attempts": 1, "api_key_env": "JUDGE_KEY"} | more


def column(output: Path, name: str) -> list[Any]:
    return [value for table in record_tables(Store(str(output)), [name]) for value in table[name].to_pylist()]


def test_drafts_are_chosen_once_all_are_judged(tmp_path: Path, ray_cluster: str, chat: Chat) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(4))
    keep = {"best": 2, "by": "quality"}
    values = job_values(table, tmp_path / "out", address=ray_cluster, judge=[question(chat)])
    values |= {
        "draft": {"num_inference_steps": 1, "keep": keep},
        "captions": {"url": chat.url, "model": "eye"},
    }
    job = write_job(tmp_path / "job.yaml", values)
    chat.will({}, {"status": 503, "always": True})
    left = command("render", job)
    assert (left.exit_code, len(records_of(tmp_path / "out/drafts"))) == (3, 4), left.stderr
    assert "drafts without quality" in left.stderr and "HTTP 503" in left.stderr
    assert records_of(tmp_path / "out") == []
    chat.will()
    asked = len(chat.log)
    command("render", job, exits=0)
    drafts = column(tmp_path / "out/drafts", "quality")
    assert sorted(column(tmp_path / "out", "draft_quality")) == sorted(drafts)[2:]
    assert None not in column(tmp_path / "out", "quality")
    assert [text.startswith("In golden light") for text in column(tmp_path / "out", "caption")] == [True] * 2
    assert len(chat.log) - asked == 3 + 2 + 2  # drafts without an answer, rows in full, their captions
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_rows_that_the_last_answers_ask_for_are_rendered_by_workers_that_live(
    tmp_path: Path, ray_cluster: str, chat: Chat
) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(1))
    values = job_values(table, tmp_path / "out", address=ray_cluster, judge=[question(chat)])
    values["until"] = {"accepted": 2, "where": "quality > 5", "at_most": 30}
    chat.will({"wait_s": 2, "always": True})
    command("render", write_job(tmp_path / "job.yaml", values), exits=0)
    loads_s = seconds_of_loads(tmp_path / "out")
    assert len(loads_s) > 1 and sum(seconds > 0 for seconds in loads_s) == 1


def test_written_prompts_are_rendered_and_stand_next_to_the_originals(
    tmp_path: Path, ray_cluster: str, chat: Chat
) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(4))
    rewrite = {"url": chat.url, "model": "pen", "question": "{prompt}"}
    values = job_values(table, tmp_path / "out", address=ray_cluster, prompts={"rewrite": rewrite})
    job = write_job(tmp_path / "job.yaml", values | {"on_invalid": "skip"})
    chat.will({"for": PROMPTS[1], "status": 400})
    command("render", job, exits=0)
    (left_out,) = pq.read_table(tmp_path / "out/invalid").to_pylist()
    assert (left_out["row_index"], left_out["prompt"]) == (1, PROMPTS[1])
    assert f"prompt is {PROMPTS[1]!r}, but pen wrote no prompt for it: HTTP 400" in left_out["reason"]
    assert sorted(column(tmp_path / "out", "original_prompt")) == sorted({*PROMPTS} - {PROMPTS[1]})
    chat.will()
    assert command("render", job).exit_code == 0
    originals = column(tmp_path / "out", "original_prompt")
    assert sorted(originals) == sorted(PROMPTS) and not [*(tmp_path / "out/invalid").glob("*")]
    assert column(tmp_path / "out", "prompt") == [f"In golden light: {text}" for text in originals]
    assert "nothing to do" in command("render", job).stderr
    assert len(chat.log) == 5


def test_a_strangers_judge_is_a_plugin_of_thirty_lines(tmp_path: Path, ray_cluster: str) -> None:
    assert len((EXAMPLE / "warmth_judge.py").read_text().splitlines()) <= 30
    service = tmp_path / "service.py"
    service.write_text(
        "import sys\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Warmth(BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        red = self.rfile.read(int(self.headers['Content-Length'])).strip(b'[ ]').split()[0]\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(red)\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[-1])), Warmth).serve_forever()\n"
    )
    about = tmp_path / "warmth_judge-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: warmth-judge\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[framefleet.plugins]\nwarmth = warmth_judge:PLUGIN\n")
    folder = Path(os.pathsep.join([str(tmp_path), str(EXAMPLE)]))
    table = write_table(tmp_path / "t.parquet", prompt_rows(2))
    values = job_values(table, tmp_path / "out", address=ray_cluster, warmth={"url": "http://127.0.0.1:1"})
    job = write_job(tmp_path / "job.yaml", values)
    down = run(folder, "-m", "framefleet", "render", job)
    assert (down.returncode, len(records_of(tmp_path / "out"))) == (0, 2), down.stderr
    assert "2 clips without warmth" in down.stderr
    with listening([SERVER[0], str(service), "-p"], tmp_path) as address:
        again = run(folder, "-m", "framefleet", "judge", job, "--set", f"warmth.url={address}")
    assert again.returncode == 0, again.stderr
    assert all(0 <= value <= 255 for value in column(tmp_path / "out", "warmth"))
