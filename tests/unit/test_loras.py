"""Adapters follow their rows through fused forwards; a LoRA's name and weights are read or refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

import framefleet
from framefleet import Batching
from framefleet.jobs.job.file import load_job, places
from framefleet.jobs.job.schema import LoraSection
from framefleet.pipeline.errors import JobError, Refused
from framefleet.pipeline.hooks.adapters import Adapters, RowAdapters, working_on
from framefleet.pipeline.model.lora import Lora, adapters_in, check_loras, loras_of, without_loras
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.forwards import Forwards
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow

ROWS: list[Adapters] = [(), (("x", 1.0),), (("x", 0.5),), (("y", 2.0),), (("x", 1.0), ("y", -1.0))]


class Mixer(nn.Module):
    """A denoiser with one adapted layer; `turned` gives it rows that are not outermost."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.to_q = nn.Linear(8, 8)
        self.to_v = nn.Linear(8, 8)
        self.turned = turned
        self.rows: list[int] = []

    def forward(self, latents: Tensor) -> Tensor:
        self.rows.append(latents.shape[0])
        hidden = self.to_q(latents)
        return self.to_v(hidden.transpose(0, 1)).transpose(0, 1) if self.turned else self.to_v(hidden)


@pytest.fixture
def mixer(request: pytest.FixtureRequest) -> Mixer:
    torch.manual_seed(0)
    network = Mixer(turned=getattr(request, "param", False)).eval()
    for name, targets in {"x": ["to_q", "to_v"], "y": ["to_v"]}.items():
        add_adapter(network, name, targets)
    return network


def add_adapter(network: Mixer, name: str, targets: list[str]) -> None:
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    with warnings.catch_warnings(action="ignore"):  # of a second adapter
        inject_adapter_in_model(config, network, adapter_name=name)
    network.requires_grad_(False)


def alone(network: nn.Module, latents: Tensor, adapters: Adapters) -> Tensor:
    LoraLayers({"unet": network}).hold(RowAdapters(adapters))
    with torch.no_grad():
        output: Tensor = network(latents)
    return output


def rendered(
    network: nn.Module, latents: list[Tensor], rows: list[Adapters] = ROWS, batcher: Batcher | None = None
) -> list[Tensor]:
    layers = LoraLayers({"unet": network})
    batcher = batcher or Batcher(Forwards({"unet": network}, Batching(min_gain=0)))
    own = [RowAdapters(rows[row % len(rows)]) for row in range(len(latents))]

    def recipe(row: int) -> Tensor:
        with working_on([own[row]]):
            for _ in range(2):  # the second is fused by what was learned at the first
                output: Tensor = network(latents[row])
            return output

    tasks = [batcher.start(RowTask(lambda row=row: recipe(row))) for row in range(len(latents))]
    with layers.seen():
        while batcher.tasks:
            batcher.step()
    assert [task.error for task in tasks] == [None] * len(tasks)
    return [task.value for task in tasks]


@pytest.mark.parametrize("mixer", [False, True], indirect=True, ids=["outermost", "not outermost"])
def test_rows_of_different_adapters_keep_their_bits_and_share_a_forward(mixer: Mixer) -> None:
    shape = (1, 8, 8) if mixer.turned else (2, 3, 8)
    latents = [torch.randn(shape) for _ in range(8)]
    expected = [alone(mixer, latents[row], ROWS[row % len(ROWS)]) for row in range(8)]
    mixer.rows.clear()
    found = rendered(mixer, latents)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    assert mixer.turned or mixer.rows[-1] == 16
    assert "forward" not in vars(mixer.to_q)


class Blocks(nn.Module):
    """A denoiser whose block is compiled."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.rows: list[int] = []

    def forward(self, latents: Tensor) -> Tensor:
        self.rows.append(latents.shape[0])
        return self.block(latents)


def test_compiled_blocks_run_rows_of_equal_adapters_and_weights_at_once(mixer: Mixer) -> None:
    network = Blocks(nn.Sequential(mixer.to_q, mixer.to_v)).eval()
    network.block.compile(backend="eager", fullgraph=True, dynamic=False)
    latents = [torch.randn(2, 3, 8) for _ in range(2 * len(ROWS))]
    expected = [alone(network, row, ROWS[i % len(ROWS)]) for i, row in enumerate(latents)]
    network.rows.clear()
    fast = Batcher(Forwards({"unet": network}, Batching(mode="fast", min_gain=0)))
    for mine, theirs in zip(rendered(network, latents, batcher=fast), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert max(network.rows) == 4  # two rows of each
    assert "forward" not in vars(network)


@pytest.mark.parametrize("mixer", [True], indirect=True)
def test_rows_outermost_in_some_layers_prove_nothing_of_others(mixer: Mixer) -> None:
    """`to_q` is given rows first, and has `z` alone; `to_v` has `y`, and rows second, as ERNIE's layers."""
    add_adapter(mixer, "z", ["to_q"])
    latents = [torch.randn(1, 8, 8) for _ in range(4)]
    batcher = Batcher(Forwards({"unet": mixer}, Batching(min_gain=0)))
    alike: list[Adapters] = [(("y", 1.0),), (("y", 1.0), ("z", 1.0))]  # in what `to_v` has
    for rows in (alike * 2, [(("y", 1.0),), (("z", 1.0),)] * 2):
        for _ in range(3):
            expected = [alone(mixer, *own) for own in zip(latents, rows, strict=True)]
            found = rendered(mixer, latents, rows, batcher)
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_outside_of_rows_a_layer_is_as_its_owner_set_it(mixer: Mixer) -> None:
    latents = torch.randn(2, 3, 8)
    expected = alone(mixer, latents, ROWS[4])
    layers = LoraLayers({"unet": mixer, "unet_2": nn.Linear(2, 2)})
    with torch.no_grad(), layers.seen():
        assert torch.equal(mixer(latents), expected)
    assert layers.used_in("unet", (("x", 1.0), ("z", 1.0))) == (("x", 1.0),)
    assert layers.used_in("unet_2", (("x", 1.0),)) == ()


DECLARED = {
    "style": Lora(path="a.safetensors", sha256="aa"),
    "detail": Lora(path="b.safetensors", sha256="bb", component="transformer_2"),
}
STYLE = {"sha256": "aa", "weight": 0.8}
DETAIL = {"sha256": "bb", "weight": -1.0, "component": "transformer_2"}
JOB = {"table": "t", "output": "o", "model": "m"}


def rows(spec: PipelineSpec, cells: list[str | None], **job: Any) -> list[CheckedRow | InvalidRow]:
    batch = pa.RecordBatch.from_pydict({"prompt": ["a"] * len(cells), "lora": pa.array(cells, pa.string())})
    return list(plan_rows(batch.schema, spec, **{"loras": DECLARED, **job}).rows(0, batch))


def asked(spec: PipelineSpec, cells: list[str | None], **job: Any) -> list[Any]:
    found = rows(spec, cells, **job)
    return [row.request.arguments.get("lora") for row in found if isinstance(row, CheckedRow)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("style", {"style": STYLE | {"weight": 1.0}}),
        ("style:0.8", {"style": STYLE}),
        ("detail:-1 + style : .8", {"style": STYLE, "detail": DETAIL}),
        ("style:-0", {"style": STYLE | {"weight": 0.0}}),
        ("", {}),
        ("none", {}),
    ],
)
def test_a_row_names_loras_with_weights(text: str, expected: dict[str, Any]) -> None:
    found = check_loras(text, DECLARED)
    assert found == expected
    assert "-0.0" not in repr(found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stile", "declares no LoRA 'stile'"),
        ("style+", "declares no LoRA ''"),
        ("<lora:style:0.8>", "has angle brackets"),
        ("style:nan", "'nan' is not a weight"),
        ("style:1e999", "'1e999' is not a weight"),
        ("style:0.5:0.5", "'0.5:0.5' is not a weight"),
        ("style+style:0.5", "names 'style' twice"),
        (0.8, "must be text"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: Any, reason: str) -> None:
    found = check_loras(text, DECLARED)
    assert isinstance(found, Refused)
    assert reason in found.reason


def test_a_null_cell_takes_the_default_and_none_takes_no_lora(wan: PipelineSpec) -> None:
    cells = [None, "none", "", "detail:-1"]
    assert asked(wan, cells) == [None, None, None, {"detail": DETAIL}]
    defaults = {"lora": "style:0.8"}
    assert asked(wan, cells, defaults=defaults) == [{"style": STYLE}, None, None, {"detail": DETAIL}]
    assert asked(wan, [None], defaults={"lora": None}) == [None]


def test_a_bad_cell_is_told_with_its_column_and_a_bad_default_with_its_place(wan: PipelineSpec) -> None:
    (row,) = rows(wan, ["stile"])
    assert isinstance(row, InvalidRow)
    (problem, fix) = row.messages()[0]
    assert problem == "row 0: lora is 'stile', but the job declares no LoRA 'stile'"
    assert fix == "did you mean 'style'?"
    with pytest.raises(JobError, match=r"defaults\.lora is 'stile', but the job declares no LoRA 'stile'"):
        rows(wan, [None], defaults={"lora": "stile"})
    (row,) = rows(wan, ["style"], loras={})
    assert isinstance(row, InvalidRow)
    assert "the job declares no LoRA" in str(row.problems[0])
    assert "loras: {style: ...}" in row.problems[0].why.fix


def test_equal_rows_of_other_loras_get_other_seeds_and_one_shape(wan: PipelineSpec) -> None:
    found = [row for row in rows(wan, [None, "none", "style"]) if isinstance(row, CheckedRow)]
    assert found[0].request == found[1].request
    assert found[0].request.seed != found[2].request.seed
    assert found[0].shape == found[2].shape


def test_adapters_are_added_in_the_order_of_their_names_however_a_row_names_them() -> None:
    arguments = {"prompt": "a", "lora": {"style": STYLE, "detail": DETAIL}}
    assert adapters_in(arguments) == (("adapter_detail", -1.0), ("adapter_style", 0.8))
    assert adapters_in({"prompt": "a"}) == ()
    assert without_loras(arguments) == {"prompt": "a"}


def test_a_job_declares_a_lora_as_a_path_or_a_mapping(tmp_path: Path) -> None:
    job = load_job(JOB | {"loras": {"style": "a.safetensors", "x": {"path": "org/x", "revision": "v1"}}})
    assert job.loras["style"] == LoraSection(path="a.safetensors")
    assert job.loras["x"] == LoraSection(path="org/x", revision="v1")
    path = tmp_path / "job.yaml"
    path.write_text("table: t\noutput: o\nmodel: m\nloras: {style: ./a}\n", encoding="utf-8")
    changed = load_job(path, ["loras.style.file=b.safetensors", "loras.other=./c"])
    assert changed.loras["style"] == LoraSection(path=str(tmp_path / "a"), file="b.safetensors")
    assert changed.loras["other"] == LoraSection(path="./c")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"file": "a"}, "no `loras.style.path`"),
        ({"path": "a", "flie": "b"}, "unknown key `loras.style.flie`\nhint: did you mean `loras.style.file`"),
        ({"path": "a", "component": "vae"}, "`loras.style.component` is 'vae'"),
        (7, "`loras.style` is 7"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_told_with_its_key(section: Any, problem: str) -> None:
    with pytest.raises(JobError, match=problem):
        framefleet.plan(JOB | {"loras": {"style": section}})


def test_names_that_no_row_could_give_and_places_without_a_name_are_refused() -> None:
    for name in ("none", "a b", "a+b", "a:b", "", "a.b"):  # which no row could give
        with pytest.raises(JobError, match="cannot be a LoRA's name"):
            loras_of({name: "a.safetensors"})
    assert places(["style=./a=b.safetensors"], "--lora") == {"style": "./a=b.safetensors"}  # of moved ones
    with pytest.raises(JobError, match="not name=place"):
        places(["style"], "--lora")
