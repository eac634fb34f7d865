"""How many rows the next forward takes, by rule or by seconds that the tests make up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.constructor import Constructed
from framefleet.pipeline.model.specs.pipeline_call import source_facts
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import spec_for
from framefleet.pipeline.render.fused import trials
from framefleet.pipeline.render.fused.batching import PATIENCE, Sizes
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.plugins.demo.prepare import MODEL
from tests.configs import FLOW, write_model
from tests.unit.denoising import Denoiser, batcher_of, render, steps


def _climb(sizes: Sizes, tenths: dict[int, float], *, waiting: int) -> list[int]:
    """Try what is asked for until nothing new is; return the sizes tried. tenths: of a second, by size."""
    tried, seconds = [], {size: time / 10 for size, time in tenths.items()}
    sizes.accept(1, seconds=seconds[1])
    while not sizes.is_tried(size := sizes.next(waiting)):
        tried.append(size)
        if sizes.pays(size, seconds=seconds[size]):
            sizes.accept(size, seconds=seconds[size])
        else:
            sizes.refuse(size, is_final=False)
    return tried


PAYS = {1: 1, 2: 1.1, 3: 1.2, 4: 1.3, 6: 1.5, 8: 1.7}


@pytest.mark.parametrize(
    ("sizes", "tenths", "waiting", "tried", "then"),
    [
        (Sizes(8), PAYS, 100, [2, 4, 8], {100: 8}),
        (Sizes(64), {1: 1, 2: 2, 4: 4}, 100, [2, 4], {100: 1}),  # it does not pay, at two attempts
        (Sizes(64), {1: 10, 2: 20}, 100, [2], {100: 1}),  # one is enough where a row takes a second
        # As bf16 on CPUs: two rows gain nothing, four do.
        (Sizes(8), {1: 1, 2: 1.99, 4: 1.6, 8: 3}, 9, [2, 4, 8], {9: 8, 2: 1}),
        # Below a power of two that does not pay, the size before it is tried.
        (Sizes(16), {1: 1, 2: 1.1, 4: 1.3, 6: 1.7, 8: 9, 16: 20}, 99, [2, 4, 8, 16, 6], {99: 6, 7: 6, 4: 4}),
        (Sizes(3, min_gain=0), {1: 1, 2: 10, 3: 100}, 3, [3], {3: 3}),  # no gain is wanted
    ],
)
def test_sizes_grow_while_rows_per_second_grow(
    sizes: Sizes, tenths: dict[int, float], waiting: int, tried: list[int], then: dict[int, int]
) -> None:
    assert _climb(sizes, tenths, waiting=waiting) == tried
    assert {waiting: sizes.next(waiting) for waiting in then} == then


def test_a_size_between_powers_of_two_is_tried_where_the_next_power_does_not_fit() -> None:
    sizes = Sizes(8)
    assert _climb(sizes, PAYS, waiting=7) == [2, 4, 6]
    assert _climb(sizes, PAYS, waiting=3) == [3]
    assert _climb(sizes, PAYS, waiting=8) == [8]


def test_a_size_must_beat_the_best_smaller_one_by_five_percent() -> None:
    sizes = Sizes(4)
    sizes.accept(1, seconds=1.0)
    assert [sizes.pays(2, seconds=seconds) for seconds in (1.92, 1.88)] == [False, True]
    for size, seconds in ((2, 1.0), (3, 3.0)):
        sizes.accept(size, seconds=seconds)
    assert not sizes.pays(4, seconds=2.0)


@pytest.mark.parametrize("max_rows", [1, 2, 5, 7, 100])
def test_max_rows_itself_is_reached_and_neither_it_nor_those_that_wait_are_passed(max_rows: int) -> None:
    sizes = Sizes(max_rows, min_gain=0)
    _climb(sizes, dict.fromkeys(range(1, 101), 1.0), waiting=1000)
    assert sizes.next(1000) == max_rows
    sizes = Sizes(8, min_gain=0)
    for size in range(1, 9):
        sizes.accept(size, seconds=1.0)
    assert [sizes.next(waiting) for waiting in range(1, 10)] == [1, 2, 3, 4, 4, 6, 6, 8, 8]


def test_running_out_of_memory_halves_for_good() -> None:
    sizes = Sizes(8, min_gain=0)
    _climb(sizes, dict.fromkeys(range(1, 9), 1.0), waiting=8)
    sizes.halve(8)
    assert sizes.next(8) == 4
    sizes.halve(3)
    assert sizes.next(8) == 1


@pytest.mark.parametrize(("is_final", "trials"), [(False, [0, 256, 768, 1792]), (True, [0])])
def test_a_size_is_tried_again_after_twice_as_many_forwards_each_time_unless_its_bits_differ(
    is_final: bool, trials: list[int]
) -> None:
    sizes, found = Sizes(2), list[int]()
    for forward in range(2000):
        if sizes.next(2) == 2:
            found.append(forward)
            sizes.refuse(2, is_final=is_final)
        sizes.count_forward()
    assert found == trials


def test_a_size_between_powers_of_two_is_tried_once_it_was_missed_for_longer_than_its_trial_takes() -> None:
    sizes = Sizes(16, trial_cost=(2.0, 0.5))
    for rows in (1, 2, 4, 8):
        sizes.accept(rows, seconds=1.0 + rows / 100)
    assert sizes.next(13) == 8
    taken = [sizes.take(13) for _ in range(200)]
    first = taken.index(12)
    assert set(taken[:first]) == {8}
    assert first == pytest.approx(
        PATIENCE * (2.0 + 0.5 * 12) * 1.01 / 1.08, abs=1.5
    )  # in forwards of one row
    assert sizes.next(13) == 12  # until it is known what it gives
    sizes.accept(12, seconds=1.1)
    assert sizes.next(13) == 12


def _seen(sizes: Sizes, rows: int, *, seconds: float) -> bool:
    """Show what a size gives that is new; return whether it is to be proven."""
    assert sizes.is_new(rows)
    assert sizes.pays(rows, seconds=seconds)
    return sizes.hope_for(rows, seconds=seconds)


def _climbed(*, most: int = 8) -> Sizes:
    """Return sizes of which all seem to pay, and the largest is to be proven."""
    sizes = Sizes(most, trial_cost=(8.0, 1.5))
    sizes.accept(1, seconds=1.0)
    while not _seen(sizes, size := sizes.next(100), seconds=1.0):
        pass
    assert size == most
    return sizes


def test_the_largest_size_that_seems_to_pay_is_proven_first() -> None:
    sizes = Sizes(8)
    sizes.accept(1, seconds=1.0)
    assert not _seen(sizes, sizes.next(100), seconds=1.1)
    assert not _seen(sizes, sizes.next(100), seconds=1.2)
    assert sizes.next(100) == 8
    assert not sizes.pays(8, seconds=2.4), "four rows at once are as fast"
    sizes.refuse(8, is_final=False)
    assert sizes.next(100) == 4
    assert not sizes.is_new(4)
    assert sizes.next(2) == 2, "of fewer rows the largest of these"
    assert sizes.pays(4, seconds=2.4), "it has to beat what is proven, and not what seemed to pay"


def test_a_smaller_size_is_proven_once_no_more_rows_are_there() -> None:
    sizes = _climbed()
    sizes.accept(8, seconds=1.0)
    assert [sizes.take(8), sizes.take(7), sizes.take(3)] == [8, 4, 2]
    assert not sizes.is_new(4)
    sizes = Sizes(16)
    sizes.accept(16, seconds=1.0)  # by what another process found
    assert sizes.next(100) == 16 and not sizes.is_new(4)


def test_after_two_sizes_that_could_not_be_proven_no_other_is_tried() -> None:
    sizes = _climbed(most=16)
    sizes.refuse(16, is_final=True)
    assert sizes.next(100) == 8
    sizes.refuse(8, is_final=True)
    assert sizes.next(100) == 1


def test_what_comes_once_in_a_row_is_tried_late_and_a_denoiser_at_once() -> None:
    rare, often = (Sizes(8, trial_cost=(2.0, 0.5), is_rare=is_rare) for is_rare in (True, False))
    assert (rare.next(2), often.next(2)) == (1, 2)
    taken = [rare.take(2) for _ in range(20)]
    assert taken == [1] * 12 + [2] * 8  # four times the three decodes that a trial takes


class Machine:
    """Its clock; busy: how many times as long everything takes from some forward on."""

    def __init__(self, busy: dict[int, float]) -> None:
        self.now = 0.0
        self._busy = busy
        self._num_forwards = 0

    def work(self, seconds: float) -> None:
        begun = [first for first in self._busy if first <= self._num_forwards]
        self.now += seconds * (self._busy[max(begun)] if begun else 1.0)
        self._num_forwards += 1


class Timed(Denoiser):
    """Of which one row more costs a tenth of the first, or as much as it where rows do not pay."""

    def __init__(self, machine: Machine, *, pays: bool = True) -> None:
        super().__init__()
        self._machine = machine
        self._each = 0.001 if pays else 0.01

    def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
        self._machine.work(0.01 - self._each + self._each * latents.shape[0])
        return super().forward(latents, timestep, table)


def _largest(monkeypatch: pytest.MonkeyPatch, busy: dict[int, float], *, pays: bool = True) -> int:
    """Return the rows of the last forward of some."""
    machine = Machine(busy)
    clock = SimpleNamespace(thread_time=lambda: machine.now, perf_counter=lambda: machine.now)
    monkeypatch.setattr(trials, "time", clock)
    denoiser = Timed(machine, pays=pays)
    batcher = batcher_of(denoiser, mode="fast", max_rows=4, min_gain=1.05)
    for _ in range(4):
        render(batcher, *[lambda: steps(denoiser, 1.0, 1)] * 4)
    return denoiser.rows[-1]


@pytest.mark.parametrize("busy", [{}, *({first: 5.0} for first in range(1, 12))], ids=str)
def test_a_machine_that_is_or_becomes_busy_joins_as_many_rows_as_pay(
    monkeypatch: pytest.MonkeyPatch, busy: dict[int, float]
) -> None:
    assert _largest(monkeypatch, busy) == 4
    assert _largest(monkeypatch, busy, pays=False) == 1


@pytest.mark.parametrize("first", range(2, 12))
def test_a_moment_of_other_work_turns_no_size_down(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    assert _largest(monkeypatch, {first: 5.0, first + 2: 1.0}) == 4


KL = {"_class_name": "AutoencoderKL", "block_out_channels": [1, 2, 3, 4]}
WAN_VAE = {"_class_name": "AutoencoderKLWan", "temperal_downsample": [False, True, True]}


def model(folder: Path, class_name: str, vae: dict[str, Any], **transformer: Any) -> PipelineSpec:
    configs = {"vae": vae, "transformer": transformer, "scheduler": FLOW}
    return inspect_model(write_model(folder, f"{class_name}Pipeline", configs))


class Early:
    """A pipeline that rounds, refuses and divides, as diffusers' do."""

    def __init__(self, levels: list[int], patch: int = 2, is_cut: bool = False) -> None:
        self.factor = 2 ** (len(levels) - 1) if getattr(self, "levels", None) else 3
        if is_cut:
            self.multiple = 5
        else:
            self.multiple = self.factor * patch
        self.unknown = open("nowhere")  # noqa: SIM115  # never evaluated

    @property
    def steps(self) -> int:
        return self.factor * 2

    def check_inputs(self, height: int, num_frames: int, max_sequence_length: int | None) -> None:
        if height % self.multiple != 0 and num_frames % self.steps != 1:
            raise ValueError
        if max_sequence_length is not None and max_sequence_length > 256:
            raise ValueError

    def __call__(self, height: int, width: int) -> int:
        width = width // 7 * 7
        latent_width = width // 2
        height = height // self.factor
        return latent_width + height % 11


def test_refusals_roundings_and_divisions_are_rules_until_a_size_is_one_of_latents() -> None:
    rules = source_facts(Early, Constructed(Early, {"levels": [1, 2, 3]}))
    assert rules.side_divisor == 8 * 7
    assert rules.frame_divisor == 8
    assert rules.max_text == 256
    cut = Constructed(Early, {"levels": [1], "is_cut": True})
    assert source_facts(Early, cut).side_divisor == 5 * 7


class Grown:
    """A network whose source is as harmless as diffusers' own."""

    def __init__(self, heads: Any, width: Any, is_any: bool = False) -> None:
        self.inner = heads * width * width
        self.levels = 2 ** (width * width * width)
        self.shown = heads % width
        self.doubled = [heads, heads] * 2


@pytest.mark.parametrize("heads", [[1] * 16, "%999999999d", "a" * 64, 3])
def test_what_a_config_makes_grow_is_not_computed(heads: Any) -> None:
    """It would take hours, and more memory than there is."""
    found = Constructed(Grown, {"heads": heads, "width": 65_536}).attributes
    assert found.get("inner", 0) in (0, 3 * 2**32)
    assert "levels" not in found
    assert ("shown" in found) == (heads == 3)
    assert found["doubled"] == [heads] * 4


def test_a_class_without_a_constructor_of_its_own_sets_nothing() -> None:
    assert Constructed(type("Plain", (), {"__module__": __name__}), {"a": 1}).attributes == {"a": 1}


@pytest.mark.parametrize(
    ("class_name", "vae", "transformer", "multiple"),
    [
        ("ZImage", KL, {"all_patch_size": [2]}, 16),
        ("Flux", KL, {"patch_size": 1}, 16),
        ("QwenImage", {"_class_name": "AutoencoderKLQwenImage"}, {"patch_size": 2}, 16),
        ("GlmImage", KL, {"patch_size": 2}, 32),
        ("SkyReelsV2", WAN_VAE, {"patch_size": [1, 2, 2]}, 16),
        ("Wan", WAN_VAE | {"scale_factor_spatial": 16}, {"patch_size": [1, 2, 2]}, 32),
        ("MotifVideo", WAN_VAE, {"patch_size": 2}, 16),
        ("Lumina2", KL, {"patch_size": 2}, 16),
    ],
)
def test_sizes_are_multiples_of_what_the_class_and_its_configs_come_to(
    tmp_path: Path, class_name: str, vae: dict[str, Any], transformer: dict[str, Any], multiple: int
) -> None:
    assert model(tmp_path, class_name, vae, **transformer).size_multiple == multiple


def test_text_is_no_longer_than_check_inputs_takes(tmp_path: Path) -> None:
    assert model(tmp_path / "flux", "Flux", KL).max_text == 512
    assert model(tmp_path / "qwen", "QwenImage", KL).max_text == 1024
    assert model(tmp_path / "wan", "Wan", WAN_VAE).max_text is None


def test_a_sibling_has_the_factors_of_the_autoencoder() -> None:
    spec = inspect_model(MODEL)
    called = spec_for(BUILT_IN["video_to_video"], spec)
    assert called.class_name == "WanVideoToVideoPipeline"
    assert (called.size_multiple, called.frame_step) == (spec.size_multiple, spec.frame_step) == (16, 2)


def test_a_pipeline_that_takes_another_factor_than_its_autoencoder_has_is_refused(tmp_path: Path) -> None:
    vae = {"_class_name": "AutoencoderKLWan", "temperal_downsample": [True], "scale_factor_spatial": 8}
    with pytest.raises(ModelError, match="computes vae_scale_factor_spatial 2, but its autoencoder has 8"):
        model(tmp_path, "WanVideoToVideo", vae, patch_size=[1, 2, 2])


@pytest.mark.parametrize(
    "values",
    [[10**9] * 16, ["a" * 64] * 16, [[2] * 16] * 16, [65536] * 16, {"a": 1}, "levels", 10**30],
    ids=lambda value: f"{value!r:.20}",
)
def test_a_config_of_any_values_is_read(tmp_path: Path, values: Any) -> None:
    vae = {"_class_name": "AutoencoderKLWan", "temperal_downsample": values}
    assert model(tmp_path, "WanVideoToVideo", vae | {"scale_factor_spatial": None}).size_multiple >= 1


def test_no_size_goes_beyond_a_table_of_positions(tmp_path: Path) -> None:
    table = {"_class_name": "SD3Transformer2DModel", "patch_size": 2, "pos_embed_max_size": 64}
    spec = model(tmp_path, "StableDiffusion3", KL, **table)
    assert not list(limits(spec, {"height": 1024, "width": 1024}))
    ((name, refused),) = limits(spec, {"height": 1024, "width": 1040})
    assert (name, refused.reason) == ("width", "the model has positions for 1024 pixels")
    assert not list(limits(spec, {}))
