"""Render a table of prompts into clips and records that can be rendered again, bit for bit.

    import framefleet

    model = framefleet.load_model("/models/Wan2.1-T2V-1.3B-Diffusers")
    for clip in framefleet.Renderer(model).render([framefleet.Request(arguments={"prompt": "a red ball"})]):
        ...

Names are imported when first used: `import framefleet` loads neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Progress, Summary
    from framefleet.jobs.control.add import add
    from framefleet.jobs.control.control import pause, resume, stop
    from framefleet.jobs.job.schema import job_schema
    from framefleet.jobs.keep.repair.repair import repair
    from framefleet.jobs.keep.replay.recorded_row import Given
    from framefleet.jobs.keep.replay.replay import replay
    from framefleet.jobs.keep.replay.script import replay_script
    from framefleet.jobs.keep.verify.verify import verify
    from framefleet.jobs.look.failures import failures
    from framefleet.jobs.look.status.status import Status, status
    from framefleet.jobs.plan.plan import JobPlan, plan
    from framefleet.jobs.render.render import render, retry
    from framefleet.pipeline.errors import (
        AuthorityError,
        BrokenWorker,
        EndpointError,
        FleetError,
        FramefleetError,
        InputError,
        JobError,
        ModelError,
        NoFile,
        OutOfMemory,
        OutputInUse,
        PluginError,
        RecipeError,
        RenderError,
        RowError,
        ServiceError,
        StoreConflict,
        StoreError,
        TableError,
        UserError,
    )
    from framefleet.pipeline.model.load_model import load_model
    from framefleet.pipeline.model.model import Model
    from framefleet.pipeline.outputs.clips import Clip, Failure
    from framefleet.pipeline.outputs.frames.result import KeptSteps
    from framefleet.pipeline.outputs.output import Output, open_output
    from framefleet.pipeline.outputs.row_states import FailedRow, OutputCounts
    from framefleet.pipeline.outputs.stores.store import Store
    from framefleet.pipeline.recipes.recipe import recipe
    from framefleet.pipeline.render.audit.schedule import Audit
    from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone
    from framefleet.pipeline.render.fused.batching import Batching
    from framefleet.pipeline.render.renderer import Renderer
    from framefleet.pipeline.render.scheduler_steps import step_log_prob
    from framefleet.pipeline.request import Request
    from framefleet.pipeline.rows.inputs.access import Inputs
    from framefleet.plugins.compact.command import compact
    from framefleet.plugins.demo.demo import demo
    from framefleet.plugins.deploy.submission import logs, submit
    from framefleet.plugins.doctor.doctor import Diagnosis, doctor
    from framefleet.plugins.doctor.machine import CheckResult
    from framefleet.plugins.export.export import export
    from framefleet.plugins.export.records import read_records
    from framefleet.plugins.marks.trace import Traced, trace
    from framefleet.plugins.models.models import ModelFiles, ModelInfo, lock_model, model_info, verify_model
    from framefleet.plugins.pack.pack import pack
    from framefleet.plugins.pages.gallery.gallery import gallery
    from framefleet.plugins.pages.gallery.serve import GalleryServer
    from framefleet.plugins.pages.report.live_page import StatusServer
    from framefleet.plugins.pages.report.report import report
    from framefleet.plugins.pages.report.values import Report
    from framefleet.plugins.pages.sheet.sheet import Drawn, grid, sheet
    from framefleet.plugins.ports.conversion.convert import Converted, convert_model
    from framefleet.plugins.rollouts.warm_fleet import WarmFleet, fleet
    from framefleet.plugins.scores.score_output import score
    from framefleet.plugins.train.plan import TrainPlan, plan_training
    from framefleet.plugins.train.train import train
    from framefleet.plugins.until.acceptance import Acceptance, acceptance
    from framefleet.plugins.words.answers import judge
    from framefleet.plugins.words.prompts import prompts

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "Audit",
    "AuthorityError",
    "Batching",
    "BrokenWorker",
    "CheckResult",
    "Clip",
    "Converted",
    "Diagnosis",
    "Drawn",
    "EndpointError",
    "FailedRow",
    "Failure",
    "FleetError",
    "FramefleetError",
    "GalleryServer",
    "Given",
    "HalfDone",
    "InputError",
    "Inputs",
    "JobError",
    "JobPlan",
    "KeptSteps",
    "Model",
    "ModelError",
    "ModelFiles",
    "ModelInfo",
    "NoFile",
    "OutOfMemory",
    "Output",
    "OutputCounts",
    "OutputInUse",
    "PluginError",
    "Progress",
    "RecipeError",
    "RenderError",
    "Renderer",
    "Report",
    "Request",
    "RowError",
    "ServiceError",
    "Status",
    "StatusServer",
    "Store",
    "StoreConflict",
    "StoreError",
    "Summary",
    "TableError",
    "Traced",
    "TrainPlan",
    "UserError",
    "WarmFleet",
    "acceptance",
    "add",
    "compact",
    "convert_model",
    "demo",
    "doctor",
    "export",
    "failures",
    "fleet",
    "gallery",
    "grid",
    "job_schema",
    "judge",
    "load_model",
    "lock_model",
    "logs",
    "model_info",
    "open_output",
    "pack",
    "pause",
    "plan",
    "plan_training",
    "prompts",
    "read_records",
    "recipe",
    "render",
    "repair",
    "replay",
    "replay_script",
    "report",
    "resume",
    "retry",
    "score",
    "sheet",
    "status",
    "step_log_prob",
    "stop",
    "submit",
    "trace",
    "train",
    "verify",
    "verify_model",
]

_HOMES = {
    "demo": "framefleet.plugins.demo.demo",
    "job_schema": "framefleet.jobs.job.schema",
    "Converted": "framefleet.plugins.ports.conversion.convert",
    "convert_model": "framefleet.plugins.ports.conversion.convert",
    "verify_model": "framefleet.plugins.models.models",
    "lock_model": "framefleet.plugins.models.models",
    "model_info": "framefleet.plugins.models.models",
    "ModelFiles": "framefleet.plugins.models.models",
    "ModelInfo": "framefleet.plugins.models.models",
    "Acceptance": "framefleet.plugins.until.acceptance",
    "Audit": "framefleet.pipeline.render.audit.schedule",
    "Batching": "framefleet.pipeline.render.fused.batching",
    "CheckResult": "framefleet.plugins.doctor.machine",
    "Clip": "framefleet.pipeline.outputs.clips",
    "Failure": "framefleet.pipeline.outputs.clips",
    "Diagnosis": "framefleet.plugins.doctor.doctor",
    "Drawn": "framefleet.plugins.pages.sheet.sheet",
    "FailedRow": "framefleet.pipeline.outputs.row_states",
    "GalleryServer": "framefleet.plugins.pages.gallery.serve",
    "Given": "framefleet.jobs.keep.replay.recorded_row",
    "HalfDone": "framefleet.pipeline.render.checkpoints.checkpoint",
    "Inputs": "framefleet.pipeline.rows.inputs.access",
    "JobPlan": "framefleet.jobs.plan.plan",
    "KeptSteps": "framefleet.pipeline.outputs.frames.result",
    "Model": "framefleet.pipeline.model.model",
    "Progress": "framefleet.cluster.driver.progress",
    "Output": "framefleet.pipeline.outputs.output",
    "OutputCounts": "framefleet.pipeline.outputs.row_states",
    "Renderer": "framefleet.pipeline.render.renderer",
    "Report": "framefleet.plugins.pages.report.values",
    "Request": "framefleet.pipeline.request",
    "Status": "framefleet.jobs.look.status.status",
    "StatusServer": "framefleet.plugins.pages.report.live_page",
    "Store": "framefleet.pipeline.outputs.stores.store",
    "Summary": "framefleet.cluster.driver.progress",
    "Traced": "framefleet.plugins.marks.trace",
    "TrainPlan": "framefleet.plugins.train.plan",
    "WarmFleet": "framefleet.plugins.rollouts.warm_fleet",
    "acceptance": "framefleet.plugins.until.acceptance",
    "add": "framefleet.jobs.control.add",
    "compact": "framefleet.plugins.compact.command",
    "doctor": "framefleet.plugins.doctor.doctor",
    "export": "framefleet.plugins.export.export",
    "fleet": "framefleet.plugins.rollouts.warm_fleet",
    "gallery": "framefleet.plugins.pages.gallery.gallery",
    "failures": "framefleet.jobs.look.failures",
    "grid": "framefleet.plugins.pages.sheet.sheet",
    "judge": "framefleet.plugins.words.answers",
    "load_model": "framefleet.pipeline.model.load_model",
    "logs": "framefleet.plugins.deploy.submission",
    "open_output": "framefleet.pipeline.outputs.output",
    "pack": "framefleet.plugins.pack.pack",
    "pause": "framefleet.jobs.control.control",
    "plan": "framefleet.jobs.plan.plan",
    "plan_training": "framefleet.plugins.train.plan",
    "prompts": "framefleet.plugins.words.prompts",
    "read_records": "framefleet.plugins.export.records",
    "recipe": "framefleet.pipeline.recipes.recipe",
    "render": "framefleet.jobs.render.render",
    "repair": "framefleet.jobs.keep.repair.repair",
    "replay": "framefleet.jobs.keep.replay.replay",
    "replay_script": "framefleet.jobs.keep.replay.script",
    "report": "framefleet.plugins.pages.report.report",
    "resume": "framefleet.jobs.control.control",
    "retry": "framefleet.jobs.render.render",
    "score": "framefleet.plugins.scores.score_output",
    "sheet": "framefleet.plugins.pages.sheet.sheet",
    "status": "framefleet.jobs.look.status.status",
    "step_log_prob": "framefleet.pipeline.render.scheduler_steps",
    "stop": "framefleet.jobs.control.control",
    "submit": "framefleet.plugins.deploy.submission",
    "trace": "framefleet.plugins.marks.trace",
    "train": "framefleet.plugins.train.train",
    "verify": "framefleet.jobs.keep.verify.verify",
}
# All others are errors.
_HOMES |= {name: "framefleet.pipeline.errors" for name in __all__ if name not in _HOMES}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    if not isinstance(value, FunctionType):
        return value
    from framefleet.pipeline.guards.arguments import check_arguments_once

    return check_arguments_once(value)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
