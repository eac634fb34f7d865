"""The job of docs/datasets.md, small: prompts, scores, judges, balance, captions, marks, and the export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import datasets
import yaml

import framefleet
from tests.certificates import issue
from tests.chat_server import SERVER, Chat
from tests.commands import command
from tests.jobs import ROOT, write_job
from tests.servers import listening
from tests.tiny import SMALLEST, tiny

PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
JOB = yaml.safe_load(PAGE[PAGE.index("    # animals.yaml") : PAGE.index("\n## Look before you render")])


def test_the_job_of_the_page_makes_a_balanced_signed_dataset_with_captions(
    tmp_path: Path, ray_cluster: str
) -> None:
    (keys := tmp_path / "keys").mkdir()
    certificate, key = issue(keys)
    with listening(SERVER, tmp_path) as address:
        chat = Chat(address)
        values = JOB | {
            "output": str(tmp_path / "out"),
            "model": str(tiny("wan")),
            "defaults": {"max_sequence_length": 32, **SMALLEST["wan"]},
            "fleet": {"workers": 2, "gpus_per_worker": 0, "address": ray_cluster},
            "scores": JOB["scores"][:-1],  # without CLIP
            "marks": JOB["marks"] | {"sign": {"certificate": str(certificate), "private_key": str(key)}},
        }
        values["sweep"] |= {"class": ["fox", "owl"]}
        values["until"] |= {"accepted": 4, "at_most": 24, "where": "anatomy >= 5 AND sharpness >= 0"}
        for section in (values["prompts"]["rewrite"], values["judge"][0], values["captions"]):
            section["url"] = chat.url
        job = write_job(tmp_path / "animals.yaml", values)
        shown = command("prompts", job)
        assert shown.exit_code == 0 and shown.stdout.count("In golden light") == 4, shown.output
        command("plan", job, "--set", "until.rate=0.5", exits=0)
        command("render", job, exits=0)
        again = command("render", job)
        assert again.exit_code == 0 and "nothing to do" in again.stderr, again.stderr
    state = framefleet.acceptance(str(tmp_path / "out"))
    assert [group.accepted for group in state.groups] == [2] * 4
    assert "accepted: 8 of 8" in command("status", tmp_path / "out").stdout
    place = tmp_path / "animals-8"
    command("export", tmp_path / "out", place, "--format", "hf", "--where", "accepted", exits=0)
    rows = datasets.load_dataset(str(place), split="train").to_list()
    assert Counter((row["class"], row["style"]) for row in rows) == {
        (name, style): 2 for name in ("fox", "owl") for style in ("photo", "anime")
    }
    for row in rows:
        assert row["prompt"].startswith("In golden light") and row["prompt"].endswith(row["original_prompt"])
        assert row["caption"] and row["anatomy"] >= 5 and row["sharpness"] >= 0
    traced = command("trace", *sorted(place.rglob("*.mp4"))[:1])
    assert traced.exit_code == 0 and "signed by" in traced.stdout, traced.output
