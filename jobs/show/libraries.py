"""What libraries would print beside a command's own lines."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Silence diffusers and transformers: their advice and progress bars are for those who call them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from framefleet.pipeline.model.options.torchao_import import keep_import_warnings

    keep_import_warnings()
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
