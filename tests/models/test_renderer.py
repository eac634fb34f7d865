"""The renderer as a notebook uses it: requests in, clips and failures out, as they finish."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from framefleet import Audit, Batching, Clip, Failure, Model, Renderer, Request, load_model
from framefleet.pipeline import memory
from framefleet.pipeline.errors import OutOfMemory, RenderError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.outputs.clips import Outcome
from framefleet.pipeline.outputs.frames import frames as frames_module
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.fused.batching import Mode
from framefleet.pipeline.render.row_queue import with_frames
from tests.tiny import SMALLEST, tiny
from tests.unaudited import all_outcomes, calls_of, unaudited

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


def _is_plain(model: Model, outcome: Outcome) -> bool:
    assert isinstance(outcome, Clip), outcome.traceback
    return np.array_equal(outcome.frames, _plain(model, outcome.request))


def _full(refused: list[str], is_full: Callable[[], bool] = lambda: True) -> Callable[..., Any]:
    """Return what stands around calls for which memory runs out. refused: gets their names."""

    def full(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if is_full():
            refused.append(name)
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return original(*args, **kwargs)

    return full


def test_clips_come_as_they_finish_with_the_frames_of_plain_calls(model: Model) -> None:
    slow, quick = _request(1, num_inference_steps=8), _request(2, num_inference_steps=2)
    clips = list(Renderer(model, GROWING).render([slow, quick]))
    assert [clip.request.seed for clip in clips] == [2, 1]
    for clip in clips:
        assert _is_plain(model, clip)
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
    assert _is_plain(model, clips[0])


def test_a_row_whose_frames_cannot_be_kept_fails_and_the_others_finish(model: Model) -> None:
    def broken(name: str, decode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        (frames,) = decode(*args, **kwargs)
        return (frames * (float("nan") if frames.shape[-1] > 16 else 1),)

    with intercept({"vae": model.pipe.vae}, broken, method="decode"):
        outcomes = list(Renderer(model).render([_request(0), _request(1, width=32)]))
    clip, failure = sorted(outcomes, key=lambda outcome: outcome.request.seed)
    assert isinstance(clip, Clip) and isinstance(failure, Failure)
    assert isinstance(failure.error, RenderError) and "frames contain NaN" in failure.traceback


@pytest.mark.parametrize("every", [0, 2])
def test_shares_of_rows_add_up_to_what_the_model_was_busy(model: Model, every: int) -> None:
    sizes = ({"num_inference_steps": 2}, {"num_inference_steps": 6}, {"width": 32}, {"seed": 7})
    requests = [_request(**{"seed": seed} | more) for seed, more in enumerate(sizes)]
    renderer = Renderer(model, GROWING, audit=Audit(every=every))
    outcomes = list(renderer.render([*requests, requests[0]]))  # two of one row_id
    clips = [outcome for outcome in outcomes if isinstance(outcome, Clip)]
    assert len(clips) == 5
    shares = [clip.seconds["compute_s"] for clip in clips]
    assert sum(shares) == pytest.approx(renderer.clock.busy_s, rel=0.01) and min(shares) > 0
    assert sum(clip.seconds["denoise_s"] for clip in clips) > renderer.clock.busy_s


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


def _counted(model: Model, renderer: Renderer, requests: list[Request]) -> tuple[list[Outcome], int]:
    """Render them; return what becomes of them and how many row-forwards that took."""
    with calls_of(model.denoisers(), lambda *_, **named: len(named["hidden_states"])) as rows:
        return list(renderer.render(requests)), sum(rows)


def test_a_row_that_lacks_memory_beside_others_waits_for_them_and_denoises_no_step_again(
    model: Model,
) -> None:
    batching = Batching(min_gain=0, mode="fast")
    requests = [_request(seed, guidance_scale=2.0 + seed) for seed in range(12)]  # no two are one call
    _, needed = _counted(model, Renderer(model, batching, audit=Audit(every=0)), requests)
    renderer = Renderer(model, batching, audit=Audit(every=0))
    refused = list[str]()
    full = _full(refused, lambda: sum(not task.is_waiting for task in renderer._batcher.tasks.values()) > 2)
    with intercept({"vae": model.pipe.vae}, full, method="decode"):
        outcomes, taken = _counted(model, renderer, requests)
    assert refused
    assert all(isinstance(outcome, Clip) for outcome in outcomes)
    assert taken <= needed * 1.2, "some sizes are tried anew"
    assert max(renderer._rows._limits.values()) < renderer.capacity


def test_a_row_that_lacks_memory_at_its_end_goes_on_alone_from_its_journal(model: Model) -> None:
    renderer, refused = unaudited(model), list[str]()
    full = _full(refused, lambda: len(renderer._rows.under_way) > 1)
    requests = [_request(seed, num_inference_steps=6) for seed in range(4)]
    _, needed = _counted(model, unaudited(model), requests)
    with intercept({"vae": model.pipe.vae}, full, method="decode"):
        outcomes, taken = _counted(model, renderer, requests)
    assert refused
    assert all(_is_plain(model, outcome) for outcome in outcomes)
    assert taken <= needed + len(requests), "one forward of each is made again, and compared"


def test_what_fits_nowhere_says_how_far_it_came(model: Model) -> None:
    with intercept({"vae": model.pipe.vae}, _full([]), method="decode"):
        (failure,) = unaudited(model).render([_request(3)])
    assert isinstance(failure, Failure) and failure.half_done
    renderer = unaudited(model)
    renderer.submit(_request(3), failure.row_id, failure.half_done.checkpoint)
    assert _is_plain(model, all_outcomes(renderer)[0])


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
    assert all(_is_plain(model, clip) for clip in clips)
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

    renderer = Renderer(model, Batching(max_rows=max_rows), audit=Audit(every=0))
    with intercept({"vae": model.pipe.vae}, other_kernels, method="decode"):
        plain = with_frames(renderer.render_plainly(_request(3), "0"))
        assert len(called) == 2
        called.clear()
        (alone,) = renderer.render([_request(3)])
        assert len(called) == 2
    assert _is_plain(model, plain) and _is_plain(model, alone)


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

    def read(*_: Any) -> None:
        """Look at what a layer returns."""

    read.__module__ = "diffusers.pipelines.joyimage.pipeline_joyimage_edit"
    layer = [*model.pipe.text_encoder.modules()][-1]
    with calls_of(model.text_encoders()) as calls:
        hook = layer.register_forward_hook(read)
        list(Renderer(model, audit=Audit(every=0)).render([_request(seed) for seed in range(3)]))
        hook.remove()
    assert len(calls) == 6  # prompt and negative prompt of each row


def test_nothing_is_left_on_the_model_and_of_rows_of_a_caller_that_stopped(model: Model) -> None:
    request = _request(5)
    scheduler, before = model.pipe.scheduler, _plain(model, request)
    config, modules = dict(model.pipe.config), list(model.denoisers().values())
    modules += [*model.text_encoders().values(), model.pipe.vae]
    state = [dict(vars(part)) for module in modules for part in module.modules()]
    list(Renderer(model, GROWING).render([_request(seed) for seed in range(5)]))
    renderer = unaudited(model)
    stopped = renderer.render([_request(seed) for seed in range(5)])
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert renderer.num_active == 0
    assert [sorted(vars(part)) for module in modules for part in module.modules()] == [
        sorted(part) for part in state
    ]
    assert model.pipe.scheduler is scheduler
    assert dict(model.pipe.config) == config
    assert torch.is_grad_enabled()
    assert np.array_equal(_plain(model, request), before)


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
    assert all(_is_plain(model, clip) for clip in clips)


def test_a_row_id_is_the_same_again_and_for_arguments_in_any_order(model: Model) -> None:
    def row_id(request: Request, batching: Batching | None = None) -> str:
        (clip,) = Renderer(model, batching, audit=Audit(every=0)).render([request])
        return clip.row_id

    request = _request(3, num_inference_steps=1)
    turned = replace(request, arguments=dict(reversed(list(request.arguments.items()))))
    spelled = replace(request, arguments=request.arguments | {"guidance_scale": 5, "negative_prompt": None})
    assert row_id(request) == row_id(turned, Batching(max_rows=1)) == row_id(spelled)
    others = [row_id(replace(request, seed=4)), row_id(request, Batching(mode="fast"))]
    assert len({row_id(request), *others}) == 3
    assert len(row_id(request)) == 32


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
