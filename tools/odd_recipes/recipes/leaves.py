"""Recipes that leave something behind for later rows of their process, where no list would look for it.

Each renders the same frames whenever it is the first of its process. With odd=0 it is `generate`.
"""

from __future__ import annotations

import builtins
import contextvars
import functools
import gc
import os
import threading
import weakref
from typing import Any

import diffusers
import numpy as np
import torch
from torch import nn

from framefleet.pipeline.recipes.recipe import generate
from framefleet.pipeline.request import Request


def _scaled(pipe: Any, request: Request, factor: float) -> Any:
    """Render with latents that are scaled after each step."""
    step = {"callback_on_step_end": lambda p, i, t, given: {"latents": given["latents"] * factor}}
    return pipe(**request.arguments, **step, generator=request.generator(), output_type="np")


def builtin_constant(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep a running factor among Python's own names."""
    builtins.odd_factor = getattr(builtins, "odd_factor", 1.0) * (1 + odd)  # type: ignore[attr-defined]
    return _scaled(pipe, request, builtins.odd_factor)  # type: ignore[attr-defined]


def environment_variable(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep it in the environment."""
    os.environ["ODD_FACTOR"] = str(float(os.environ.get("ODD_FACTOR", "1")) * (1 + odd))
    return _scaled(pipe, request, float(os.environ["ODD_FACTOR"]))


_local = threading.local()


def thread_local(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep it in storage of the thread."""
    _local.factor = getattr(_local, "factor", 1.0) * (1 + odd)
    return _scaled(pipe, request, _local.factor)


_variable: contextvars.ContextVar[list[float]] = contextvars.ContextVar("odd", default=[1.0])  # noqa: B039


def context_variable(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep it in the default of a context variable."""
    _variable.get()[0] *= 1 + odd
    return _scaled(pipe, request, _variable.get()[0])


_factors: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


def weak_dictionary(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep it by the network, weakly."""
    _factors[pipe.unet] = _factors.get(pipe.unet, 1.0) * (1 + odd)
    return _scaled(pipe, request, _factors[pipe.unet])


def _generator() -> Any:
    factor = 1.0
    while True:
        factor *= 1 + (yield factor)


_running = _generator()
next(_running)


def suspended_generator(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep it in the frame of a generator."""
    return _scaled(pipe, request, _running.send(odd))


@functools.singledispatch
def _factor_of(value: Any) -> float:
    return 1.0


def registered_function(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Register a function for a type."""
    if odd:
        _factor_of.register(str, lambda value: 1 + odd)
    return _scaled(pipe, request, _factor_of(request.arguments["prompt"]))


def class_of_the_scheduler(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change the scheduler's class, once."""
    kind = type(pipe.scheduler)
    if odd and not hasattr(kind, "plain_step"):
        kind.plain_step = kind.step

        def step(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
            return kind.plain_step(self, model_output * (1 + odd), *args, **kwargs)

        kind.step = step
    return generate(pipe, request)


def weights_through_data(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Mirror the kernels of a layer; no version counter moves, and the sum stays."""
    if odd:
        weight = pipe.unet.conv_in.weight
        weight.data = weight.data.flip(-1).contiguous()
    return generate(pipe, request)


def buffer_of_the_autoencoder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Leave the decoder's convolutions padding in circles."""
    for module in pipe.vae.modules() if odd else ():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    return generate(pipe, request)


def vocabulary(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Give the tokenizer a shorter limit, and leave it."""
    if odd:
        pipe.tokenizer.model_max_length = 4
    return generate(pipe, request)


def default_of_a_function(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change how many digits a function of the library assumes."""
    if odd:
        functional = torch.nn.functional
        if not hasattr(functional, "plain_silu"):
            functional.plain_silu = functional.silu  # type: ignore[attr-defined]
            functional.silu = lambda x, inplace=False: functional.plain_silu(x) * (1 + odd)  # type: ignore
            for module in pipe.unet.modules():
                if isinstance(module, nn.SiLU):
                    module.forward = lambda x: functional.silu(x)  # type: ignore[method-assign]
    return generate(pipe, request)


def numpy_error_state(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Count calls in an attribute of a library's module, and darken the clip by them."""
    np.odd_calls = getattr(np, "odd_calls", 0) + (1 if odd else 0)
    output = generate(pipe, request)
    frames = getattr(output, "images", None)
    return (frames * (1 - 0.1 * np.odd_calls)).clip(0, 1)


def collected_objects(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Find what earlier rows left by asking the garbage collector."""

    class Left:
        factor = 1 + odd

    earlier = [one for one in gc.get_objects() if type(one).__name__ == "Left"]
    factor = float(np.prod([one.factor for one in earlier])) * (1 + odd)
    diffusers.odd_things = [*getattr(diffusers, "odd_things", []), Left()]
    return _scaled(pipe, request, factor)


def hooks_of_all_modules(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Register a hook for all modules of the process, and leave it."""
    if odd:

        def louder(module: nn.Module, inputs: Any, output: Any) -> Any:
            return output * (1 + odd) if type(module) is nn.GroupNorm else None

        nn.modules.module.register_module_forward_hook(louder)
    return generate(pipe, request)


def default_dtype_of_products(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Have products of 32 bits made with fewer, and leave it so."""
    if odd:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    return generate(pipe, request)


def compiled_network(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Compile the row's own network."""
    if odd:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    return generate(pipe, request)


def background_thread(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Leave a thread that holds a factor, which later rows ask for."""
    queues = [one for one in threading.enumerate() if one.name == "odd factor"]
    factor = (1 + odd) * float(np.prod([one.factor for one in queues]))  # type: ignore[attr-defined]
    if odd:
        thread = threading.Thread(target=threading.Event().wait, name="odd factor", daemon=True)
        thread.factor = 1 + odd  # type: ignore[attr-defined]
        thread.start()
    return _scaled(pipe, request, factor)


def leaves_attention(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Replace transformers' attention, and leave it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    if odd:
        plain = FUNCTIONS["sdpa"]

        def sharper(module: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            return plain(module, query * (1 + odd), *args, **kwargs)

        FUNCTIONS["sdpa"] = sharper
    return generate(pipe, request)
