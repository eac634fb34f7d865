"""`framefleet model`: what is in a model, a lock file of it, and whether it is still the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.options import Verbose
from framefleet.jobs.show.console import reporting

_ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Pipeline: a folder, a hub id (org/name) or a URL.")
]
_Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")]
_LockFile = Annotated[
    Path | None, typer.Option("--lock", help="Lock file. Default: the one in the model's folder.")
]
_AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Allow pickles of tensors where there are no safetensors.")
]


def lock_command(
    model: _ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="File to write. Default: in the model's folder if it is local, else in the current folder.",
        ),
    ] = None,
    revision: _Revision = None,
    allow_pickle: _AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Write model.lock.json: size and SHA-256 of each file that is loaded. `render` refuses other files."""
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
    """Read every file that is loaded, and compare it with the lock and with the hub's digests."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.shown import show_verify

        show_verify(model, revision=revision, allow_pickle=allow_pickle, lock=lock)


def convert_command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Original .ckpt or .safetensors file, or its folder.")
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Pipeline folder to write. Must not exist yet.")
    ],
    variant: Annotated[
        str | None, typer.Option("--variant", help="Name of the model, if its tensors do not show it.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Dtype to write: fp32, fp16 or bf16. Default: as in the checkpoint."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Set what the tensors do not show, e.g. vae.norm_num_groups=8, or the place of an encoder "
            "that the checkpoint lacks, e.g. text_encoder=DIR; repeatable.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Convert a checkpoint that diffusers cannot load into a pipeline folder. Needs memory for one copy."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.convert import show_convert

        show_convert(checkpoint, folder, variant=variant, dtype=dtype, sets=sets or [])


def list_command(verbose: Verbose = False) -> None:
    """List the known models with their native values, memory and licence."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.list import show_list

        show_list()


def info_command(
    model: _ModelArgument,
    revision: _Revision = None,
    allow_pickle: _AllowPickle = False,
    verbose: Verbose = False,
) -> None:
    """Show what a model consists of and what it renders. Fetches only small files and headers."""
    with reporting(verbose=verbose):
        from framefleet.jobs.model.shown import show_info

        show_info(model, revision=revision, allow_pickle=allow_pickle)
