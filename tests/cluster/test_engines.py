"""Jobs with an engine: clips of servers of the videos API, each paid for once, whatever is killed."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.request import Request
from tests.commands import command
from tests.jobs import finish, records_of, start_render, wait_until, write_job, write_table
from tests.options import digest, plain
from tests.tiny import tiny
from tests.videos_server import VideosServer, videos_server


def job_with(folder: Path, servers: Sequence[VideosServer], num_rows: int, **more: Any) -> Path:
    rows = [{"prompt": f"a fox {number}", "seed": number} for number in range(num_rows)]
    engine = {"type": "videos_api", "model": "synthetic", "urls": [one.url for one in servers]}
    values = {
        "table": str(write_table(folder / "t.parquet", rows)),
        "output": str(folder / "out"),
        "engine": engine | {"parallel": 4, "poll_s": 0.05, "patience_s": 60.0, **more.pop("engine", {})},
        "defaults": {"size": "32x16", "num_frames": 5, "fps": 8},
    }
    return write_job(folder / "job.yaml", values | more)


def test_200_rows_of_three_servers_that_are_killed_throttled_and_lie(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(videos_server(one)) for one in ("vllm", "sglang", "sglang")]
        first, second, third = servers
        first.set_faults(busy={"value": "0.2", "every": 7}, slow_s=0.05)
        second.set_faults(slow_s=0.2, html={"every": 40, "at": ["poll"]})
        third.set_faults(slow_s=0.1, frames={"value": 1, "prompt": "a fox 13"}, half={"every": 30})
        job = job_with(tmp_path, servers, 200)
        process = start_render(job)
        wait_until(lambda: len(second.ids()) >= 10, process)
        second.kill()
        second.restart(forget=True)
        printed, _ = process.communicate()
        lied = [one["id"] for one in third.posts() if one["body"]["prompt"].startswith("a fox 13")]
        ids = [one for server in servers for one in server.ids()]
    records = records_of(tmp_path / "out")
    failed = 200 - len(records)
    assert len({one["row_id"] for one in records}) == len(records)
    assert failed <= len(lied)  # of the third server's rows, those that begin with this prompt
    assert process.returncode == (1 if failed else 0)
    for record in records:
        content = (tmp_path / "out" / record["path"]).read_bytes()
        assert decode(content).shape == (5, 16, 32, 3)
    num_again = printed.count("it is created again") + printed.count("may have been created")
    assert 200 <= len(ids) <= 200 + num_again + len(lied)


def test_no_clip_is_created_twice_wherever_the_driver_is_killed(tmp_path: Path) -> None:
    rng = random.Random(7)
    with videos_server("vllm", faults={"slow_s": 1.0, "idempotent": True}) as server:
        engine = {"parallel": 2, "max_cost": 40.5, "price": {"clip": 1.0}}
        job = job_with(tmp_path, [server], 40, engine=engine)
        for _ in range(4):
            process, wanted = start_render(job), len(server.posts()) + rng.randint(1, 4)
            wait_until(lambda: len(server.posts()) >= wanted, process)  # noqa: B023 - before the next
            time.sleep(rng.random() / 2)
            process.kill()
            process.communicate()
        finish(start_render(job))
        assert len(records_of(tmp_path / "out")) == 40
        assert len(server.ids()) == 40
        # A request whose answer a kill has cut off is made once more, under its key.
        assert sum(server.posts_by_key().values()) <= 40 + 4 * 2


def test_a_clip_that_came_to_nothing_is_created_anew_by_retry(tmp_path: Path) -> None:
    with videos_server("vllm", faults={"frames": 1, "idempotent": True}) as server:
        job = job_with(tmp_path, [server], 2)
        assert command("render", job).exit_code == 1
        server.set_faults(idempotent=True)
        assert command("retry", job).exit_code == 0
        assert len(server.ids()) == 4
    assert not [*(tmp_path / "out").glob("checkpoints/*")]


def test_a_run_ends_at_what_it_may_cost_and_status_says_what_each_server_did(tmp_path: Path) -> None:
    with videos_server("sglang") as server:
        job = job_with(tmp_path, [server], 9, engine={"max_cost": 5.0, "price": {"clip": 1.0}})
        planned = command("plan", job)
        assert "cost: about 9.00 for the rows to render" in planned.stdout, planned.output
        assert "about 9.00, but only 5.00 is left of engine.max_cost" in planned.output
        ended = command("render", job)
        assert (ended.exit_code, len(server.ids())) == (1, 5)
        assert "engine.max_cost is reached: all runs together paid 5.00 of 5.00" in ended.output
        name = server.url.removeprefix("http://").removesuffix("/v1")
        assert f"server {name}: 5 rows" in command("status", tmp_path / "out").output
        assert command("render", job, "--set", "engine.max_cost=20").exit_code == 0
        assert len(server.ids()) == 9
        cost = framefleet.report(str(tmp_path / "out")).cost
        assert cost is not None and cost.paid == cost.total == 9.0


def test_clips_that_are_paid_are_waited_for_and_drafts_count_too(tmp_path: Path) -> None:
    drafts = {"num_inference_steps": 2, "keep": {"best": 1, "per": "prompt", "by": "sharpness"}}
    engine = {"max_cost": 7.0, "price": {"clip": 1.0}}
    with videos_server("vllm", faults={"slow_s": 1.0, "idempotent": True}) as server:
        job = job_with(tmp_path, [server], 5, engine=engine, draft=drafts, scores=["sharpness"])
        ended = command("render", job)
        assert (ended.exit_code, len(server.ids())) == (1, 7), ended.output
        assert "all runs together paid 7.00 of 7.00" in ended.output
        assert len(records_of(tmp_path / "out")) == 2 and len(records_of(tmp_path / "out/drafts")) == 5
        assert command("render", job, "--set", "engine.max_cost=10").exit_code == 0
        assert len(server.ids()) == 10
    cost = framefleet.report(str(tmp_path / "out")).cost
    assert cost is not None and cost.paid == 10.0


def test_all_places_of_a_server_are_filled_however_slow_it_is(tmp_path: Path) -> None:
    with videos_server("vllm", faults={"slow_s": 2.0}) as server:
        assert command("render", job_with(tmp_path, [server], 24, engine={"parallel": 24})).exit_code == 0
        events = [entry["event"] for entry in server.log("post", "render")]
    assert events.index("render") == 24


def test_frames_of_a_server_are_those_of_plain_diffusers_and_a_judge_chooses_among_them(
    tmp_path: Path,
) -> None:
    sizes = {"size": "32x32", "num_frames": 5, "num_inference_steps": 2}
    with videos_server("vllm", model=tiny("wan")) as server:
        job = job_with(
            tmp_path,
            [server],
            4,
            engine={"model": tiny("wan").name, "parallel": 2},
            defaults=sizes,
            scores=["sharpness"],
        )
        assert command("render", job).exit_code == 0
    records = records_of(tmp_path / "out")
    assert all(one["sharpness"] is not None for one in records)
    pipe, shape = plain("wan"), {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
    for record in records:
        assert record["frames_sha256"] == frames_sha256(
            decode((tmp_path / "out" / record["path"]).read_bytes())
        )
        row = Request(arguments={"prompt": record["prompt"], **shape}, seed=record["seed"])
        assert record["frames_sha256"] == digest(pipe, row)


def test_images_are_stored_as_they_were_sent(tmp_path: Path) -> None:
    with videos_server("vllm") as server:
        job = job_with(
            tmp_path, [server], 3, engine={"type": "images_api", "parallel": 2}, defaults={"size": "32x16"}
        )
        assert command("render", job).exit_code == 0
    for record in records_of(tmp_path / "out"):
        assert record["path"].endswith(".png") and record["media_encoder"] == "as sent"
        assert decode((tmp_path / "out" / record["path"]).read_bytes()).shape == (1, 16, 32, 3)


def test_neither_driver_nor_worker_imports_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked" / "torch"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text('raise ImportError("torch was imported")\n')
    monkeypatch.setenv("PYTHONPATH", str(blocked.parent))
    with videos_server("vllm") as server:
        job = job_with(tmp_path, [server], 3)
        finish(start_render(job, is_cold=True))
    assert len(records_of(tmp_path / "out")) == 3


def test_what_is_asked_of_job_files_and_outputs_of_engines(tmp_path: Path) -> None:
    with videos_server("vllm") as server:
        job = job_with(tmp_path, [server], 2)
        planned = command("plan", job)
        assert planned.exit_code == 0 and not re.search("memory|scheduler", planned.stdout)
        assert command("plan", job, "--hollow").exit_code == 2
        paid = ("engine.price.clip=1", "engine.max_cost=5", "fleet.workers=2")
        refused = command("plan", job, *(f"--set={one}" for one in paid))
        assert "engine.max_cost needs fleet.workers: 1" in refused.output
        assert "recipe is of no use to an engine" in command("plan", job, "--set", "recipe=refine").output
        assert command("render", job).exit_code == 0
        refused = command("render", job, "--set", "model=/models/wan", "--set", f"output={tmp_path / 'x'}")
        assert "more than one of `model`, `models` and `engine`" in refused.output
    assert command("verify", tmp_path / "out", "--files").exit_code == 0
    verified = command("verify", tmp_path / "out")
    assert verified.exit_code == 2 and "was made by the engine" in verified.output
    packed = command("pack", tmp_path / "out", tmp_path / "pack", "--rows", "1")
    assert packed.exit_code == 2 and "was made by the engine" in packed.output
    assert json.loads(command("status", tmp_path / "out", "--json").stdout)["num_done"] == 2
