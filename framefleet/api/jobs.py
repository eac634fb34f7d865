"""A job: its file and its output, what job.json says, and the progress of a run."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Progress as Progress, Summary as Summary
    from framefleet.jobs.doors import notes as notes, runners_of as runners_of, table_of as table_of
    from framefleet.jobs.job.file import (
        load_job as load_job,
        options_alone as options_alone,
        output_at as output_at,
        places as places,
        storage_options as storage_options,
    )
    from framefleet.jobs.job.job_json import (
        JOB_JSON as JOB_JSON,
        Claim as Claim,
        claim_of as claim_of,
        read_claim as read_claim,
    )
    from framefleet.jobs.job.model import open_models as open_models
    from framefleet.jobs.job.output import below as below, store_of_job as store_of_job
    from framefleet.jobs.job.schema import Job as Job, TableJob as TableJob
    from framefleet.jobs.show.progress import watch_on as watch_on
    from framefleet.pipeline.plugin import sections as sections
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
