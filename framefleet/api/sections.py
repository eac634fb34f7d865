"""What a section of the job file is made of."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.jobs.job.section import (
        Key as Key,
        ListSection as ListSection,
        Section as Section,
        as_list as as_list,
    )
    from framefleet.pipeline.guards.arguments import AtLeastOne as AtLeastOne
    from framefleet.pipeline.guards.strict_model import MustBe as MustBe, Strict as Strict
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
