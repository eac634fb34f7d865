"""From honest values, text or bytes to what somebody careless or hostile makes of them."""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Iterator
from random import Random
from typing import Any

TEXTS = (
    "",
    " ",
    "\t\n\r",
    "\0",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGVsbG8=\x07",
    "\x1b[2J\x1b[31m",
    "\x9b31m\x85",
    "a\u202egnp.exe",
    "\u2028\u2066\ufeff",
    "é" * 5000,
    "a" * 200_000,
    "一只猫" * 40_000,
    "../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "file:///etc/passwd",
    "~/.ssh/id_rsa",
    "http://127.0.0.1:9/a.png",
    "http://[::1]:9/",
    "http://169.254.169.254/latest/meta-data/",
    "http://user:pass/word@127.0.0.1:9/",
    "http://[bad",
    "simplecache::file:///etc/passwd",
    "filecache::memory://x",
    "memory://x",
    "zip://x::/etc/passwd",
    "nosuch://x",
    "local:///",
    "generate:x",
    "generate.evil:f",
    "refine:refine",
    "os:system",
    "os.path:join",
    "__main__:x",
    "a:b:c",
    ":",
    "org/name",
    "org/name@main",
    "generate",
    "extend",
    "style:0.8",
    "style:1e999",
    "style:nan",
    "style:" + "9" * 400,
    "style+style",
    "a+b+c",
    "ddim",
    "EulerDiscreteScheduler",
    "euler(steps_offset=" + "9" * 400 + ")",
    "euler(beta_schedule=none)",
    "ddim(clip_sample_range=nan, x=)",
    "unipc(solver_order=-1)",
    "lcm(original_inference_steps=0)",
    "(((",
    "ModelMixin",
    "logging",
    "torch",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "1e-400",
    "0x10",
    "1_000",
    "9" * 5000,
    "5.0",
    "5:0, 1:9",
    "0-1: 5",
    "cosine(1, 5)",
    "2024-13-45",
    "2024-02-30T25:61:61",
    "12:99:99",
    "true",
    "null",
    "~",
    "{}",
    "[]",
    "[1e999, NaN]",
    "[999, [499]]",
    "[" * 60,
    "!!python/object/apply:os.system [id]",
    "&a *a",
    "<<",
    "{0.__class__}",
    "%s%n",
    "${HOME}",
    "$(id)",
    "' or 1=1 --",
    '"""',
    "'''\nimport os\n'''",
    "C:\\x",
    "\\\\host\\share",
    "data:image/png;base64,AAAA",
    "_class_name",
    "__class__",
    "auto",
    "cuda:0",
    "meta",
    "bf16",
    "kernels-community/flash-attn",
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    7,
    255,
    2**31,
    2**32,
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    10**400,
    -(2**63),
    0.1,
    -0.0,
    1e30,
    1e308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
)
OTHERS = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    {"": None},
    [1, "a"],
    {"path": "x"},
    {"a": {"b": {}}},
)
# What length and count fields of binary formats are about.
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def text(rng: Random) -> str:
    if rng.random() < 0.8:
        return rng.choice(TEXTS)
    return "".join(
        chr(rng.choice((rng.randrange(1, 128), rng.randrange(0xA0, 0x2FF))))
        for _ in range(rng.randrange(1, 30))
    )


def cell(rng: Random) -> str:
    """Return text as UTF-8 can hold it."""
    return text(rng).encode("utf-8", "replace").decode()


def number(rng: Random) -> int | float:
    return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randrange(-5, 2000)


def value(rng: Random) -> Any:
    """Return plain data that could stand in a config."""
    draw = rng.random()
    if draw < 0.4:
        return text(rng)
    if draw < 0.7:
        return number(rng)
    if draw < 0.92:
        return copy.deepcopy(rng.choice(OTHERS))
    return nested(rng.choice((10, 70, 400)), rng.choice((list, dict)))


def nested(depth: int, kind: type) -> Any:
    found: Any = kind()
    for _ in range(depth):
        found = [found] if kind is list else {"a": found}
    return found


def mutated_tree(rng: Random, tree: Any, times: int | None = None) -> Any:
    """Return a copy of nested plain data with some of it replaced, renamed, doubled or gone."""
    tree = copy.deepcopy(tree)
    for _ in range(times or rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if not places:
            return value(rng)
        _change(rng, *rng.choice(places))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) below `tree`."""
    for key, inner in list(
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield tree, key
        yield from _places(inner)


def _change(rng: Random, container: Any, key: Any) -> None:
    draw = rng.random()
    if draw < 0.6:
        container[key] = value(rng)
    elif draw < 0.7:
        del container[key]
    elif draw < 0.8:
        container[key] = [container[key]]
    elif isinstance(container, dict):
        container[text(rng)] = container.pop(key) if draw < 0.9 else value(rng)
    else:
        container.append(value(rng))


def mutated_bytes(rng: Random, content: bytes) -> bytes:
    """Return the bytes with some of them changed, cut, moved, doubled or new."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not found:
            return rng.randbytes(rng.randrange(64))
        at = rng.randrange(len(found)) if rng.random() < 0.6 else rng.randrange(min(len(found), 256))
        size = min(rng.choice((1, 4, 64, 4096)), len(found) - at)
        draw = rng.random()
        if draw < 0.35:
            found[at] ^= 1 << rng.randrange(8)
        elif draw < 0.5:
            edge = rng.choice(EDGES)
            packed = struct.pack(rng.choice("<>") + "Q", edge)
            width = rng.choice((1, 2, 4, 8))
            found[at : at + width] = packed[:width]
        elif draw < 0.6:
            del found[at : at + size]
        elif draw < 0.7:
            del found[at:]
        elif draw < 0.8:
            found[at:at] = rng.randbytes(size)
        elif draw < 0.9:
            found[at:at] = found[at : at + size]
        else:
            found[at : at + size] = bytes(size)
    return bytes(found)
