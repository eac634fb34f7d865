"""Note the prompt that a pipeline writes in place of a row's, by an enhancer or an upsampler of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from framefleet.pipeline.outputs.frames.extras import WRITTEN_PROMPT
from framefleet.pipeline.outputs.frames.result import Rendered

# How diffusers names what does so: `enhance_prompt` of LTX-2, `upsample_prompt` of Flux 2 and Ideogram,
# `expand_prompts` of Kandinsky 6, `_enhance_prompt_with_pe` of ERNIE-Image (0.42).
_WRITERS = re.compile(r"_?(enhance|upsample|expand|rewrite)_prompts?(_\w+)?")


def note_written(pipe: Any) -> list[str]:
    """Return a list to which calls of `pipe`, a row's own copy, add the prompts that they write."""
    written: list[str] = []
    for name in filter(_WRITERS.fullmatch, dir(type(pipe))):
        method = getattr(pipe, name)
        if callable(method):
            setattr(pipe, name, partial(_noted, method, written))
    return written


def with_written(rendered: Rendered, written: Sequence[str]) -> Rendered:
    """Return what a row rendered, with the prompts that were written for it, unless it names them itself."""
    if not written:
        return rendered
    texts = list(dict.fromkeys(written))
    values = {WRITTEN_PROMPT: texts[0] if len(texts) == 1 else texts, **rendered.extras.values}
    return replace(rendered, extras=replace(rendered.extras, values=values))


def _noted(method: Callable[..., Any], written: list[str], *args: Any, **kwargs: Any) -> Any:
    found = method(*args, **kwargs)
    texts = found if isinstance(found, list | tuple) else [found]
    written += [text for text in texts if isinstance(text, str)]
    return found
