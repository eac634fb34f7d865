"""Silences what libraries would print between a command's own lines."""

from __future__ import annotations

import os

from framefleet.pipeline.model.options.torchao_import import keep_import_warnings

VERBOSITY = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")  # read when they are imported


def quiet_imports() -> None:
    """Silence diffusers and transformers where they may never be imported: importing them takes seconds."""
    keep_import_warnings()
    for variable in VERBOSITY:
        os.environ.setdefault(variable, "error")


def quiet_libraries() -> None:
    """Silence diffusers and transformers: their advice and progress bars are for those who call them."""
    quiet_imports()
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
