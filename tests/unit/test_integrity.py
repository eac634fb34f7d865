"""Only whole safetensors are loaded, and one digest names them all."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.components import Component, Loader
from framefleet.pipeline.model.sources.folder_source import list_folder
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.sources.integrity import file_digests, model_digest
from framefleet.pipeline.model.sources.selection import select

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model_index.json").write_text("{}")
    for name in ("transformer", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"weight": torch.arange(4.0)}, tmp_path / name / WEIGHTS)
    return tmp_path


def loaded_files(folder: Path, *names: str, loader: Loader | None = "diffusers") -> list[str]:
    components = [Component(name=n, library="diffusers", class_name="Any", loader=loader) for n in names]

    def read(file: str) -> bytes:
        return (folder / file).read_bytes()

    return select(list_folder(folder), components, read=read, where=str(folder))


def _digest(folder: Path) -> str:
    return model_digest(file_digests(folder, loaded_files(folder, "transformer", "vae")))


def test_the_digest_is_that_of_sha256sums_lines(folder: Path) -> None:
    files = loaded_files(folder, "transformer", "vae")
    lines = subprocess.run(["sha256sum", *files], cwd=folder, capture_output=True, check=True).stdout
    assert _digest(folder) == hashlib.sha256(lines).hexdigest()


def test_files_are_listed_with_configs_and_without_what_is_not_loaded(folder: Path) -> None:
    (folder / "vae" / "additional_chat_templates").mkdir()
    for name in (
        *("README.md", ".gitattributes", "model.fp16.safetensors", "flax_model.msgpack", "old.ckpt"),
        *("additional_chat_templates/tool.jinja", "additional_chat_templates/.hidden"),
    ):
        (folder / "vae" / name).write_text("x")
    weights = f"vae/{WEIGHTS}"
    templates = "vae/additional_chat_templates/tool.jinja"
    assert loaded_files(folder, "vae") == ["model_index.json", templates, "vae/config.json", weights]
    (folder / "vae" / "vocab\x1b]52;c.json").write_text("x")
    with pytest.raises(ModelError, match="cannot be a file's name"):
        loaded_files(folder, "vae")


def write_index(folder: Path, content: object) -> None:
    """Put an index of shards in the place of a component's weights."""
    (folder / "vae" / WEIGHTS).unlink(missing_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "vae" / f"{WEIGHTS}.index.json").write_text(text)


def test_shards_are_loaded_with_their_index(folder: Path) -> None:
    shards = {f"weight.{i}": f"{name}.safetensors" for i, name in enumerate("aba")}
    write_index(folder, {"metadata": {}, "weight_map": shards})
    save_file({"weight": torch.zeros(1)}, folder / "vae" / "a.safetensors")
    with pytest.raises(ModelError, match=r"b\.safetensors is missing"):
        loaded_files(folder, "vae")
    save_file({"weight": torch.zeros(1)}, folder / "vae" / "b.safetensors")
    index = f"vae/{WEIGHTS}.index.json"
    assert {*shards.values()} <= {file.removeprefix("vae/") for file in loaded_files(folder, "vae")}
    assert index in loaded_files(folder, "vae")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        *((text, "not an index") for text in ("", "[]", '{"weight_map": 3}', "{}")),
        *(
            ({"metadata": {}, "weight_map": {"w": shard}}, "not an index|is missing")
            for shard in ("a.bin", "../x.safetensors", "/x.safetensors", 3, None, ["a"])
        ),
        *(
            (
                metadata | {"weight_map": {"w": "a.safetensors"}},
                r'has no mapping `metadata`(.|\n)*"metadata": {}',
            )
            for metadata in ({}, {"metadata": None}, {"metadata": 3})
        ),
    ],
)
def test_an_index_that_is_none_is_refused(folder: Path, content: object, problem: str) -> None:
    (folder / "vae" / "a.bin").write_text("x")
    write_index(folder, content)
    with pytest.raises(ModelError, match=problem):
        loaded_files(folder, "vae")


def test_the_digest_changes_with_a_weight_and_with_a_config(folder: Path) -> None:
    before = _digest(folder)
    (folder / "vae" / "config.json").write_text('{"a": 1}')
    changed = _digest(folder)
    save_file({"weight": torch.ones(4)}, folder / "vae" / WEIGHTS)
    assert len({before, changed, _digest(folder)}) == 3


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "weights.ckpt", "model.pt"])
def test_pickles_are_refused_where_there_are_no_safetensors(folder: Path, name: str) -> None:
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / name)
    with pytest.raises(ModelError, match="pickle"):
        loaded_files(folder, "vae")


@pytest.mark.parametrize("loader", ["diffusers", "transformers", None])
@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", WEIGHTS, "model.safetensors.index.json", f"{WEIGHTS}.index.json"),
        *("adapter_config.json", "adapter_model.safetensors", "anything.safetensors"),
    ],
)
def test_weights_beside_those_that_are_loaded_are_refused_by_name(
    folder: Path, loader: Loader | None, name: str
) -> None:
    own = {"diffusers": WEIGHTS, "transformers": "model.safetensors", None: "vocab.json"}[loader]
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / own)
    if name == own:
        assert f"vae/{own}" in loaded_files(folder, "vae", loader=loader)
        return
    save_file({"weight": torch.zeros(1)}, folder / "vae" / "other.safetensors")
    (folder / "vae" / name).write_text('{"metadata": {}, "weight_map": {"weight": "other.safetensors"}}')
    with pytest.raises(ModelError, match="is next to the weights") as caught:
        loaded_files(folder, "vae", loader=loader)
    assert "delete it" in caught.value.fix


@pytest.mark.parametrize(
    "name",
    [
        *("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"),
        *("model.fp16-00001-of-00002.safetensors", "model-00001-of-00002.fp16.safetensors"),
        *("model.fp16.safetensors.index.json", "model.safetensors.index.fp16.json", "flax_model.msgpack"),
        *("diffusion_pytorch_model.bin", "shard.distcp"),
        # What desktops and editors leave.
        *("._" + WEIGHTS, "._config.json", ".DS_Store", "Thumbs.db", "desktop.ini", "config.json~", "Icon\r"),
        *(".ipynb_checkpoints/config-checkpoint.json", "__MACOSX/._config.json", "#config.json#"),
        *("config.json.bak", ".config.json.swp", f"{WEIGHTS}.part", f".{WEIGHTS}.tmp"),
        f"._{WEIGHTS}.index.json",
    ],
)
def test_other_formats_and_leftovers_are_neither_loaded_nor_hashed(folder: Path, name: str) -> None:
    before = loaded_files(folder, "vae"), _digest(folder)
    for component in ("vae", "transformer"):
        (folder / component / name).parent.mkdir(exist_ok=True)
        (folder / component / name).write_bytes(b"\0\5\26\7")
    assert (loaded_files(folder, "vae"), _digest(folder)) == before


def test_a_file_of_another_length_than_its_header_says_is_refused(folder: Path) -> None:
    path = folder / "vae" / WEIGHTS
    content = path.read_bytes()
    for other in (content[:-1], content + b"x"):
        path.write_bytes(other)
        with pytest.raises(ModelError, match="its header says"):
            check_file_size(path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x08", b"<html>not found</html>", b"\x02" + bytes(7) + b"[]"),
        *(length.to_bytes(8, "little") + b"{}" for length in (2**63, 2**64 - 1, 10**9)),
        *(len(text).to_bytes(8, "little") + text for text in (b'{"a":' * 50_000, b"[" * 2**20)),
    ],
    ids=lambda content: content[:12],
)
def test_a_file_that_is_no_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / "vae" / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="not a safetensors file"):
        check_file_size(folder / "vae" / WEIGHTS)


def _tensor(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes


@pytest.mark.parametrize(
    "header",
    [
        {"a": 3},
        [_tensor()],
        {"a": _tensor(), "b": _tensor()},
        *(
            {"a": _tensor(data_offsets=offsets)}
            for offsets in ([0, -16], [16, 0], [8, 24], ["0", "16"], [0, 2**70], [0, 16.0])
        ),
        *({"a": _tensor(shape=shape)} for shape in ([2**62, 2**62], [-4], "4", [[4]], [4] + 8 * [1])),
        {"a": _tensor(), "b": _tensor(shape=[0, 2**63], data_offsets=[16, 16])},
        *({"a": _tensor(dtype=dtype)} for dtype in ({}, None)),
    ],
    ids=repr,
)
def test_tensors_that_do_not_lie_one_after_another_are_refused(folder: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (folder / "vae" / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(ModelError, match=r"not a safetensors file|its header says"):
        check_file_size(folder / "vae" / WEIGHTS)
