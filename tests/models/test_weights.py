"""Models that must not be rendered with are refused before anything of them is loaded, with the fix."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.sources.integrity import LOCK_FILE, read_lock
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import open_weights
from tests.commands import command
from tests.model_files import flip_a_byte, model_files
from tests.tiny import tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(tiny("wan"), tmp_path / "wan")


@pytest.fixture
def locked(folder: Path) -> Path:
    command("model", "lock", folder, exits=0)
    return folder


@pytest.fixture
def url(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a model in an object store, with an empty cache here."""
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    place = f"memory://models-{tmp_path.name}/wan"
    fsspec.filesystem("memory").put(f"{folder}/", place, recursive=True)
    return place


def to_pickles(folder: Path) -> None:
    for component in ("vae", "transformer", "text_encoder"):
        (old,) = (folder / component).glob("*.safetensors")
        name = "pytorch_model" if component == "text_encoder" else "diffusion_pytorch_model"
        torch.save(load_file(old), folder / component / f"{name}.bin")
        old.unlink()


def test_a_locked_model_loads_and_is_verified(locked: Path) -> None:
    model = framefleet.load_model(locked)
    lock = read_lock(locked / LOCK_FILE)
    assert (lock.digests, lock.class_name, lock.source) == (model.digests, "WanPipeline", str(locked))
    ended = command("model", "verify", locked, exits=0)
    assert f"as locked, digest {model.digest}" in ended.stdout
    flip_a_byte(locked / "vae" / WEIGHTS)
    assert command("model", "verify", locked).exit_code == 2
    assert command("model", "lock", locked).exit_code == 0  # over the old one
    assert command("model", "verify", locked).exit_code == 0


@pytest.mark.parametrize(
    ("name", "problem"),
    [("extra.json", "is not in the lock"), ("tokenizer_config.json", "is missing")],
)
def test_a_file_more_or_less_than_the_lock_has_is_refused(locked: Path, name: str, problem: str) -> None:
    file = locked / "tokenizer" / name
    file.unlink() if file.exists() else file.write_text("{}")
    with pytest.raises(ModelError, match=f"tokenizer/{name} {problem}"):
        framefleet.load_model(locked)


def test_a_worker_loads_the_drivers_files_and_no_others_of_its_folder(folder: Path) -> None:
    expected = model_files(folder)
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/name"}')
    (folder / "transformer" / f"{WEIGHTS}.index.json").write_text(
        '{"metadata": {}, "weight_map": {"w": "none.safetensors"}}'
    )
    model = load(ModelSettings(path=str(folder)), expected)
    assert model.digests == expected


@pytest.mark.parametrize("key", ["sha256", "size"])
def test_a_damaged_lock_is_refused(locked: Path, key: str) -> None:
    lock = json.loads((locked / LOCK_FILE).read_text())
    texts = ["", "[]", '{"files": {}}']
    for value in (None, [], {}, "x" if key == "size" else 3, float("inf"), True):
        lock["files"]["model_index.json"][key] = value
        texts.append(json.dumps(lock))
    for text in texts:
        (locked / LOCK_FILE).write_text(text)
        with pytest.raises(ModelError, match="not a complete lock file"):
            model_files(locked)


def test_a_lock_elsewhere_counts_in_place_of_the_folders_own(locked: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "wan.lock.json"
    (locked / LOCK_FILE).rename(elsewhere)
    flip_a_byte(locked / "vae" / WEIGHTS)
    framefleet.load_model(locked)
    with pytest.raises(ModelError, match="its lock has"):
        framefleet.load_model(locked, lock=elsewhere)
    with pytest.raises(ModelError, match=r"none\.json is not a file"):
        framefleet.load_model(locked, lock="none.json")


def test_a_model_without_a_lock_has_nothing_to_be_verified_against(folder: Path) -> None:
    ended = command("model", "verify", folder, exits=2)
    assert "framefleet model lock" in ended.stderr


@pytest.mark.parametrize("name", ["text_encoder", "transformer"])
def test_a_network_without_weights_is_refused(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    with pytest.raises(ModelError, match=f"{name} cannot be loaded: .* needs weights"):
        model_files(folder)


def test_pickles_are_refused_unless_they_are_allowed(folder: Path) -> None:
    to_pickles(folder)
    with pytest.raises(ModelError, match="is a pickle") as caught:
        framefleet.load_model(folder)
    assert "model.allow_pickle: true" in caught.value.fix
    after = framefleet.load_model(folder, allow_pickle=True).denoisers()
    for name in after:
        before = load_file(tiny("wan") / name / WEIGHTS)
        assert all(torch.equal(before[key], value) for key, value in after[name].state_dict().items())
    assert "pickle" in command("model", "info", folder, "--allow-pickle").stdout


class Trap:
    """What a pickle can hold: a call that is made when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize("component", ["vae", "text_encoder"])
def test_code_in_an_allowed_pickle_is_not_run(folder: Path, tmp_path: Path, component: str) -> None:
    to_pickles(folder)
    mark = tmp_path / "it ran"
    (file,) = (folder / component).glob("*.bin")
    file.write_bytes(pickle.dumps(Trap(mark), protocol=2))
    with pytest.raises(ModelError, match="cannot be loaded"):
        framefleet.load_model(folder, allow_pickle=True)
    assert not mark.exists()


def test_a_url_without_a_lock_is_fetched_to_be_named_and_is_the_model_of_its_folder(
    url: str, folder: Path, tmp_path: Path
) -> None:
    assert open_weights(open_source(url)).digests() == model_files(folder)
    fetched = [path.name for path in (tmp_path / "cache").rglob("*.safetensors")]
    assert sorted(fetched) == [WEIGHTS] * 2 + ["model.safetensors"]
    assert not list((tmp_path / "cache").rglob("*.part"))
    model = framefleet.load_model(url)
    assert (model.settings.name, model.digests) == (url, model_files(folder))
    files = fsspec.filesystem("memory")
    content = files.cat_file(f"{url}/vae/{WEIGHTS}")
    files.pipe_file(f"{url}/vae/{WEIGHTS}", content[:-1] + bytes([content[-1] ^ 1]))
    assert open_weights(open_source(url)).digests() != model.digests


def test_with_a_lock_beside_it_a_url_is_named_without_its_weights(
    folder: Path, tmp_path: Path, url: str
) -> None:
    assert command("model", "lock", folder).exit_code == 0
    fsspec.filesystem("memory").put_file(str(folder / LOCK_FILE), f"{url}/{LOCK_FILE}")
    assert open_weights(open_source(url)).digests() == model_files(folder)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert framefleet.load_model(url).digests == model_files(folder)


def test_a_file_that_changed_in_the_cache_is_refused_and_fetched_anew_once_deleted(url: str) -> None:
    folder, digests = open_weights(open_source(url)).fetched()
    blob = (folder / "vae" / WEIGHTS).resolve()
    flip_a_byte(blob)
    with pytest.raises(ModelError, match="its own name has") as caught:
        framefleet.load_model(url)
    assert f"delete {blob}" in caught.value.fix
    blob.unlink()
    assert framefleet.load_model(url).digests == digests


def test_a_folder_of_a_lora_is_called_one_and_where_it_belongs(tmp_path: Path) -> None:
    weights = {"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 2)}
    save_file(weights, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ModelError, match=r"is a LoRA, not a model(.|\n)*`loras: \{style: FILE\}`"):
        open_weights(open_source(str(tmp_path)))


def test_a_url_without_a_pipeline_is_refused_and_its_password_not_shown() -> None:
    with pytest.raises(ModelError, match=r"has no model_index\.json") as caught:
        open_source("memory://user:hidden-value@nothing/here")
    assert "hidden-value" not in str(caught.value)


def test_a_cache_that_cannot_be_written_names_the_variable(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError) as caught:
        framefleet.load_model(url)
    assert "FRAMEFLEET_CACHE" in caught.value.fix


def test_info_names_components_rules_and_digest(locked: Path) -> None:
    shown = command("model", "info", locked).stdout
    model = framefleet.load_model(locked)
    facts = (
        "WanPipeline (video)",
        "frames:    4k + 1",
        "fps:       16",
        "scheduler: UniPCMultistepScheduler",
    )
    assert all(fact in shown for fact in (*facts, model.digest)), shown
    parameters = sum(p.numel() for p in model.pipe.transformer.parameters())
    (row,) = (line for line in shown.splitlines() if line.strip().startswith("transformer "))
    assert row.split()[1:4] == ["WanTransformer3DModel", "f32", f"{parameters:,}"]


@pytest.mark.parametrize(
    ("place", "content", "kind"),
    [
        ("model_index.json", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("scheduler/scheduler_config.json", b"<!doctype html><html>sign in</html>", "a web page"),
        ("tokenizer/tokenizer.json", b"", "is empty"),
    ],
)
def test_small_files_that_were_not_fetched_are_named(
    place: str, content: bytes, kind: str, folder: Path
) -> None:
    (folder / place).write_bytes(content)
    with pytest.raises(ModelError, match=kind) as caught:
        open_weights(open_source(str(folder))).configs()
    assert str(folder / place) in caught.value.problem and "fetch" in caught.value.fix


def test_python_shows_locks_and_verifies_a_model(folder: Path) -> None:
    info = framefleet.model_info(str(folder))
    assert (info.class_name, info.kind, info.digest) == ("WanPipeline", "video", None)
    by_name = {component.name: component for component in info.components}
    assert by_name["transformer"].num_parameters and by_name["transformer"].dtypes == ("f32",)
    assert by_name["scheduler"].num_parameters == 0
    assert repr(info).count("\n") <= 7
    locked = framefleet.lock_model(str(folder))
    assert locked.lock == folder / LOCK_FILE
    assert locked.num_bytes == sum(read_lock(locked.lock).sizes.values())
    verified = framefleet.verify_model(str(folder))
    assert (verified.digest, verified.compared_with) == (locked.digest, ("lock",))
    assert framefleet.model_info(str(folder)).digest == locked.digest
    flip_a_byte(folder / "transformer" / WEIGHTS)
    with pytest.raises(ModelError, match="transformer"):
        framefleet.verify_model(str(folder))
