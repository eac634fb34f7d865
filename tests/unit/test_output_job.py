"""An output goes on without its job file: what job.json says is taken, but for what opens doors."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from framefleet.jobs.doors import runners, sections
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.job.section import Section
from framefleet.jobs.render.claim import claimed_job, job_of
from framefleet.pipeline.errors import FramefleetError, JobError
from tests.commands import command
from tests.committed import committed


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"retries": {"attempts": 7}, "media": {"format": "mkv"}, "inputs": {"roots": ["/pictures"]}}
    return committed(tmp_path_factory.mktemp("claimed"), 2, **options)


@pytest.fixture
def out(job: Path) -> str:
    return str(job.parent / "out")


def claiming(out: str, folder: Path, section: str, **changed: Any) -> str:
    """Return an output whose job.json says something else."""
    said = json.loads(Path(out, "job.json").read_text())
    place = said["job"] if not section else said["job"][section]
    place.update(changed)
    (folder / "job.json").write_text(json.dumps(said))
    return str(folder)


def test_the_job_of_an_output_is_the_one_that_made_it(job: Path, out: str) -> None:
    told = load_job(job, ["media.encoder=libx264", "media.crf=18"])  # what was left open is written down
    assert claimed_job(out) == told == job_of(out)
    assert job_of(job) == load_job(job)
    found = claimed_job(out, ["fleet.workers=5", "storage_options.key=k"])
    assert (found.fleet.workers, found.storage_options) == (5, {"key": "k"})
    mapping = {"table": "t", "output": "o", "model": "m"}
    assert job_of(mapping, ["fleet.address=auto"]).fleet.address == "auto"


def test_credentials_are_shown_to_nobody_that_an_output_names(out: str, tmp_path: Path) -> None:
    theirs = {"endpoint_url": "http://127.0.0.1:9000", "endpoint": "http://127.0.0.1:9000"}
    place = claiming(out, tmp_path, "", storage_options=theirs)
    assert claimed_job(place).storage_options == {}
    assert claimed_job(place, ["storage_options.key=k"]).storage_options == {"key": "k"}


def test_every_key_of_a_job_is_judged(out: str) -> None:
    """A key that is new has to be thought about: what is opened, run or written on the word of job.json?"""
    asked = "table model models inputs fleet sweep loras second_models recipe scores post marks judge"
    elsewhere = "output storage_options on_end heartbeat"  # are never job.json's
    withheld = "defaults overrides draft"  # without secrets of URLs; as a table's cells
    harmless = "budget columns on_invalid batching audit keep keep_embeddings media retries order"
    sandboxed = "until"  # a condition is evaluated in a sandbox
    judged = " ".join([asked, "captions prompts", elsewhere, withheld, harmless, sandboxed])
    assert Job.model_fields.keys() == {*judged.split()}


LORA = {"style": {"path": "ftp://x/a", "sha256": "0" * 64}}


@pytest.mark.parametrize(
    ("section", "changed", "key"),
    [
        ("", {"recipe": "os:system"}, "recipe"),
        ("", {"scores": ["motion", "os:system"]}, "scores"),
        ("", {"scores": [{"similarity": "/etc"}]}, "scores"),
        ("", {"post": [{"upscale": "/etc/x.safetensors"}]}, "post"),
        ("", {"captions": {"url": "http://127.0.0.1/", "model": "x", "api_key_env": "HOME"}}, "captions"),
        ("", {"prompts": {"rewrite": {"url": "http://127.0.0.1/", "model": "x"}}}, "prompts"),
        ("", {"table": "http://127.0.0.1/t.csv"}, "table"),
        ("", {"table": "http://127.0.0.1/t.csv; touch PWN #"}, "table"),
        ("", {"loras": LORA}, "loras.style.path"),
        ("fleet", {"address": "10.0.0.1:6379"}, "fleet.address"),
        ("inputs", {"roots": ["http://127.0.0.1/"]}, "inputs.roots"),
        ("inputs", {"base": "http://127.0.0.1/"}, "inputs.base"),
        ("model", {"allow_pickle": True}, "model.allow_pickle"),
        ("model", {"path": "simplecache::http://127.0.0.1/m"}, "model.path"),
        ("model", {"base": "http://127.0.0.1/m"}, "model.base"),
        ("marks", {"watermark": [{"name": "trustmark", "weights": "/tmp/theirs"}]}, "marks.watermark"),
        ("marks", {"watermark": [{"name": "videoseal", "weights": "a'b.pth"}]}, "marks.watermark"),
        ("model", {"offload": {"type": "group", "disk": "/etc"}}, "model.offload.disk"),
        ("model", {"attention": "flash_hub"}, "model.attention"),
    ],
)
def test_doors_are_asked_about(
    out: str, tmp_path: Path, section: str, changed: dict[str, Any], key: str
) -> None:
    with pytest.raises(JobError, match="not used without your consent") as refused:
        claimed_job(claiming(out, tmp_path, section, **changed))
    how = "run from the folder that holds the module, with" if "os:system" in str(changed) else "give it as"
    hint = refused.value.fix.removeprefix(f"if that is right, {how} ").removesuffix("; or give the job file")
    option, pasted = shlex.split(hint)
    assert option == "--set"
    assert pasted.startswith(f"{key}=")
    claimed_job(str(tmp_path), [pasted])


def test_who_sets_one_key_of_a_section_does_not_consent_to_its_others(out: str, tmp_path: Path) -> None:
    rewrite = {"url": "http://127.0.0.1/", "model": "x"}
    place = claiming(out, tmp_path, "", prompts={"rewrite": rewrite})
    for sets in ([], ["prompts.rewrite.max_requests=5"], ["prompts.rewrite.url=http://127.0.0.2/"]):
        with pytest.raises(JobError, match="not used without your consent"):
            claimed_job(place, sets)
    assert claimed_job(place, ["prompts.rewrite={url: 'http://127.0.0.2/', model: y}"])


def test_a_section_is_not_trusted_unless_it_says_so() -> None:
    """Those of other packages say nothing, unless somebody has thought about it."""

    class Theirs(Section):
        url: str = ""

    trusted = {name: section().untrusted for name, section in sections().items() if name not in runners()}
    assert Theirs().untrusted == ("",) == trusted["judge"] == trusted["captions"]
    assert not any(trusted[name] for name in ("scores", "post", "marks"))  # as they are by default


def test_a_section_that_is_not_used_needs_no_consent(out: str, tmp_path: Path) -> None:
    place = claiming(out, tmp_path, "", scores=["os:system"])
    assert not claimed_job(place, unused=["scores"]).scores
    assert claimed_job(place, ["scores=[motion]"], unused=["scores"]).scores.names == ["motion"]
    post = [{"upscale": "/etc/x.safetensors"}]
    place = claiming(out, tmp_path, "", scores=["os:system"], recipe="os:system", post=post)
    assert "asks nothing about its clips" in command("judge", place).stderr


@pytest.mark.parametrize("value", [5, -1.5, [], [[5]], {}, {"a": {"b": 1}}, None, True, "", "\x1b[31m"])
def test_a_value_of_any_other_type_is_refused_or_taken(out: str, tmp_path: Path, value: Any) -> None:
    said = json.loads(Path(out, "job.json").read_text())["job"]
    keys = [("", key) for key in Job.model_fields]
    keys += [(section, key) for section, values in said.items() if isinstance(values, dict) for key in values]
    for section, key in keys:
        place = claiming(out, tmp_path, section, **{key: value})
        try:
            job_of(place)
        except FramefleetError as error:
            assert error.problem
