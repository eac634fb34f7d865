"""Render a table of prompts into clips and records that can be rendered again, bit for bit.

    import framefleet

    model = framefleet.load_model("/models/Wan2.1-T2V-1.3B-Diffusers")
    for clip in framefleet.Renderer(model).render([framefleet.Request(arguments={"prompt": "a red ball"})]):
        ...

Names are imported when first used: `import framefleet` loads neither torch nor Ray.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:  # with `as`, by which type checkers know that a name is public
    from framefleet.cluster.driver.progress import Progress as Progress, Summary as Summary
    from framefleet.jobs.job.schema import job_schema as job_schema
    from framefleet.jobs.render.render import render as render, retry as retry
    from framefleet.pipeline.errors import (
        AuthorityError as AuthorityError,
        BrokenWorker as BrokenWorker,
        EndpointError as EndpointError,
        FleetError as FleetError,
        FramefleetError as FramefleetError,
        InputError as InputError,
        JobError as JobError,
        ModelError as ModelError,
        NoFile as NoFile,
        OutOfMemory as OutOfMemory,
        OutputInUse as OutputInUse,
        PluginError as PluginError,
        RecipeError as RecipeError,
        RenderError as RenderError,
        RowError as RowError,
        ServiceError as ServiceError,
        StoreConflict as StoreConflict,
        StoreError as StoreError,
        TableError as TableError,
        UserError as UserError,
    )
    from framefleet.pipeline.model.load_model import load_model as load_model
    from framefleet.pipeline.model.model import Model as Model
    from framefleet.pipeline.outputs.clips import Clip as Clip, Failure as Failure
    from framefleet.pipeline.outputs.frames.result import KeptSteps as KeptSteps
    from framefleet.pipeline.outputs.output import Output as Output, open_output as open_output
    from framefleet.pipeline.outputs.row_states import FailedRow as FailedRow, OutputCounts as OutputCounts
    from framefleet.pipeline.outputs.stores.store import Store as Store
    from framefleet.pipeline.recipes.recipe import recipe as recipe
    from framefleet.pipeline.render.audit.schedule import Audit as Audit
    from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone as HalfDone
    from framefleet.pipeline.render.fused.batching import Batching as Batching
    from framefleet.pipeline.render.renderer import Renderer as Renderer
    from framefleet.pipeline.render.scheduler_steps import step_log_prob as step_log_prob
    from framefleet.pipeline.request import Request as Request
    from framefleet.pipeline.rows.inputs.access import Inputs as Inputs
    from framefleet.plugins.audit.audit import audit as audit
    from framefleet.plugins.audit.report import AuditReport as AuditReport
    from framefleet.plugins.batch.batch import batch as batch
    from framefleet.plugins.batch.results import BatchSummary as BatchSummary
    from framefleet.plugins.compact.command import compact as compact
    from framefleet.plugins.demo.demo import demo as demo
    from framefleet.plugins.deploy.submission import logs as logs, submit as submit
    from framefleet.plugins.doctor.doctor import Diagnosis as Diagnosis, doctor as doctor
    from framefleet.plugins.doctor.machine import CheckResult as CheckResult
    from framefleet.plugins.export.export import export as export
    from framefleet.plugins.export.records import read_records as read_records
    from framefleet.plugins.forecast.job_plan import JobPlan as JobPlan
    from framefleet.plugins.forecast.plan import plan as plan
    from framefleet.plugins.forget.forget import forget as forget
    from framefleet.plugins.keep.repair.repair import repair as repair
    from framefleet.plugins.keep.replay.given import Given as Given
    from framefleet.plugins.keep.replay.replay import replay as replay
    from framefleet.plugins.keep.replay.script import replay_script as replay_script
    from framefleet.plugins.keep.verify.verify import verify as verify
    from framefleet.plugins.marks.trace import Traced as Traced, trace as trace
    from framefleet.plugins.models.models import (
        ModelFiles as ModelFiles,
        ModelInfo as ModelInfo,
        lock_model as lock_model,
        model_info as model_info,
        verify_model as verify_model,
    )
    from framefleet.plugins.pack.pack import pack as pack
    from framefleet.plugins.pages.gallery.gallery import gallery as gallery
    from framefleet.plugins.pages.gallery.serve import GalleryServer as GalleryServer
    from framefleet.plugins.pages.report.live_page import StatusServer as StatusServer
    from framefleet.plugins.pages.report.report import report as report
    from framefleet.plugins.pages.report.values import Report as Report
    from framefleet.plugins.pages.sheet.sheet import Drawn as Drawn, grid as grid, sheet as sheet
    from framefleet.plugins.ports.conversion.convert import (
        Converted as Converted,
        convert_model as convert_model,
    )
    from framefleet.plugins.prove.check import (
        CheckedCertificate as CheckedCertificate,
        check_certificate as check_certificate,
    )
    from framefleet.plugins.prove.prove import Proven as Proven, prove as prove
    from framefleet.plugins.rollouts.warm_fleet import WarmFleet as WarmFleet, fleet as fleet
    from framefleet.plugins.scores.score_output import score as score
    from framefleet.plugins.train.plan import TrainPlan as TrainPlan, plan_training as plan_training
    from framefleet.plugins.train.train import train as train
    from framefleet.plugins.until.acceptance import Acceptance as Acceptance, acceptance as acceptance
    from framefleet.plugins.watch.add import add as add
    from framefleet.plugins.watch.control import pause as pause, resume as resume, stop as stop
    from framefleet.plugins.watch.failures import failures as failures
    from framefleet.plugins.watch.status import Status as Status, status as status
    from framefleet.plugins.words.judge import judge as judge
    from framefleet.plugins.words.prompts import prompts as prompts

__version__ = "0.2.0"

_find, __dir__, __all__ = lazy_names(__name__)


def __getattr__(name: str) -> object:
    value = _find(name)
    if not isinstance(value, FunctionType):
        return value
    from framefleet.pipeline.guards.arguments import check_arguments_once

    return check_arguments_once(value)
