"""examples/robots.yaml with a tiny model: looks of episodes, judged by their sources, then a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import framefleet
from tests.chat_server import SERVER, Chat
from tests.commands import command
from tests.jobs import ROOT, num_clips, wait_until
from tests.lerobot_dataset import CAMERAS, LENGTHS, dataset
from tests.servers import listening
from tests.warm.process import start

JOB, SHAPES = ROOT / "examples/robots.yaml", ROOT / "plugins/demo/shapes/model"


def episodes_of(folder: Path) -> list[dict[str, Any]]:
    """Return an exported dataset's episodes, each of which has all cameras; [] if there is no dataset."""
    if not (folder / "meta/info.json").exists():
        return []
    episodes: list[dict[str, Any]] = json.loads((folder / "provenance.json").read_text())["episodes"]
    assert all({*episode["clips"]} == {*CAMERAS} for episode in episodes)
    return episodes


def test_episodes_are_augmented_gated_by_their_sources_and_exported(tmp_path: Path, ray_cluster: str) -> None:
    source, out, new = dataset(tmp_path / "pick_cube"), tmp_path / "out", tmp_path / "looks"
    with listening(SERVER, tmp_path) as address:
        chat = Chat(address)
        sets = [f"table=lerobot://{source}", f"model={SHAPES}", f"output={out}", "until.where=fidelity >= 5"]
        sets += ["defaults={strength: 0.5, num_inference_steps: 2}", f"fleet.address={ray_cluster}"]
        sets += ["fleet.workers=1", "fleet.gpus_per_worker=0"]
        job = tmp_path / "job.yaml"
        job.write_text(JOB.read_text().replace("http://localhost:8000/v1", chat.url))
        options = [f"--set={one}" for one in sets]
        for at_least in (2, 9):  # killed while it renders, and run again
            process = start("-m", "framefleet.jobs.cli", "render", job, *options)
            wait_until(lambda: num_clips(out) > at_least, process)  # noqa: B023
            process.kill()
            process.communicate(timeout=60)
            cut = tmp_path / f"cut-{at_least}"
            command("export", out, cut, "--format", "lerobot")  # of whatever is there
            episodes_of(cut)
        rendered = command("render", job, *options)
        assert rendered.exit_code in (0, 1), rendered.output  # 1: of a look all three were refused
        log = chat.log
    content = [[*map(lambda part: part["type"], one["body"]["messages"][0]["content"])] for one in log]
    assert min(len(types) - 3 for types in content) == 2 * min(LENGTHS[1], 6)
    records = framefleet.read_records(str(out)).to_pylist()
    takes: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for record in records:
        takes.setdefault((record["episode"], record["look"], record["seed"]), []).append(record)
    for of_take in takes.values():
        assert {record["camera"] for record in of_take} == {*CAMERAS}
        assert len({record["accepted"] for record in of_take}) == 1
        if of_take[0]["accepted"]:
            assert min(float(str(record["fidelity"])) for record in of_take) >= 5
    num_accepted = sum(bool(of_take[0]["accepted"]) for of_take in takes.values())
    assert 0 < num_accepted <= 12 and num_accepted < len(takes), "some are refused"

    exported = command("export", out, new, "--format", "lerobot", "--where", "accepted")
    assert exported.exit_code == 0 and f"{num_accepted} episodes of" in exported.output, exported.output
    provenance = episodes_of(new)
    assert len(provenance) == num_accepted == len(pq.read_table(new / "meta/episodes"))
    frames, before = (pq.read_table(folder / "data") for folder in (new, source))
    for episode in provenance:
        own, theirs = (
            table.filter(table["episode_index"].to_numpy() == episode[name])["action"]
            for table, name in ((frames, "episode_index"), (before, "source_episode_index"))
        )
        assert own.equals(theirs)
        assert all(clip["fidelity"] >= 5 for clip in episode["clips"].values())
