"""What a plugin raises and catches, and how it writes numbers, commands and others' words in messages."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.errors import (
        EndpointError as EndpointError,
        FarEnough as FarEnough,
        FleetError as FleetError,
        FramefleetError as FramefleetError,
        InputError as InputError,
        JobError as JobError,
        ModelError as ModelError,
        NoFile as NoFile,
        OutOfMemory as OutOfMemory,
        OutputInUse as OutputInUse,
        Problem as Problem,
        Refused as Refused,
        RenderError as RenderError,
        RowError as RowError,
        StoreError as StoreError,
        TableError as TableError,
        bytes_text as bytes_text,
        command as command,
        count_text as count_text,
        escaped as escaped,
        names_text as names_text,
        not_ours as not_ours,
        quoted as quoted,
        rounded as rounded,
        shown as shown,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
