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
from safetensors.torch import load_file

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.sources.integrity import LOCK_FILE, read_lock
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import open_weights
from tests.commands import command
from tests.model_files import model_files
from tests.tiny import tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(tiny("wan"), tmp_path / "wan")


@pytest.fixture
def locked(folder: Path) -> Path:
    ended = command("model", "lock", folder)
    assert ended.exit_code == 0, ended.output
    return folder


@pytest.fixture
def url(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a model in an object store, with an empty cache here."""
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    place = f"memory://models-{tmp_path.name}/wan"
    fsspec.filesystem("memory").put(f"{folder}/", place, recursive=True)
    return place


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def set_index(folder: Path, **entries: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | entries))


def to_pickles(folder: Path) -> None:
    for component, name in (
        ("vae", "diffusion_pytorch_model"),
        ("transformer", "diffusion_pytorch_model"),
        ("text_encoder", "pytorch_model"),
    ):
        (old,) = (folder / component).glob("*.safetensors")
        torch.save(load_file(old), folder / component / f"{name}.bin")
        old.unlink()


def test_a_locked_model_loads_and_is_verified(locked: Path) -> None:
    model = framefleet.load_model(locked)
    lock = read_lock(locked / LOCK_FILE)
    assert (lock.digests, lock.class_name, lock.source) == (model.digests, "WanPipeline", str(locked))
    ended = command("model", "verify", locked)
    assert ended.exit_code == 0
    assert f"as locked, digest {model.digest}" in ended.stdout


def test_a_shard_with_one_other_bit_is_refused(locked: Path) -> None:
    change_a_byte(locked / "transformer" / WEIGHTS)
    with pytest.raises(ModelError, match=f"transformer/{WEIGHTS} is corrupted or another file") as caught:
        model_files(locked)
    assert "fetch it again" in caught.value.fix
    assert command("model", "verify", locked).exit_code == 2


def test_a_truncated_shard_is_refused_without_a_lock(folder: Path) -> None:
    path = folder / "transformer" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="its header says"):
        model_files(folder)


def test_a_file_that_the_lock_has_not_is_refused(locked: Path) -> None:
    (locked / "tokenizer" / "extra.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer/extra\.json is not in the lock"):
        framefleet.load_model(locked)


def test_a_missing_file_is_refused(locked: Path) -> None:
    (locked / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer/tokenizer_config\.json is missing"):
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
def test_a_lock_of_odd_values_is_refused(locked: Path, key: str) -> None:
    lock = json.loads((locked / LOCK_FILE).read_text())
    for value in (None, [], {}, "x" if key == "size" else 3, float("inf"), True):
        lock["files"]["model_index.json"][key] = value
        (locked / LOCK_FILE).write_text(json.dumps(lock))
        with pytest.raises(ModelError, match="not a whole lock file"):
            model_files(locked)


def test_a_lock_elsewhere_counts_in_place_of_the_folders_own(locked: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "wan.lock.json"
    (locked / LOCK_FILE).rename(elsewhere)
    change_a_byte(locked / "vae" / WEIGHTS)
    framefleet.load_model(locked)
    with pytest.raises(ModelError, match="its lock has"):
        framefleet.load_model(locked, lock=elsewhere)


@pytest.mark.parametrize("text", ["", "[]", '{"files": {}}'])
def test_a_damaged_lock_is_refused(folder: Path, text: str) -> None:
    (folder / LOCK_FILE).write_text(text)
    with pytest.raises(ModelError, match="not a whole lock file"):
        framefleet.load_model(folder)


def test_a_lock_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json is not a file"):
        framefleet.load_model(folder, lock="none.json")


def test_a_lock_is_made_anew_over_an_old_one(locked: Path) -> None:
    change_a_byte(locked / "vae" / WEIGHTS)
    assert command("model", "lock", locked).exit_code == 0
    assert command("model", "verify", locked).exit_code == 0


def test_a_model_without_a_lock_has_nothing_to_be_verified_against(folder: Path) -> None:
    ended = command("model", "verify", folder)
    assert ended.exit_code == 2
    assert "framefleet model lock" in ended.stderr


@pytest.mark.parametrize("name", ["text_encoder", "transformer"])
def test_a_network_without_weights_is_refused(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    with pytest.raises(ModelError, match=f"{name} cannot be loaded: .* needs weights"):
        model_files(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"_class_name": ["pipeline", "MyPipeline"]},
        {"custom_pipeline": "lpw"},
        {"transformer": ["my_transformer", "MyTransformer"]},
        {"transformer": ["diffusers", "MyTransformer"]},
    ],
)
def test_code_of_the_models_own_is_refused(folder: Path, entries: dict[str, Any]) -> None:
    set_index(folder, **entries)
    with pytest.raises(ModelError) as caught:
        framefleet.load_model(folder)
    assert "pipelines with code of their own are not loaded" in caught.value.fix


def test_pickles_are_refused_unless_they_are_allowed(folder: Path) -> None:
    before = {
        name: dict(module.state_dict()) for name, module in framefleet.load_model(folder).denoisers().items()
    }
    to_pickles(folder)
    with pytest.raises(ModelError, match="is a pickle") as caught:
        framefleet.load_model(folder)
    assert "model.allow_pickle: true" in caught.value.fix
    after = framefleet.load_model(folder, allow_pickle=True).denoisers()
    for name, weights in before.items():
        assert all(torch.equal(weights[key], value) for key, value in after[name].state_dict().items())
    assert "pickle" in command("model", "info", folder, "--allow-pickle").stdout


class Trap:
    """What a pickle can hold: a call that is made when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize(
    ("component", "name"), [("vae", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")]
)
def test_code_in_an_allowed_pickle_is_not_run(
    folder: Path, tmp_path: Path, component: str, name: str
) -> None:
    to_pickles(folder)
    mark = tmp_path / "it ran"
    with open(folder / component / f"{name}.bin", "wb") as file:
        pickle.dump(Trap(mark), file, protocol=2)
    with pytest.raises(ModelError, match="cannot be loaded"):
        framefleet.load_model(folder, allow_pickle=True)
    assert not mark.exists()


def test_a_model_of_a_url_is_the_model_of_its_folder(url: str, folder: Path) -> None:
    model = framefleet.load_model(url)
    assert (model.settings.name, model.digests) == (url, model_files(folder))


def test_without_a_lock_beside_it_a_url_is_fetched_to_be_named(
    url: str, folder: Path, tmp_path: Path
) -> None:
    weights = open_weights(open_source(url))
    assert weights.digests() == model_files(folder)
    fetched = [path.name for path in (tmp_path / "cache").rglob("*.safetensors")]
    assert sorted(fetched) == ["diffusion_pytorch_model.safetensors"] * 2 + ["model.safetensors"]
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_with_a_lock_beside_it_a_url_is_named_without_its_weights(
    folder: Path, tmp_path: Path, url: str
) -> None:
    lock = command("model", "lock", folder)
    assert lock.exit_code == 0
    fsspec.filesystem("memory").put_file(str(folder / LOCK_FILE), f"{url}/{LOCK_FILE}")
    assert open_weights(open_source(url)).digests() == model_files(folder)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert framefleet.load_model(url).digests == model_files(folder)


def test_a_url_whose_files_change_is_another_model(url: str) -> None:
    before = framefleet.load_model(url).digest
    files = fsspec.filesystem("memory")
    content = bytearray(files.cat_file(f"{url}/vae/{WEIGHTS}"))
    content[-1] ^= 1
    files.pipe_file(f"{url}/vae/{WEIGHTS}", bytes(content))
    assert framefleet.load_model(url).digest != before


def test_a_file_that_changed_in_the_cache_is_refused_and_fetched_anew_once_deleted(url: str) -> None:
    folder, digests = open_weights(open_source(url)).fetched()
    blob = (folder / "vae" / WEIGHTS).resolve()
    change_a_byte(blob)
    with pytest.raises(ModelError, match="its own name has") as caught:
        framefleet.load_model(url)
    assert f"delete {blob}" in caught.value.fix
    blob.unlink()
    assert framefleet.load_model(url).digests == digests


def test_a_url_without_a_pipeline_is_refused() -> None:
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        open_source("memory://nothing/here")


def test_a_url_never_shows_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as caught:
        open_source("memory://user:hidden-value@host/wan")
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
    assert "WanPipeline (video)" in shown
    assert "frames:    4k + 1" in shown
    assert "fps:       16" in shown
    assert "scheduler: UniPCMultistepScheduler" in shown
    assert framefleet.load_model(locked).digest in shown
    parameters = sum(p.numel() for p in framefleet.load_model(locked).pipe.transformer.parameters())
    (row,) = (line for line in shown.splitlines() if line.strip().startswith("transformer "))
    assert row.split()[1:4] == ["WanTransformer3DModel", "f32", f"{parameters:,}"]


@pytest.mark.parametrize(
    "place", ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"]
)
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        (b"<!doctype html><html>sign in</html>", "a web page"),
        (b"", "is empty"),
    ],
)
def test_small_files_that_were_not_fetched_are_named(
    content: bytes, kind: str, place: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny("sd"), tmp_path / "sd")
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
    change_a_byte(folder / "transformer" / WEIGHTS)
    with pytest.raises(ModelError, match="transformer"):
        framefleet.verify_model(str(folder))
