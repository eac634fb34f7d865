"""Audits on a fleet, of rows as they are made and of outputs: plain calls, a spoilt clip, what is told."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import framefleet
from framefleet import Output, Request, Store, load_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.outputs.media.media import decode, encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.render.audit.verdict import EQUAL, PLAINLY
from tests.commands import command
from tests.hidden_state import QUICK, remembers
from tests.jobs import (
    all_columns,
    check_whole,
    finish,
    job_values,
    prompt_rows,
    records_of,
    start_render,
    wait_until,
    write_job,
    write_table,
)
from tests.outputs import write_part
from tests.tiny import SMALLEST, tiny
from tests.videos_clips import is_spoilt
from tests.videos_server import videos_server
from tests.warm.process import start


def rendered(folder: Path, address: str, **more: Any) -> tuple[Path, Path]:
    """Return a job that has been rendered, and its output."""
    rows = prompt_rows(6)
    rows[1]["scheduler"] = "euler"
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", address=address, **more)
    job = write_job(folder / "job.yaml", values)
    finish(start_render(job))
    return job, folder / "out"


def audited(*words: str | Path, exit_code: int = 0) -> dict[str, Any]:
    process = start("-m", "framefleet.jobs.cli", "audit", *words, "--json")
    printed = finish(process, exits=exit_code)
    return json.loads(printed.splitlines()[-1])["total"]


def spoil(output: Path) -> str:
    """Take a clip one level off, as an engine would that rounds otherwise; return its row_id."""
    then = Output.open(str(output)).record(records_of(output)[2]["row_id"])
    assert then.path and then.path.endswith(".mkv")
    frames = decode((output / then.path).read_bytes())
    frames[0, 0, 0, 0] ^= 1
    content = encode(frames, media=Media(format="mkv"), fps=then.fps or 1, metadata={})
    (output / then.path).write_bytes(content)
    digests = {"media_sha256": hashlib.sha256(content).hexdigest(), "frames_sha256": frames_sha256(frames)}
    values = values_of(then) | digests | {"bytes": len(content)}
    write_part(Store(str(output)), "records", RECORD_FIELDS, [values], new_run(9))
    return then.row_id


def test_a_spoilt_clip_is_found_among_plain_calls_of_the_model(ray_cluster: str, tmp_path: Path) -> None:
    job, output = rendered(tmp_path, ray_cluster, media={"format": "mkv"})
    on = [f"--set={text}" for text in (f"fleet.address={ray_cluster}", "fleet.workers=1", "model.device=cpu")]
    against = (output, "--against", tiny("wan"), "--levels", "0", *on)
    killed = start("-m", "framefleet.jobs.cli", "audit", *against, "--share", "0.4")
    wait_until(lambda: any((output / "audits").glob("*/clips/clips/*/*")), killed)
    killed.kill()
    killed.communicate()
    some = audited(*against, "--share", "0.4")
    (inner,) = (output / "audits").glob("*/clips")
    before = {record["row_id"]: record["finished_at"] for record in records_of(inner)}
    assert some["num_chosen"] == some["num_equal"] == len(before) < 6
    spoilt = spoil(output)
    found = audited(*against, "--share", "1", exit_code=1)
    assert (found["num_rows"], found["num_equal"], found["num_off"], found["most_off"]) == (6, 5, 1, 1)
    after = {record["row_id"]: record["finished_at"] for record in records_of(inner)}
    assert before.items() <= after.items() and len(after) == 6  # each row is rendered once
    assert {record["audited_row_id"] for record in records_of(inner)} == {
        record["row_id"] for record in records_of(output)
    }
    (table,) = Output.open(str(output)).records(["exactness"])
    (text,) = {*table["exactness"].to_pylist()}
    assert text == f"1 of 6 clips (17 %) differ by more than 0 levels, against plain calls of {tiny('wan')}"
    again = audited(output, "--again", job, "--share", "1", "--levels", "0", exit_code=1)
    assert (again["num_equal"], again["num_off"]) == (5, 1)
    assert framefleet.open_output(str(output)).record(spoilt).path  # its own clip stays


def test_a_job_compares_its_clips_with_plain_calls_at_its_end(ray_cluster: str, tmp_path: Path) -> None:
    against = {"model": {"path": str(tiny("wan")), "device": "cpu"}, "share": 1}
    job, output = rendered(tmp_path, ray_cluster, audit={"every": 0, "against": against})
    (table,) = Output.open(str(output)).records(["exactness"])
    assert table["exactness"].to_pylist() == ["bits"] * 6
    written = json.loads((output / "job.json").read_text())["job"]["audit"]["against"]
    assert written["share"] == 1 and written["model"]["path"] == str(tiny("wan"))
    missing = f"--set=audit.against.model.path={tmp_path / 'none'}"
    refused = start("-m", "framefleet.jobs.cli", "render", job, missing)
    said, _ = refused.communicate()
    assert refused.returncode == 2 and "audit.against.model: model " in said


def test_a_server_that_spoils_clips_is_judged_by_plain_calls_and_against_itself(tmp_path: Path) -> None:
    rows = [{"prompt": f"a fox {number}", "seed": number} for number in range(6)]
    against = {"model": {"path": str(tiny("wan")), "device": "cpu"}, "share": 1, "levels": 0}
    values = {
        "table": str(write_table(tmp_path / "t.parquet", rows)),
        "output": str(tmp_path / "out"),
        "defaults": {"size": "32x16", "num_frames": 5, "fps": 8, "num_inference_steps": 2},
        "audit": {"against": against},
    }
    with videos_server("vllm", model=tiny("wan"), faults={"level": 3}) as server:
        engine = {"type": "videos_api", "model": "wan", "urls": [server.url], "poll_s": 0.05}
        job = write_job(tmp_path / "job.yaml", {**values, "engine": engine})
        finish(start_render(job))
        steady = audited(tmp_path / "out", "--again", job, "--share", "0.5")
        server.set_faults(unsteady=True)
        (tmp_path / "out" / "audits" / "again").rename(tmp_path / "before")
        unsteady = audited(tmp_path / "out", "--again", job, "--share", "0.5", exit_code=1)
    assert steady["num_equal"] == steady["num_chosen"] > 0 == unsteady["num_equal"]
    (table,) = Output.open(str(tmp_path / "out")).records(["exactness", "seed", "prompt"])
    asked = ((row["prompt"], row["seed"]) for row in table.to_pylist())
    num_spoilt = sum(is_spoilt("level", 3, prompt=prompt, seed=seed) for prompt, seed in asked)
    (text,) = {*table["exactness"].to_pylist()}
    assert 0 < num_spoilt < 6 and text.startswith(f"{num_spoilt} of 6 clips (")


REMEMBERS, WANDERS = "tests.hidden_state:remembers", "tests.hidden_state:wanders"
SIZES = SMALLEST["wan"] | {"max_sequence_length": 32}


def _rows(recipe: str, steps: list[int], *, first: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"ball {seed}",
            "seed": seed,
            "num_inference_steps": count,
            "recipe": recipe,
            "tag": f"row {seed}",
        }
        for seed, count in enumerate(steps, start=first)
    ]


def _plain(pipe: Any, row: dict[str, Any]) -> str:
    """The digest of a plain call: the recipe gives each a scheduler of its own."""
    own = {name: row[name] for name in ("prompt", "num_inference_steps")}
    return frames_sha256(to_frames(remembers(pipe, Request(arguments=SIZES | own, seed=row["seed"]))))


def test_rows_that_hidden_state_made_wrong_are_rendered_again_and_all_records_are_right(
    tmp_path: Path, ray_cluster: str
) -> None:
    # The state shows from the third step on: the first audits find nothing, and wrong rows get records.
    quick, slow = _rows(REMEMBERS, [QUICK] * 8, first=0), _rows(REMEMBERS, [4, 5, 4, 3] * 2, first=8)
    never_equal = _rows(WANDERS, [2] * 3, first=16)
    table = write_table(tmp_path / "t.parquet", [*quick, *slow, *never_equal])
    values = job_values(table, tmp_path / "out", address=ray_cluster, recipe=REMEMBERS, audit={"every": 3})
    values["fleet"]["workers"] = 1  # so that it begins with the quick rows
    job = write_job(tmp_path / "job.yaml", values)
    ended = command("render", job, exits=0)

    records = {record["tag"]: record for record in records_of(tmp_path / "out")}
    assert all_columns(Store(str(tmp_path / "out")), "records").num_rows == 19 == len(records)
    pipe = load_model(tiny("wan"), dtype="fp32").pipe
    for row in [*quick, *slow]:
        assert records[row["tag"]]["frames_sha256"] == _plain(pipe, row)
    check_whole(tmp_path / "out")

    kind = "rows of tests.hidden_state:remembers 5 x 16 x 16, 32 tokens"
    assert f"audit: {kind} differ if they are not rendered by plain calls, so each was" in ended.stderr
    assert "of these rows had a record, which was replaced" in ended.stderr
    assert (
        "audit: rows of tests.hidden_state:wanders 5 x 16 x 16, 32 tokens cannot be repeated" in ended.stderr
    )
    found = re.search(
        rf"^warning: (\S+): {kind} differ if they are not rendered by plain calls, as row", ended.stderr, re.M
    )
    assert found, ended.stderr
    (spoiled,) = found.groups()  # worker-0, unless its first process ended early
    assert f"{spoiled}: it rendered {kind}, and a new process takes its place" in ended.stderr
    healed = {record["worker"] for record in records.values() if "plain call:" in record["environment"]}
    assert healed and spoiled not in healed  # rows of this kind are healed in a new process
    remarks = {tag: json.loads(record["environment"]).get("audit") for tag, record in records.items()}
    assert all((remarks[row["tag"]] or "").startswith((EQUAL, PLAINLY)) for row in slow)
    assert "two plain calls of such a row differed" in remarks.values()

    again = command("render", job)
    assert "nothing to do: every row has a record" in again.stderr
