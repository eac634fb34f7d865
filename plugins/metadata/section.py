"""The section `read_metadata` of a job file. Light to import, since every job file is read with it."""

from __future__ import annotations

from pydantic import ConfigDict, RootModel

from framefleet.jobs.job.section import SectionFacts

READ_METADATA, FOLDER = "read_metadata", "metadata"  # of a job; of its output, with the table


class ReadMetadataSection(SectionFacts, RootModel[bool]):
    """Render the prompts, seeds and settings in the metadata of pictures and clips in the table's folder."""

    model_config = ConfigDict(strict=True, frozen=True)

    root: bool = False
