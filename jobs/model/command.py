"""`framefleet model`: what is in a model, a lock file of it, and whether it is still the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.options import Verbose
from framefleet.jobs.show.console import reporting

_ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A pipeline folder, org/name of the hub, or a URL.")
]
_Revision = Annotated[str | None, typer.Option("--revision", help="Of a hub model: branch, tag or commit.")]
_LockFile = Annotated[
    Path | None, typer.Option("--lock", help="The lock file; without it, the one in the model's folder.")
]
_AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Take pickles of tensors where there are no safetensors.")
]


def lock_command(
    model: _ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Where to write; without it, into the folder, or else here."),
    ] = None,
    revision: _Revision = None,
    allow_pickle: _AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Write model.lock.json: size and SHA-256 of every file that is loaded. `render` then refuses others."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.shown import show_lock

        show_lock(model, revision=revision, allow_pickle=allow_pickle, output=output)


def verify_command(
    model: _ModelArgument,
    lock: _LockFile = None,
    revision: _Revision = None,
    allow_pickle: _AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Read every file that is loaded and compare it with the lock, and with the hub's digests."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.shown import show_verify

        show_verify(model, revision=revision, allow_pickle=allow_pickle, lock=lock)


def convert_command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The authors' .ckpt or .safetensors, or its folder.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The pipeline folder to write; a new one.")],
    variant: Annotated[
        str | None, typer.Option("--variant", help="Which model it is, where its tensors do not tell.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="fp32, fp16 or bf16; without it, as in the checkpoint.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What tensors do not tell, as vae.norm_num_groups=8; or where an encoder lies that the "
            "checkpoint lacks, as text_encoder=DIR. Repeatable.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Turn a checkpoint that diffusers does not load into a pipeline folder. Holds no two copies of it."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.convert import show_convert

        show_convert(checkpoint, folder, variant=variant, dtype=dtype, sets=sets or [])


def list_command(verbose: Verbose = False) -> None:
    """Print the models that are known by name: native values, memory, licence."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.list import show_list

        show_list()


def info_command(
    model: _ModelArgument,
    revision: _Revision = None,
    allow_pickle: _AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Print what a model is made of and what it renders. Fetches small files and headers only."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.shown import show_info

        show_info(model, revision=revision, allow_pickle=allow_pickle)
