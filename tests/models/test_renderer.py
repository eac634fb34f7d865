"""The renderer as a notebook uses it: requests in, clips and failures out, as they finish."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from framefleet import Audit, Batching, Clip, Failure, Model, Renderer, Request, load_model
from framefleet.pipeline import memory
from framefleet.pipeline.errors import ModelError, OutOfMemory, RenderError, TableError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.outputs.clips import Outcome
from framefleet.pipeline.outputs.frames import frames as frames_module, result
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.recipes.recipe import Recipe, generate
from framefleet.pipeline.render.fused.batching import Mode
from framefleet.pipeline.render.row_queue import with_frames
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited

WAN = SMALLEST["wan"] | {"prompt": "a red ball"}
GROWING = Batching(min_gain=0)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny("wan"), dtype="fp32")


def _request(seed: int = 0, *, recipe: str = "generate", **arguments: Any) -> Request:
    return Request(arguments=WAN | arguments, seed=seed, recipe=recipe)


def _renderer(model: Model, **recipes: Callable[..., Any]) -> Renderer:
    """A renderer of any sizes, with recipes of the test's own."""
    found = {name: Recipe(name=name, function=function, digest="") for name, function in recipes.items()}
    return unaudited(model, recipes=found)


def _plain(model: Model, request: Request) -> np.ndarray[Any, Any]:
    output = model.pipe(**request.arguments, generator=request.generator(), output_type="np")
    return np.asarray(output.frames[0] * 255).round().astype(np.uint8)


def test_clips_come_as_they_finish_with_the_frames_of_plain_calls(model: Model) -> None:
    slow, quick = _request(1, num_inference_steps=8), _request(2, num_inference_steps=2)
    clips = list(Renderer(model, Batching(min_gain=0)).render([slow, quick]))
    assert [clip.request.seed for clip in clips] == [2, 1]
    for clip, request in zip(clips, (quick, slow), strict=True):
        assert isinstance(clip, Clip)
        assert np.array_equal(clip.frames, _plain(model, request))
        assert clip.frames_sha256 == frames_sha256(clip.frames)
        assert set(clip.seconds) == {"encode_s", "denoise_s", "decode_s", "compute_s"}
        assert all(seconds > 0 for seconds in clip.seconds.values())
        assert clip.peak_memory_bytes > 0


def test_a_clip_is_out_before_its_pixels_are_made(model: Model) -> None:
    renderer, may_go_on = Renderer(model, audit=Audit(every=0)), threading.Event()
    blocked = frames_module._thread(os.getpid()).submit(may_go_on.wait, 60)
    try:
        renderer.submit(_request(1), "1" * 32)
        while not (clips := renderer.step()):
            pass
        assert not blocked.done()
    finally:
        may_go_on.set()
    assert isinstance(clips[0], Clip)
    assert np.array_equal(clips[0].frames, _plain(model, _request(1)))


def test_a_row_whose_frames_cannot_be_kept_fails_and_the_others_finish(model: Model) -> None:
    def broken(name: str, decode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        (frames,) = decode(*args, **kwargs)
        return (frames * (float("nan") if frames.shape[-1] > 16 else 1),)

    with intercept({"vae": model.pipe.vae}, broken, method="decode"):
        outcomes = list(Renderer(model).render([_request(0), _request(1, width=32)]))
    clip, failure = sorted(outcomes, key=lambda outcome: outcome.request.seed)
    assert isinstance(clip, Clip) and isinstance(failure, Failure)
    assert isinstance(failure.error, RenderError) and "frames contain NaN" in failure.traceback


def test_a_clip_says_how_long_the_model_had_nothing_to_do(model: Model) -> None:
    def sleepy(pipe: Any, request: Request) -> Any:
        time.sleep(0.2)
        return generate(pipe, request)

    (clip,) = _renderer(model, sleepy=sleepy).render([_request(0, recipe="sleepy")])
    assert isinstance(clip, Clip)
    assert clip.idle["pipeline"] > 0.2


@pytest.mark.parametrize("every", [0, 2])
def test_shares_of_rows_add_up_to_what_the_model_was_busy(model: Model, every: int) -> None:
    sizes = ({"num_inference_steps": 2}, {"num_inference_steps": 6}, {"width": 32}, {"seed": 7})
    requests = [_request(**{"seed": seed} | more) for seed, more in enumerate(sizes)]
    renderer = Renderer(model, GROWING, audit=Audit(every=every))
    clips = list(renderer.render([*requests, requests[0]]))  # two of one row_id
    assert all(isinstance(clip, Clip) for clip in clips)
    busy_s = renderer.clock.busy_s
    shares = [clip.seconds["compute_s"] for clip in clips if isinstance(clip, Clip)]
    assert sum(shares) == pytest.approx(busy_s, rel=0.01)
    assert sum(clip.seconds["denoise_s"] for clip in clips if isinstance(clip, Clip)) > busy_s
    assert min(shares) > 0


def test_a_row_that_began_again_is_charged_for_all_of_it(model: Model) -> None:
    renderer = unaudited(model)
    renderer.submit(_request(0), "0" * 32)
    renderer.step(), renderer.step()
    renderer._begin_again()
    while not (clips := renderer.step()):
        pass
    assert isinstance(clips[0], Clip)
    assert clips[0].seconds["compute_s"] == pytest.approx(renderer.clock.busy_s, rel=0.01)


def test_an_endless_source_is_read_only_as_there_is_room(model: Model) -> None:
    taken = []

    def endless() -> Iterator[Request]:
        while True:
            taken.append(True)
            yield _request(len(taken))

    clips = Renderer(model, Batching(max_rows=2)).render(endless())
    first = [next(clips) for _ in range(3)]
    assert len({clip.row_id for clip in first}) == 3
    assert len(taken) <= 3 + 2 * 2, "those that ended, and twice the rows of a forward"
    clips.close()  # type: ignore[attr-defined]


def test_a_recipe_that_raises_gives_a_failure_and_the_others_finish(model: Model) -> None:
    def broken(pipe: Any, request: Request) -> Any:
        frames = generate(pipe, request)
        if request.seed == 1:
            raise KeyError("my own mistake")
        return frames

    rows = [_request(seed, recipe="broken") for seed in range(3)]
    outcomes = {outcome.request.seed: outcome for outcome in _renderer(model, broken=broken).render(rows)}
    failure = outcomes[1]
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, KeyError)
    assert "my own mistake" in failure.traceback and "in broken" in failure.traceback
    assert failure.error.__traceback__ is None  # it would keep the row's tensors
    assert isinstance(outcomes[0], Clip) and isinstance(outcomes[2], Clip)


def test_a_request_that_the_model_cannot_render_is_refused_with_the_fix(model: Model) -> None:
    with pytest.raises(TableError, match=r"request 1: num_frames is 8") as caught:
        list(Renderer(model).render([_request(), _request(num_frames=8)]))
    assert "5 or 9" in caught.value.fix


@pytest.mark.parametrize("where", ["transformer", "vae"])
def test_a_row_that_does_not_fit_alone_fails_as_out_of_memory(model: Model, where: str) -> None:
    def full(name: str, original: Callable[..., Any], tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if (tensor.shape[-1] if tensor.dim() == 5 else 0) > 2:  # wider than 16 pixels
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return original(tensor, *args, **kwargs)

    def by_name(name: str, original: Callable[..., Any], **kwargs: Any) -> Any:
        return full(name, original, kwargs.pop("hidden_states"), **kwargs)

    around, method = (by_name, "forward") if where == "transformer" else (full, "decode")
    with intercept({where: model.pipe.components[where]}, around, method=method):
        rows = [_request(0), _request(1, width=32), _request(2)]
        outcomes = {outcome.request.seed: outcome for outcome in unaudited(model).render(rows)}
    assert isinstance(outcomes[1], Failure)
    assert isinstance(outcomes[1].error, OutOfMemory)
    assert "tried to allocate 20 GiB" in str(outcomes[1].error)
    assert isinstance(outcomes[0], Clip) and isinstance(outcomes[2], Clip)


def test_memory_that_runs_out_beside_others_is_tried_again_alone(model: Model) -> None:
    renderer = unaudited(model)

    def full(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if len(renderer._rows.under_way) > 1:
            raise torch.OutOfMemoryError("others are in the way")
        return original(*args, **kwargs)

    with intercept({"vae": model.pipe.vae}, full, method="decode"):
        clips = list(renderer.render([_request(seed) for seed in range(3)]))
    assert sorted(clip.request.seed for clip in clips) == [0, 1, 2]
    assert all(isinstance(clip, Clip) for clip in clips)


def _counted(model: Model, renderer: Renderer, requests: list[Request]) -> tuple[list[Outcome], int]:
    """Render them; return what becomes of them and how many row-forwards that took."""
    rows: list[int] = []

    def count(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        rows.append(kwargs["hidden_states"].shape[0])
        return original(*args, **kwargs)

    with intercept({"transformer": model.pipe.transformer}, count):
        return list(renderer.render(requests)), sum(rows)


@pytest.mark.parametrize("where", ["decode", "frames"])
def test_a_row_that_lacks_memory_beside_others_waits_for_them_and_denoises_no_step_again(
    model: Model, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batching, requests = Batching(min_gain=0, mode="fast"), [_request(seed) for seed in range(12)]
    _, needed = _counted(model, Renderer(model, batching, audit=Audit(every=0)), requests)
    renderer = Renderer(model, batching, audit=Audit(every=0))
    refused: list[int] = []

    def full(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        num_at_work = sum(not task.is_waiting for task in renderer._batcher.tasks.values())
        if num_at_work > 2:
            refused.append(num_at_work)
            raise torch.OutOfMemoryError("others are in the way")
        return original(*args, **kwargs)

    monkeypatch.setattr(result, "to_rendered", partial(full, "", result.to_rendered))
    if where == "decode":
        monkeypatch.undo()
    with intercept({"vae": model.pipe.vae} if where == "decode" else {}, full, method="decode"):
        outcomes, taken = _counted(model, renderer, requests)
    assert refused
    assert all(isinstance(outcome, Clip) for outcome in outcomes)
    assert taken <= needed * 1.2, "some sizes are tried anew"
    assert max(renderer._rows._limits.values()) < renderer.capacity


def test_a_row_that_lacks_memory_at_its_end_goes_on_alone_from_its_journal(model: Model) -> None:
    renderer, refused = unaudited(model), []

    def full(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if len(renderer._rows.under_way) > 1:
            refused.append(name)
            raise torch.OutOfMemoryError("others are in the way")
        return original(*args, **kwargs)

    requests = [_request(seed, num_inference_steps=6) for seed in range(4)]
    _, needed = _counted(model, unaudited(model), requests)
    with intercept({"vae": model.pipe.vae}, full, method="decode"):
        outcomes, taken = _counted(model, renderer, requests)
    assert refused
    for outcome in outcomes:
        assert isinstance(outcome, Clip)
        assert np.array_equal(outcome.frames, _plain(model, outcome.request))
    assert taken <= needed + len(requests), "one forward of each is made again, and compared"


def test_what_fits_nowhere_says_how_far_it_came(model: Model) -> None:
    def full(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    with intercept({"vae": model.pipe.vae}, full, method="decode"):
        (failure,) = unaudited(model).render([_request(3)])
    assert isinstance(failure, Failure) and failure.half_done
    renderer = unaudited(model)
    renderer.submit(_request(3), failure.row_id, failure.half_done.checkpoint)
    ended: list[Outcome] = []
    while renderer.num_active:
        ended += renderer.step()
    assert isinstance(ended[0], Clip)
    assert np.array_equal(ended[0].frames, _plain(model, _request(3)))


def test_a_call_that_torch_made_with_other_kernels_for_want_of_memory_is_made_again(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, called = [0], []
    monkeypatch.setattr(memory, "_num_ooms", lambda: refused[0])

    def other_kernels(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called.append(kwargs["hidden_states"].shape[0])
        output = original(*args, **kwargs)
        if len(called) == 3 or called[-1] > 1:
            refused[0] += 1
            return (output[0] + 1,)
        return output

    renderer = unaudited(model)
    with intercept({"transformer": model.pipe.transformer}, other_kernels):
        clips = list(renderer.render([_request(seed) for seed in range(4)]))
    assert all(np.array_equal(clip.frames, _plain(model, clip.request)) for clip in clips)  # type: ignore[union-attr]
    assert refused[0] >= 2, "for one row and for several"
    assert {clip.batch_size for clip in clips} == {1.0}  # type: ignore[union-attr]


@pytest.mark.parametrize("max_rows", [1, 4])
def test_so_is_the_decode_of_a_row_that_runs_alone_and_a_plain_call(
    max_rows: int, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []
    monkeypatch.setattr(memory, "_num_ooms", lambda: min(1, len(called)))

    def other_kernels(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called.append(1)
        output = original(*args, **kwargs)
        return (output[0] + 1,) if len(called) == 1 else output

    expected = _plain(model, _request(3))
    renderer = Renderer(model, Batching(max_rows=max_rows), audit=Audit(every=0))
    with intercept({"vae": model.pipe.vae}, other_kernels, method="decode"):
        plain = with_frames(renderer.render_plainly(_request(3), "0"))
        assert len(called) == 2
        called.clear()
        (alone,) = renderer.render([_request(3)])
        assert len(called) == 2
    assert np.array_equal(plain.frames, expected)  # type: ignore[union-attr]
    assert np.array_equal(alone.frames, expected)  # type: ignore[union-attr]


def test_out_of_memory_above_three_rows_leaves_every_clip_as_it_is(model: Model) -> None:
    def full(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs["hidden_states"].shape[0] > 3:
            raise torch.OutOfMemoryError("more than three rows")
        return original(*args, **kwargs)

    with intercept({"transformer": model.pipe.transformer}, full):
        clips = list(unaudited(model).render([_request(seed) for seed in range(8)]))
    assert all(np.array_equal(clip.frames, _plain(model, clip.request)) for clip in clips)  # type: ignore[union-attr]
    assert max(clip.batch_size for clip in clips) > 1  # type: ignore[union-attr]


def test_a_prompt_is_encoded_once_for_all_its_seeds(model: Model) -> None:
    calls: list[str] = []

    def count(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    with intercept({"text_encoder": model.pipe.text_encoder}, count):
        rows = [_request(seed, prompt=prompt) for seed in range(4) for prompt in ("a ball", "一只猫")]
        clips = list(Renderer(model, audit=Audit(every=0)).render(rows))
    assert len(clips) == 8
    assert len(calls) == 3  # two prompts and the empty negative one


@pytest.mark.ci
@pytest.mark.parametrize(("name", "times"), [("hunyuan", 1), ("ltx2", 2), ("z_image_modular", 1)])
def test_a_language_model_encodes_a_prompt_once_too(name: str, times: int) -> None:
    model, calls = load_model(tiny(name), dtype="fp32"), list[Any]()

    def count(_: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(original(*args, **kwargs))
        return calls[-1]

    with intercept({"text_encoder": model.pipe.text_encoder}, count):
        rows = [Request(seed=seed, arguments=SMALLEST[name] | {"prompt": "a ball"}) for seed in range(3)]
        clips = list(Renderer(model, audit=Audit(every=0)).render(rows))
    assert len(clips) == 3
    assert all(output.past_key_values is not None for output in calls)
    assert len(calls) == times  # with the negative prompt


def test_an_encoder_whose_layers_a_pipeline_reads_is_called_for_each_row(model: Model) -> None:
    """As JoyImage's and Qwen-Image 2.1's do, by a hook around the call."""
    calls: list[str] = []

    def count(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    def read(*_: Any) -> None:
        """Look at what a layer returns."""

    read.__module__ = "diffusers.pipelines.joyimage.pipeline_joyimage_edit"
    layer = [*model.pipe.text_encoder.modules()][-1]
    with intercept({"text_encoder": model.pipe.text_encoder}, count):
        hook = layer.register_forward_hook(read)
        list(Renderer(model, audit=Audit(every=0)).render([_request(seed) for seed in range(3)]))
        hook.remove()
    assert len(calls) == 6  # prompt and negative prompt of each row


def test_nothing_is_left_on_the_model(model: Model) -> None:
    request = _request(5)
    scheduler, before = model.pipe.scheduler, _plain(model, request)
    config, modules = dict(model.pipe.config), list(model.denoisers().values())
    modules += [*model.text_encoders().values(), model.pipe.vae]
    state = [dict(vars(part)) for module in modules for part in module.modules()]
    list(Renderer(model, GROWING).render([_request(seed) for seed in range(5)]))
    stopped = unaudited(model).render([_request(seed) for seed in range(5)])
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert [sorted(vars(part)) for module in modules for part in module.modules()] == [
        sorted(part) for part in state
    ]
    assert model.pipe.scheduler is scheduler
    assert dict(model.pipe.config) == config
    assert torch.is_grad_enabled()
    assert np.array_equal(_plain(model, request), before)


def test_rows_that_were_under_way_when_the_caller_stopped_are_forgotten(model: Model) -> None:
    renderer = Renderer(model)
    for _ in renderer.render([_request(seed, num_inference_steps=seed + 2) for seed in range(3)]):
        break
    assert renderer.num_active == 0
    assert [clip.request.seed for clip in renderer.render([_request(9)])] == [9]


@pytest.mark.parametrize("recipe", ["generate", "own"])
@pytest.mark.parametrize("max_rows", [1, 3], ids=["alone", "together"])
def test_a_row_that_is_dropped_ends_at_its_next_forward_and_changes_no_other(
    max_rows: int, recipe: str, model: Model
) -> None:
    known = {"own": Recipe(name="own", function=generate, digest="")} if recipe == "own" else None
    batching = Batching(max_rows=max_rows, min_gain=0)
    renderer = Renderer(model, batching, audit=Audit(every=0), recipes=known)
    requests = [_request(seed, recipe=recipe, num_inference_steps=4) for seed in range(5)]
    for number, request in enumerate(requests):
        renderer.submit(request, str(number))
    assert not renderer.step() and not renderer.step()
    renderer.drop("0")  # under way
    renderer.drop("4")  # waits
    renderer.drop("of another worker")
    assert renderer.num_active == 3
    clips = [with_frames(clip) for _ in range(40) for clip in renderer.step()]
    assert renderer.num_active == 0
    assert sorted(clip.row_id for clip in clips) == ["1", "2", "3"]
    for clip in clips:
        assert isinstance(clip, Clip) and np.array_equal(clip.frames, _plain(model, clip.request))


def test_frames_that_are_not_numbers_are_a_failure(model: Model) -> None:
    def broken(pipe: Any, request: Request) -> Any:
        return np.full((5, 16, 16, 3), np.nan, dtype=np.float32)

    (failure,) = _renderer(model, broken=broken).render([_request(recipe="broken")])
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, RenderError)
    assert "NaN" in str(failure.error)


def test_nan_from_the_model_fails_its_row_and_no_other(model: Model) -> None:
    def poison(name: str, original: Callable[..., Any], latents: torch.Tensor, **kwargs: Any) -> Any:
        poisoned = latents * torch.nan if latents.shape[-1] > 2 else latents  # wider than 16 pixels
        return original(poisoned, **kwargs)

    with intercept({"vae": model.pipe.vae}, poison, method="decode"):
        outcomes = list(Renderer(model).render([_request(0), _request(1, width=32)]))
    assert {outcome.request.seed: type(outcome) for outcome in outcomes} == {0: Clip, 1: Failure}


def test_a_recipe_may_call_the_pipeline_more_than_once_and_change_its_copy(model: Model) -> None:
    def twice(pipe: Any, request: Request) -> Any:
        pipe.scheduler = None
        pipe.scheduler = model.pipe.scheduler.from_config(model.pipe.scheduler.config, flow_shift=1.0)
        first = generate(pipe, request).frames[0]
        return np.concatenate([first, generate(pipe, replace(request, seed=99)).frames[0]])

    plain = _plain(model, _request(0))
    clips = list(_renderer(model, twice=twice).render([_request(seed, recipe="twice") for seed in range(2)]))
    assert [len(clip.frames) for clip in clips] == [10, 10]  # type: ignore[union-attr]
    assert np.array_equal(_plain(model, _request(0)), plain)


def test_a_row_id_is_the_same_again_and_for_arguments_in_any_order(model: Model) -> None:
    def row_id(request: Request, batching: Batching | None = None) -> str:
        (clip,) = Renderer(model, batching).render([request])
        return clip.row_id

    request = _request(3)
    turned = replace(request, arguments=dict(reversed(list(request.arguments.items()))))
    spelled = _request(3, guidance_scale=5, negative_prompt=None)  # as the pipeline's signature has them
    assert row_id(request) == row_id(request, Batching(max_rows=1)) == row_id(turned) == row_id(spelled)
    assert row_id(request) != row_id(_request(4))
    assert row_id(request) != row_id(request, Batching(mode="fast"))
    assert len(row_id(request)) == 32


def test_a_model_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("wan"), tmp_path / "wan")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder)


@pytest.mark.parametrize("settings", [{"dtype": "fp8"}, {"device": "nowhere"}])
def test_a_dtype_or_device_that_does_not_exist_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        load_model(tiny("wan"), **settings)


@pytest.mark.parametrize(("mode", "rows"), [("exact", [1, 1, 1]), ("fast", [3])])
def test_rows_share_decoders_in_fast_mode_alone_and_each_text_is_encoded_once(
    model: Model, mode: Mode, rows: list[int]
) -> None:
    calls: dict[str, list[int]] = {"decode": [], "encode": []}

    def note(name: str, original: Callable[..., Any], tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls[name].append(tensor.shape[0])
        return original(tensor, *args, **kwargs)

    renderer = Renderer(model, Batching(mode=mode, min_gain=0, max_rows=3), audit=Audit(every=0))
    list(renderer.render(_request(seed, prompt=f"warm {seed}") for seed in range(6)))
    requests = [_request(seed, prompt=("a kite", "a tram", "a tram")[seed]) for seed in range(3)]
    with (
        intercept({"decode": model.pipe.vae}, note, method="_decode"),
        intercept({"encode": model.pipe.text_encoder}, note),
    ):
        clips = [clip for clip in renderer.render(requests) if isinstance(clip, Clip)]
    assert calls == {"decode": rows, "encode": [1, 1]}
    for clip in clips:
        close = np.abs(np.asarray(clip.frames, np.int16) - _plain(model, clip.request)) <= 1
        assert close.all()
        assert all(seconds > 0 for seconds in clip.seconds.values())
