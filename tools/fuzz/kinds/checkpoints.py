"""Checkpoints to convert that are damaged, are not checkpoints, or run code when they are opened."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tools.fuzz import hostile
from tools.fuzz.case import Case, command
from tools.fuzz.kinds.safetensor import mutated_safetensors
from tools.fuzz.material import Material

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"
NOT_CHECKPOINTS = (
    b"",
    b"<!DOCTYPE html><html>404</html>",
    POINTER,
    b"PK\x05\x06" + bytes(18),
    b"\x80\x04.",
    b"{}",
    b"GGUF" + bytes(100),
)


class _Runs:
    """What a hostile pickle holds."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


OBJECTS = (
    _Runs(),
    argparse.Namespace(a=1),
    collections.OrderedDict(a=torch.zeros(1)),
    np.float64(1),
    np.zeros(2),
    {"state_dict": {}},
    {"state_dict": {"a": 1}},
    {"state_dict": [torch.zeros(1)]},
    {"state_dict": {1: torch.zeros(1)}},
    {"state_dict": None},
    [torch.zeros(1)],
    torch.zeros(1),
    None,
    torch.device("cpu"),
    {"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": argparse.Namespace(x=_Runs())},
)


def checkpoints(rng: Random, folder: Path, material: Material) -> Case:
    """Such a file, and its conversion."""
    draw = rng.random()
    if draw < 0.2:
        name, content = rng.choice(list(material.checkpoints.items()))
        content = hostile.mutated_bytes(rng, content) if draw < 0.18 else content
    elif draw < 0.4:
        name, content = (
            "model.safetensors",
            mutated_safetensors(rng, material.checkpoints["model.safetensors"]),
        )
    elif draw < 0.5:
        name, content = rng.choice(list(material.checkpoints)), rng.choice(NOT_CHECKPOINTS)
    else:
        name, content = "model.ckpt", _pickled(rng) if draw < 0.75 else _other_tensors(rng, material)
    if rng.random() < 0.1:
        name = rng.choice(("model.ckpt", "model.safetensors", "model.bin", "model.pt", "model"))
    (folder / name).write_bytes(content)
    options = (
        [f"--set={hostile.text(rng)}={hostile.text(rng)}".replace("\0", "")[:10_000]]
        if rng.random() < 0.1
        else []
    )
    options = [option.encode("utf-8", "replace").decode() for option in options]
    place = name if rng.random() < 0.8 else "."
    return Case(
        told=f"{name} of {len(content)} bytes", run=command("model", "convert", place, "converted", *options)
    )


def _pickled(rng: Random) -> bytes:
    buffer = io.BytesIO()
    found = rng.choice(OBJECTS)
    if rng.random() < 0.2:
        return pickle.dumps(found)
    torch.save(found, buffer, _use_new_zipfile_serialization=rng.random() < 0.8)
    if rng.random() < 0.2 and zipfile.is_zipfile(buffer):
        return hostile.mutated_bytes(rng, buffer.getvalue())
    return buffer.getvalue()


def _other_tensors(rng: Random, material: Material) -> bytes:
    """Return the original with some tensors gone, of another shape or type, or renamed."""
    tensors: dict[Any, Any] = dict(material.original)
    for name in rng.sample(sorted(tensors), rng.choice((1, 3, 50))):
        draw = rng.random()
        if draw < 0.3:
            del tensors[name]
        elif draw < 0.6:
            tensors[name] = rng.choice(
                (
                    torch.zeros(()),
                    torch.zeros(0),
                    torch.zeros(3, 3),
                    tensors[name][None],
                    tensors[name].to(torch.int8),
                )
            )
        else:
            tensors[hostile.text(rng)] = tensors.pop(name)
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors}, buffer)
    return buffer.getvalue()
