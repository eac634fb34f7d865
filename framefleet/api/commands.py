"""What commands take, print and report while they work."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.jobs.options import (
        AllowPickle as AllowPickle,
        AsJson as AsJson,
        Every as Every,
        JobFile as JobFile,
        ModelPlace as ModelPlace,
        OutputPlace as OutputPlace,
        OutputToRead as OutputToRead,
        Port as Port,
        Quiet as Quiet,
        Sets as Sets,
        StorageSets as StorageSets,
        SummaryAsJson as SummaryAsJson,
        Verbose as Verbose,
        Where as Where,
        resumable as resumable,
        with_groups as with_groups,
    )
    from framefleet.jobs.show.console import (
        quiet_libraries as quiet_libraries,
        reporting as reporting,
        stderr as stderr,
        stdout as stdout,
    )
    from framefleet.jobs.show.watch import (
        Callback as Callback,
        Checked as Checked,
        ClipsPace as ClipsPace,
        ClipsProgress as ClipsProgress,
        Watch as Watch,
        duration as duration,
        wait_for as wait_for,
    )
    from framefleet.pipeline.overview import Overview as Overview
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
