"""What a plan says of a job: where values come from, what fits, what is unusual, and what all rows take."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import Request
from framefleet.api.jobs import Job, load_job, open_models
from framefleet.cluster.fleet.settings import FleetSettings, num_gpus_here
from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.errors import JobError, ModelError, shape_text
from framefleet.pipeline.model.device_placement import Placement
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.tables.column_checks import as_argument
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.plugins.drafts.drafts import draft_job
from framefleet.plugins.forecast.forecast import COMMAND_S, RAY, num_workers_of, starting_s
from framefleet.plugins.forecast.plan import Argument, all_arguments, read_memory
from framefleet.plugins.forecast.prediction import ENDING_S, Kinds, Prediction, Took, Tried, calls_of, predict
from framefleet.plugins.memory.footprint import GB, Footprint, Way
from framefleet.plugins.memory.memory import estimate
from framefleet.plugins.memory.room import gpus_here, room_of
from tests.tiny import tiny
from tests.unit.test_footprint import FOOTPRINT, count

WAN = next(preset for preset in PRESETS if preset.name == "wan2.1-t2v-14b")


@pytest.fixture(scope="module")
def wan() -> PipelineSpec:
    return replace(inspect_model(tiny("wan")), preset=WAN)


def job(**more: Any) -> Job:
    return load_job({"table": "t.csv", "output": "out", "model": "m", **more})


def arguments(spec: PipelineSpec, names: list[str], **more: Any) -> dict[str, Argument]:
    asked = job(**more)
    schema = pa.schema([(name, pa.string()) for name in names])
    rows = plan_rows(schema, spec, columns=asked.columns, defaults=asked.defaults, overrides=asked.overrides)
    return {argument.name: argument for argument in all_arguments(asked, rows)}


def test_every_value_says_where_it_comes_from(wan: PipelineSpec) -> None:
    defaults = {"guidance_scale": 3.0, "seed": 7}
    found = arguments(wan, ["caption", "height"], columns={"prompt": "caption"}, defaults=defaults)
    assert (found["prompt"].column, found["prompt"].value, found["prompt"].origin) == ("caption", None, "")
    assert (found["height"].column, found["height"].value) == ("height", 480)
    assert found["height"].origin == "preset wan2.1-t2v-14b"
    assert (found["guidance_scale"].value, found["guidance_scale"].origin) == (3.0, "job")
    assert (found["seed"].value, found["seed"].origin) == (7, "job")
    assert found["scheduler"].origin == "model"
    assert found["max_sequence_length"].origin == "pipeline's signature"
    drafts = draft_job(job(draft={"num_inference_steps": 4, "keep": {"best": 1, "by": "sharpness"}}))
    found = arguments(wan, ["prompt"], overrides=drafts.overrides)
    assert (found["num_inference_steps"].value, found["num_inference_steps"].origin) == (4, "job")
    assert found["seed"].origin == "derived from the row"


@pytest.mark.parametrize(
    ("column", "line"),
    [
        ("steps", "columns: {num_inference_steps: steps}"),
        ("Steps taken", 'columns: {num_inference_steps: "Steps taken"}'),
    ],
)
def test_a_column_that_looks_like_an_argument_is_told_with_the_line_to_write(column: str, line: str) -> None:
    assert f"`{line}`" in as_argument(column, "num_inference_steps")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((81, 480, 832), None),
        ((81, 720, 1280), None),
        ((1, 480, 832), None),  # a picture
        ((81, 8192, 8192), "81 x 8192 x 8192 is 168 times the pixels in each of the model's own size"),
        ((81, 64, 64), "81 x 64 x 64 is 1/97.5 of the pixels in each"),
        ((801, 480, 832), "801 x 480 x 832 is 9.89 times the frames"),
    ],
)
def test_a_size_far_from_native_is_told(
    size: tuple[int, int, int], said: str | None, wan: PipelineSpec
) -> None:
    found = wan.far_from_native(dict(zip(("num_frames", "height", "width"), size, strict=True)))
    assert found is None if said is None else found is not None and found.startswith(said)


def test_sizes_are_written_frames_first() -> None:
    assert shape_text(9, 64, 96) == "9 x 64 x 96"
    assert shape_text(None, 64, 96) == "64 x 96"
    assert shape_text(9, None, 96) == "9 frames, 96 pixels wide"
    assert shape_text(None, None, None) == ""


@pytest.mark.parametrize(
    ("has_gb", "said"),
    [
        (None, "there is no GPU here to compare with, so use e.g. --gpu-memory 24GB"),
        (41.0, "of 41.0 GB of the GPU"),
        (36.0, "the fastest that fits is `model: {vae_tiling: true}` (or `model: {offload: model}`)"),
        (12.0, "the fastest that fits is `model: {offload: group}`"),
        (7.0, "the fastest that fits is `model: {offload: group, vae_tiling: true}`"),
        (5.0, "it does not fit; use a smaller size or model"),
    ],
)
def test_a_card_is_told_with_the_fewest_options_that_fit(has_gb: float | None, said: str) -> None:
    assert said in estimate(count, Way(), place=("the GPU", has_gb)).line


@pytest.mark.parametrize(
    ("measured_gb", "said"),
    [
        (None, "of 40.0 GB of the GPU: it does not fit; the fastest that fits is"),
        (38.0, "measured 39.0 GB, of 40.0 GB of the GPU"),
        (49.0, "measured 50.0 GB, of 40.0 GB of the GPU: it does not fit; the fastest that fits is"),
    ],
)
def test_what_was_measured_decides_whether_a_row_fits(measured_gb: float | None, said: str) -> None:
    measured = None if measured_gb is None else round(measured_gb * GB)
    memory = estimate(count, Way(), place=("the GPU", 40.0), measured_bytes=measured)
    assert said in memory.line
    assert memory.fits == (measured_gb == 38.0)
    if measured_gb == 49.0:  # with other options 9 GB more than counted, too
        assert memory.ways[0] == Way(offload="model")


def test_bf16_is_offered_where_it_saves_memory() -> None:
    def halved(way: Way) -> Footprint:
        if not way.dtype:
            return count(way)
        networks = {}
        for name, one in count(way).networks.items():
            peaks = {call: num_bytes // 2 for call, num_bytes in one.peaks.items()}
            networks[name] = replace(one, weights=one.weights // 2, peaks=peaks)
        return Footprint(networks=networks)

    memory = estimate(halved, Way(), place=("the GPU", 40.0), is_half=False)
    assert "`model: {dtype: bf16}`" in memory.line


def test_a_row_that_does_not_fit_on_one_gpu_fits_on_several() -> None:
    memory = estimate(count, Way(), place=("the GPU", 31.0))
    placed = "fleet.gpus_per_worker=2 and model.placement=components"
    assert memory.placement == placed and placed in memory.line
    for kind, num in (("components", 2), ("layers", 2), ("layers", 4)):
        own = estimate(count, Way(), place=("the GPU", 31.0), placement=Placement(type=kind), num_gpus=num)
        assert own.fits and own.peak_gb < memory.peak_gb
        assert f"on the fullest of {num} GPUs" in own.line


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize("has_gb", [36.0, 5.0])
def test_on_a_cpu_nothing_is_offered_that_needs_a_gpu(has_gb: float, is_counted: bool) -> None:
    def footprint(way: Way) -> Footprint:
        if is_counted:
            return count(way)
        networks = {name: replace(one, peaks={}) for name, one in count(way).networks.items()}
        return Footprint(networks=networks, missing="it looks at values")

    memory = estimate(footprint, Way(), place=("this machine", has_gb), cpu_workers=1, is_half=False)
    line = memory.line
    assert not {"offload", "placement", "GPU", "workers"} & {*re.findall(r"\w+", line)}
    assert ("vae_tiling" in line) == (has_gb == 36.0 and is_counted)


def test_workers_on_a_cpu_share_its_memory() -> None:
    _, all_gb = room_of(None, cpu_workers=1, share=1)
    place, has_gb = room_of(None, cpu_workers=4, share=1)
    assert all_gb and has_gb == all_gb / 4 and place == "this machine for each of 4 workers"
    line = estimate(count, Way(), place=(place, 30.0), cpu_workers=4).line
    assert line.endswith("use a smaller size or model; it does with fewer workers: fleet.workers=2")


def test_a_container_has_memory_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("framefleet.plugins.memory.room._CONTAINER_LIMITS", (tmp_path / "none", limit))
    for text, has_gb in (("2000000000\n", 2.0), ("max\n", pytest.approx(all_gb()))):
        limit.write_text(text)
        assert room_of(None, cpu_workers=1, share=1)[1] == has_gb


def all_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB


def test_a_placement_that_follows_from_the_fleet_names_the_fleet() -> None:
    model = {"path": str(tiny("wan")), "offload": "model"}
    placed = "model.placement: components is set, and model.offload is too"
    with pytest.raises(ModelError, match=f"^fleet.gpus_per_worker is 2, so {placed}"):
        open_models(job(model=model, fleet={"gpus_per_worker": 2}))
    with pytest.raises(ModelError, match=f"^{placed}"):
        open_models(job(model={**model, "placement": "components"}))


@pytest.mark.parametrize(
    ("placement", "gpus", "message"),
    [
        ("components", "auto", "components needs at least 2 GPUs, and a worker or process has 1"),
        ({"type": "components", "devices": 4}, 2, "components needs 4 GPUs, and a worker or process has 2"),
        ({"type": "ulysses+components", "ranks": 3}, 2, "needs at least 3 GPUs"),
        ({"type": "ulysses+components", "devices": 2, "ranks": 3}, 3, "ranks is 3, but devices is 2"),
        ({"type": "ulysses", "devices": 2}, 0, None),  # processes on a CPU
        ({"type": "components", "devices": 2}, 4, None),
    ],
)
def test_a_placement_on_more_gpus_than_there_are(placement: Any, gpus: Any, message: str | None) -> None:
    model = {"path": str(tiny("wan")), "placement": placement}
    asked = job(model=model, fleet={"address": "10.0.0.1:6379", "gpus_per_worker": gpus})
    if message is None:
        assert open_models(asked)
    else:
        with pytest.raises(ModelError, match=re.escape(message)):
            open_models(asked)


@pytest.mark.parametrize("option", [{"offload": "model"}, {"matmul": "triton"}])
def test_options_that_need_a_gpu_are_refused_where_workers_get_none(option: dict[str, str]) -> None:
    asked = {"model": {"path": str(tiny("wan")), **option}}
    for gpus, is_refused in ((0, True), (1, False)):
        fleet = {"address": "10.0.0.1:6379", "gpus_per_worker": gpus}
        with pytest.raises(ModelError, match="needs a GPU") if is_refused else nullcontext():
            open_models(job(**asked, fleet=fleet))


@pytest.mark.parametrize(
    ("has_gb", "advice"),
    [
        (80.0, "weights 31.0 GB; what the row needs was not counted: it takes more than 90 s"),
        (22.0, "it does not fit; the weights do with `model: {offload: model}`"),
        (10.0, "it does not fit; the weights do with `model: {offload: group}`"),
        (2.0, "it does not fit; try `model: {offload: group}`, or a smaller size or model"),
    ],
)
def test_weights_that_exceed_a_card_are_offloaded_where_only_they_count(has_gb: float, advice: str) -> None:
    calls: list[Way] = []

    def stored(way: Way) -> Footprint:
        calls.append(way)
        networks = {name: replace(one, peaks={}) for name, one in FOOTPRINT.networks.items()}
        return Footprint(networks=networks, missing="it takes more than 90 s")

    assert advice in estimate(stored, Way(), place=("the GPU", has_gb)).line
    assert {*calls} == {Way()}  # no other call that would take 90 s


def test_the_largest_row_is_found_also_where_the_pipeline_decides_a_side() -> None:
    rows = [
        {"height": 512, "width": 512},
        {"height": 640},  # times the 1,024 that a missing side counts as
        {"height": 512, "width": 512, "segment_frame_length": 2},
    ]
    examples = {str(index): Request(arguments=row) for index, row in enumerate(rows)}
    survey = Survey(examples=examples)
    assert survey.largest() == examples["1"]
    examples["2"] = Request(arguments=rows[2] | {"segment_frame_length": 77})
    assert survey.largest() == examples["2"]


def test_a_worker_with_a_share_of_a_card_has_that_share_of_its_memory() -> None:
    name, has_gb = room_of(10 * GB, cpu_workers=None, share=0.5)
    assert has_gb == 5.0
    memory = estimate(count, Way(), place=(name, has_gb))
    assert "of 5.0 GB of a worker's share (0.5) of the GPU" in memory.line


@pytest.mark.parametrize(
    ("visible", "gb"),
    [
        (None, [24, 48, 80]),
        ("2,0", [24, 80]),
        ("GPU-bb", [48]),
        ("", []),
        ("-1", []),
        ("MIG-cc/1/0", [24, 48, 80]),  # a part of a GPU, which is not listed
    ],
)
def test_only_gpus_that_the_process_may_use_are_counted(
    visible: str | None, gb: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    lines = [f"{index}, GPU-{uuid}-1, {gb * 1024}" for index, uuid, gb in ((0, "aa", 24), (1, "bb", 48))]
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in [*lines, "2, GPU-cc-1, 81920"]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    manager = "ray._private.accelerators.nvidia_gpu.NvidiaGPUAcceleratorManager"
    monkeypatch.setattr(f"{manager}.get_current_node_num_accelerators", lambda: 3)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list(gpus_here.__wrapped__()) == [one * 2**30 for one in gb]
    if visible != "MIG-cc/1/0":
        assert num_gpus_here() == len(gb)


def test_a_card_that_is_no_size_is_refused() -> None:
    assert read_memory("24GB") == read_memory("24") == 24_000_000_000
    with pytest.raises(JobError, match="memory is 'large'"):
        read_memory("large")


def request(steps: int, guidance: float = 1.0, prompt: str = "a") -> Request:
    return Request(arguments={"prompt": prompt, "num_inference_steps": steps, "guidance_scale": guidance})


def test_guided_steps_count_twice() -> None:
    assert [calls_of(request(10)), calls_of(request(10, 5.0)), calls_of(Request())] == [10, 20, 1]


def kinds_of(rows: list[tuple[str, Request]], **more: Any) -> Kinds:
    kinds = Kinds(**more)
    for shape, row in rows:
        kinds.add(shape, row)
    return kinds


def test_a_sample_has_the_proportions_of_the_table() -> None:
    rows = [("s", request(4)) for _ in range(30)] + [("s", request(8)) for _ in range(10)]
    kinds = kinds_of(rows)
    (kind,) = kinds.most_frequent(9)
    calls = [calls_of(row) for row in islice(kind.sample(), 16)]
    assert (calls.count(4), calls.count(8)) == (12, 4)
    assert (kind.num_rows, kind.num_calls, kinds.num_rows, kinds.num_texts) == (40, 200, 40, 1)


def test_each_row_of_a_recipe_that_is_not_declared_encodes_its_text() -> None:
    rows = [("s", request(4))] * 7
    assert [kinds_of(rows, remembers_texts=remembers).num_texts for remembers in (True, False)] == [1, 7]


def test_kinds_that_take_most_come_first() -> None:
    rows = [("small", request(4))] * 5 + [("large", request(50))] * 3
    assert [kind.name for kind in kinds_of(rows).most_frequent(2)] == ["large", "small"]


def second(seconds: float) -> Took:
    return Took(wall_s=seconds, cpu_s=seconds)


SECONDS: dict[str, Any] = {"render": second(3.0), "write": second(0.5), "once": second(10.0)}
SIZES: dict[str, Any] = {"num_bytes": 1000.0, "mean_batch": 8.0, "num_rendered": 48}
MEASURED = Tried(name="s", num_rows=100, text=second(1.0), **SECONDS, **SIZES)


def predicted(*kinds: Tried, **more: Any) -> Prediction:
    table = {"num_rows": 100, "num_texts": 5, "price": 3600.0}
    machine = {"load": second(20.0), "num_workers": 2, "num_cores": 16}
    return predict(kinds, **{**table, **machine, **more})


def test_workers_share_the_rows_and_each_begins_for_itself() -> None:
    found = predicted(MEASURED)
    assert found.elapsed_s == ENDING_S + 20 + (300 + 5 * 2 + 10 * 2) / 2
    assert found.worker_s == found.cost == (20 + 165) * 2
    assert found.cpu_s == 300 + 10 + 20 + 50 + 40
    assert found.num_bytes == 100 * 1000
    assert predicted(MEASURED, num_cores=2).elapsed_s == ENDING_S + 20 + (330 + 50) / 2  # writing counts too
    others = predicted(MEASURED, num_rows=200)  # of shapes that were not rendered
    assert (others.num_guessed, others.num_bytes) == (100, 200 * 1000)
    assert predicted(replace(MEASURED, num_rows=1), num_rows=1, num_workers=8).num_workers == 1


def test_libraries_are_imported_beside_ray_where_workers_are_forks() -> None:
    imports = Took(wall_s=8.0, cpu_s=7.0)
    assert starting_s(imports, is_forked=False, num_cores=16) == COMMAND_S + RAY.wall_s + 8
    assert starting_s(imports, is_forked=True, num_cores=16) == COMMAND_S + 8
    assert starting_s(imports, is_forked=True, num_cores=1) == COMMAND_S + RAY.cpu_s + 7


def test_a_cluster_does_not_tell_how_many_workers_it_has() -> None:
    with pytest.raises(JobError, match="number of workers depends on the cluster at"):
        num_workers_of(job(fleet={"address": "auto"}))
    assert num_workers_of(job(fleet={"address": "auto", "workers": 8})) == 8
    assert num_workers_of(job(fleet={"gpus_per_worker": 0, "cpus_per_worker": 10_000})) == 1
    fleets = [FleetSettings.model_validate({"gpus_per_worker": gpus}) for gpus in ("auto", 0, 0.5)]
    assert [fleet.paid_gpus for fleet in fleets] == [1, 1, 0.5]
