"""`framefleet model convert`: tiny originals, whole or in parts, become folders that load, or are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.registry import own_class
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint, open_checkpoint
from framefleet.plugins.ports.conversion.convert import convert_model, file_dtype, plan_conversion, write
from framefleet.plugins.ports.conversion.plan import check
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from tests.commands import command
from tests.crafter_originals import UNETS, checkpoint
from tests.gguf_files import wan_weights, write_gguf
from tests.long import long_but
from tests.tiny import tiny

MODEL = "model.diffusion_model."


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return checkpoint("videocrafter2-t2v-512")


def saved(tensors: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"state_dict": tensors}, folder / "model.ckpt")
    return folder / "model.ckpt"


def test_what_says_nothing_about_such_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="settings says nothing with a base"):
        framefleet.convert_model("x.gguf", tmp_path / "out", base="org/name", settings={"vae.z": 1})
    with pytest.raises(ModelError, match="parts says nothing without a base"):
        framefleet.convert_model("x.ckpt", tmp_path / "out", parts={"vae": "vae.safetensors"})


@pytest.mark.parametrize("variant", long_but(UNETS, "videocrafter1-t2v-1024", "dynamicrafter-512"))
def test_a_checkpoint_becomes_a_folder_that_loads_with_its_weights(variant: str, tmp_path: Path) -> None:
    tensors = checkpoint(variant)
    path = saved({f"_forward_module.{name}": tensor for name, tensor in tensors.items()}, tmp_path)
    named = variant if variant == "dynamicrafter-512" else None  # which has a sibling of equal tensors
    done = framefleet.convert_model(path, tmp_path / "out", variant=named)
    assert done.variant == variant
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    pipe = own_class(index["_class_name"]).from_pretrained(tmp_path / "out")
    assert inspect_model(tmp_path / "out").class_name == type(pipe).__name__
    conv_in = tensors[f"{MODEL}input_blocks.0.0.weight"]
    assert torch.equal(pipe.unet.conv_in.weight, conv_in)
    last = tensors["cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias"][-64:]
    assert torch.equal(pipe.text_encoder.encoder.layers[0].self_attn.v_proj.bias, last)
    pipe.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert {name: again[name] for name in index if name != "_name_or_path"} == index


def test_unknown_missing_and_misshapen_tensors_are_named(original: dict[str, Tensor], tmp_path: Path) -> None:
    extra = original | {f"{MODEL}adapter.weight": torch.ones(1)}
    missing = {name: t for name, t in original.items() if name != f"{MODEL}input_blocks.3.0.in_layers.2.bias"}
    misshapen = original | {f"{MODEL}out.2.bias": torch.ones(5)}
    no_text = {name: tensor for name, tensor in original.items() if not name.startswith("cond_stage")}
    no_conv = {name: t for name, t in original.items() if name != "first_stage_model.encoder.conv_in.weight"}
    column = original | {f"{MODEL}out.0.weight": torch.ones(32, 1)}
    flat = original | {f"{MODEL}out.2.weight": torch.ones(4)}
    expected = {
        "unknown tensors: model.diffusion_model.adapter.weight": extra,
        f"no tensors {MODEL}input_blocks.3.0.in_layers.2.bias, which its unet": missing,
        "out.2.bias has shape (5,), but conv_out.bias, which is made of it, is (4,)": misshapen,
        "has no text_encoder (cond_stage_model.model.*)": no_text,
        "has no complete vae: first_stage_model.encoder.conv_in.weight is missing": no_conv,
        "out.0.weight has shape (32, 1), but conv_norm_out.weight": column,
        f"unet: {MODEL}out.2.weight has shape (4,), not one of 4 dimensions": flat,
    }
    for problem, tensors in expected.items():
        with pytest.raises(ModelError, match=re.escape(problem)):
            convert_model(saved(tensors, tmp_path), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]  # nothing half done is left


def test_settings_that_a_scheduler_cannot_have_are_refused(original: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="the scheduler cannot be made"):
        plan_conversion(in_memory(original), given={"scheduler.beta_start": "x"})


def test_models_of_equal_tensors_need_a_name(tmp_path: Path) -> None:
    path = saved(checkpoint("dynamicrafter-512"), tmp_path)
    with pytest.raises(ModelError, match="may be dynamicrafter-512, dynamicrafter-512-interp"):
        convert_model(path, tmp_path / "out")
    with pytest.raises(ModelError, match="is not dynamicrafter-1024"):  # its latents scale otherwise
        convert_model(path, tmp_path / "out", variant="dynamicrafter-1024")
    convert_model(path, tmp_path / "out", variant="dynamicrafter-512-interp")
    assert json.loads((tmp_path / "out/unet/config.json").read_text())["default_fps"] == 5


@pytest.mark.parametrize(("variant", "rate"), [("videocrafter2-t2v-512", 28), ("videocrafter1-i2v-512", 8)])
def test_the_motion_of_a_call_without_fps_is_that_of_the_authors_scripts(variant: str, rate: int) -> None:
    network = plan_conversion(in_memory(checkpoint(variant))).networks["unet"].module
    assert network.config.default_fps == rate  # type: ignore[union-attr]
    told = plan_conversion(in_memory(checkpoint(variant)), given={"unet.default_fps": 12})
    assert told.networks["unet"].module.config.default_fps == 12  # type: ignore[union-attr]


def test_a_folder_that_exists_is_left_alone(original: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="already exists"):
        convert_model(saved(original, tmp_path), tmp_path / "out")


def test_parts_of_clip_that_nothing_needs_are_known_and_others_are_not() -> None:
    tensors = checkpoint("videocrafter1-i2v-512")
    embedder, text = "embedder.model", "cond_stage_model.model"
    known = {name.replace(text, embedder): t for name, t in tensors.items() if name.startswith(text)}
    opened = in_memory(tensors | known)
    conversion = plan_conversion(opened)
    check(conversion, opened)
    assert set(known) <= conversion.ignored
    for unknown in (
        f"{embedder}.adapter.weight",
        f"{embedder}.transformer.resblocks.0.ln_3.weight",
        f"{embedder}.visual.proj.bias",
        f"{text}.transformer.resblocks.1.attn.scale",
    ):
        opened = in_memory(tensors | {unknown: torch.ones(1)})
        with pytest.raises(ModelError, match=re.escape(f"unknown tensors: {unknown}")):
            check(plan_conversion(opened), opened)


def in_memory(tensors: dict[str, Tensor]) -> Checkpoint:
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    return Checkpoint(path=Path("model.ckpt"), shapes=shapes, read=tensors.__getitem__)


def scales(end: float, steps: int = 400) -> Tensor:
    return torch.cat([torch.linspace(1, end, steps), torch.full((1400 - steps,), end)])


def test_scales_of_latents_may_be_rounded_in_the_file(original: dict[str, Tensor]) -> None:
    rounded = plan_conversion(in_memory(original | {"scale_arr": scales(0.7).bfloat16()})).others["scheduler"]
    assert isinstance(rounded, VideoCrafterDDIMScheduler)
    assert rounded.config.latent_scale == 0.7


@pytest.mark.parametrize(
    "values",
    [
        *(torch.ones(0), torch.tensor(0.7), torch.rand(1000), scales(float("nan")), scales(0.7)[:999]),
        *(scales(0.55), scales(0.7, 300)),
    ],
)
def test_scales_of_no_released_model_are_refused_unless_they_are_given(
    values: Tensor, original: dict[str, Tensor]
) -> None:
    tuned = original | {"scale_arr": values}
    with pytest.raises(ModelError, match=r"scale_arr, of shape .* is that of no model") as refused:
        plan_conversion(in_memory(tuned))
    assert "--set scheduler.latent_scale=" in refused.value.fix
    for end in (0.55, None):
        given = {"scheduler.latent_scale": end}
        scheduler = plan_conversion(in_memory(tuned), given=given).others["scheduler"]
        assert isinstance(scheduler, VideoCrafterDDIMScheduler)
        assert float(scheduler.latent_scales.min()) == pytest.approx(end or 1)


def test_two_embeddings_of_fps_are_refused(original: dict[str, Tensor]) -> None:
    stem = f"{MODEL}fps_embedding"
    both = {name.replace("fps_embedding", "framestride_embed"): t for name, t in original.items()}
    with pytest.raises(ModelError, match=f"{stem} and framestride_embed are two names of one layer"):
        plan_conversion(in_memory(original | both))
    assert plan_conversion(in_memory(both)).variant == "videocrafter2-t2v-512"


def test_what_no_tensor_tells_is_asked_for(original: dict[str, Tensor]) -> None:
    narrow = {name: t[..., :48] if "cond_stage" in name and t.dim() else t for name, t in original.items()}
    with pytest.raises(ModelError, match=r"no tensor shows text_encoder\.num_attention_heads") as refused:
        plan_conversion(in_memory(narrow))
    assert refused.value.fix == "say it with --set text_encoder.num_attention_heads=..."
    with pytest.raises(ModelError, match="no text_encoder can have the sizes"):
        plan_conversion(in_memory(narrow), given={"text_encoder.num_attention_heads": 5})
    with pytest.raises(ModelError, match="no unet can have the sizes"):
        plan_conversion(in_memory(original), given={"unet.layers_per_block": 5})
    with pytest.raises(ModelError, match="has no such setting") as refused:
        plan_conversion(in_memory(original), given={"vae.norm_groups": 8})
    assert refused.value.fix == "did you mean 'vae.norm_num_groups'?"


def test_a_conversion_that_is_cut_short_leaves_nothing(original: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(original, tmp_path)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_model(path, tmp_path / "out", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == [path]
    opened = open_checkpoint(path)
    with pytest.raises(KeyboardInterrupt):  # a kill leaves what a folder without its index is
        write(plan_conversion(opened), opened, tmp_path / ".out.partial", dtype=None, wrote=interrupt)
    with pytest.raises(ModelError):
        inspect_model(tmp_path / ".out.partial")
    convert_model(path, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"model.ckpt", "out"}


def test_the_bytes_written_are_told_as_they_are_written(original: dict[str, Tensor], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    convert_model(
        saved(original, tmp_path),
        tmp_path / "out",
        dtype="fp16",
        on_progress=lambda done, total: told.append((done, total)),
    )
    tensors = [t for file in (tmp_path / "out").glob("*/*.safetensors") for t in load_file(file).values()]
    assert len(told) == len(tensors) and {tensor.dtype for tensor in tensors} == {torch.float16}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (sum(t.nbytes for t in tensors),) * 2


class Code:
    """What a pickle of more than tensors holds."""


def test_a_pickle_with_code_is_refused_by_the_command(original: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": original, "callback": Code()}, tmp_path / "model.ckpt")
    refused = command("model", "convert", tmp_path / "model.ckpt", tmp_path / "out")
    assert refused.exit_code == 2 and "could run code" in refused.stderr
    assert "weights_only" not in refused.stderr and "\x1b" not in refused.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_converts_and_the_result_can_be_locked_and_verified(
    original: dict[str, Tensor], tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    printed = command("model", "convert", str(saved(original, tmp_path)), out)
    assert "videocrafter2-t2v-512, VideoCrafterPipeline" in printed.stdout
    assert "files" in command("model", "lock", out).stdout
    assert "as locked" in command("model", "verify", out).stdout
    assert "VideoCrafterUNet3DModel" in command("model", "info", out).stdout


def test_weights_of_numbers_that_no_model_has_are_refused(
    original: dict[str, Tensor], tmp_path: Path
) -> None:
    name = f"{MODEL}input_blocks.0.0.weight"
    path = saved({**original, name: original[name].to(torch.int8)}, tmp_path)
    with pytest.raises(ModelError, match=r"has torch\.int8"):
        convert_model(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (("I64", "F16"), torch.float16),
        (("BOOL", "U8", "BF16"), torch.bfloat16),
        (("F16", "F32"), torch.float32),
        (("F16", "BF16"), torch.float32),
        (("F64",), torch.float32),
        (("BF16", "F8_E4M3"), torch.float32),
        (("F16", "Q4_K"), torch.float32),
        (("BF16", "IQ4_XS"), torch.float32),
        (("I32", "Q8_0"), torch.float32),
    ],
)
def test_a_dtype_holds_all_weights_of_a_file(stored: tuple[str, ...], dtype: torch.dtype) -> None:
    for names in (stored, stored[::-1]):
        part: Any = SimpleNamespace(tensors=[SimpleNamespace(dtype=name) for name in names])
        assert file_dtype(part) is dtype


def test_room_is_counted_in_the_dtype_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(wan_weights(), tmp_path / "wan.gguf", gguf.GGMLQuantizationType.Q8_0)
    base = [path for path in tiny("wan").rglob("*") if path.is_file() and path.parent.name != "transformer"]
    size = sum(path.stat().st_size for path in [*base, tiny("wan") / "transformer" / "config.json"])
    size += 2 * sum(tensor.num_parameters for tensor in check_file_size(file))
    usage, free = shutil.disk_usage(tmp_path), size - 1
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=free))
    with pytest.raises(ModelError, match=r"out will take(.|\n)*hint: free space"):
        framefleet.convert_model(file, tmp_path / "out", base=str(tiny("wan")), dtype="bf16")
    free = size
    framefleet.convert_model(file, tmp_path / "out", base=str(tiny("wan")), dtype="bf16")
    weights = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("base", [None, "org/name"])
def test_a_dtype_that_is_none_is_refused_before_anything_is_read(base: str | None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dtype is 'float16'"):
        framefleet.convert_model("x.safetensors", tmp_path / "out", base=base, dtype="float16")
