"""Run all checks on a machine or a cluster, and for a job."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.api.commands import Overview
from framefleet.api.errors import FleetError, JobError, count_text
from framefleet.api.outputs import dated
from framefleet.cluster.fleet.settings import FleetSettings, machines_in_words, missing_gpu, shares
from framefleet.jobs.job.paths import absolute_path
from framefleet.plugins.doctor import machine
from framefleet.plugins.doctor.machine import CheckResult
from framefleet.plugins.doctor.services import NEAR_S, inspect_clock, inspect_hub, inspect_store

if TYPE_CHECKING:
    from framefleet.api.jobs import TableJob
    from framefleet.plugins.doctor.everywhere import Met

_CLUSTER_S = 60.0  # for all checks of a machine, and for Ray to start a process there
_MEET_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What to check besides the machine. only: names of checks; empty: all."""

    store: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    models: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # arguments of `open_source`
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Diagnosis(Overview):
    """The results of all checks, by machine."""

    results: tuple[CheckResult, ...]

    def overview(self) -> Mapping[str, object]:
        wrong = [one for one in self.results if one.state != "ok"]
        wrong.sort(key=lambda one: one.state)  # errors first
        return {
            "checks": f"{len(self.results):,}, {len(wrong):,} with warnings or errors",
            **{
                f"{one.state} {number}": f"{one.check}: {one.text}" for number, one in enumerate(wrong[:5], 1)
            },
        }

    @property
    def is_well(self) -> bool:
        """Whether no check found an error. There may be warnings."""
        return all(result.state != "error" for result in self.results)


def doctor(
    job: TableJob | str | Path | Mapping[str, Any] | None = None,
    *,
    address: str | None = None,
    store: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    only: Collection[str] = (),
) -> Diagnosis:
    """Check this machine, or every machine of a Ray cluster. A job adds its output, models and cluster.

    address: of a Ray cluster. store: a URL or folder to test by writing to it. only: names of checks, as in
    `CheckResult.check`; empty: all. Raises JobError, and FleetError if the cluster cannot be joined.
    """
    store = store and absolute_path(dated(store))  # other machines have other current folders
    targets = Targets(store=store, storage_options=storage_options or {}, only=tuple(only))
    fleet, devices = FleetSettings(), dict[tuple[str | int, ...], str]()
    if job is not None:
        from framefleet.api.jobs import TableJob, load_job
        from framefleet.jobs.job.file import devices_of

        read = job if isinstance(job, TableJob) else load_job(job)
        theirs = targets.storage_options or read.storage_options
        targets = replace(targets, store=targets.store or absolute_path(read.output), storage_options=theirs)
        options = {"storage_options": read.storage_options}
        second = getattr(read, "second_models", {})  # a training has none
        # For a single file, the base. `plan` reads the header of the file itself.
        places = [(one.base or one.path, one.revision) for one in read.by_name.values()]
        places = [] if getattr(read, "engine", None) else places
        places += [(one.path, one.revision) for one in second.values()]
        models = tuple(
            {"path": absolute_path(path, may_be_of_hub=True), "revision": revision, **options}
            for path, revision in places
        )
        targets = replace(targets, models=models)
        fleet, devices = read.fleet, devices_of(read)
        address = address or fleet.address
    names = {*checks_of(Targets(store="")), "ports", "fleet"}
    if unknown := set(only) - names:
        raise JobError(f"{', '.join(sorted(unknown))} is not a check", f"use {', '.join(sorted(names))}")
    if address is None:
        results = check_machine(targets)[0]
        if (not only or "fleet" in only) and (error := missing_gpu(fleet, devices, places={})):
            results.append(replace(machine.error(error.problem, error.fix), check="fleet"))
        return Diagnosis(results=tuple(replace(one, machine=platform.node()) for one in results))
    return Diagnosis(results=tuple(_check_cluster(targets, address, fleet)))


def checks_of(targets: Targets) -> dict[str, machine.Check]:
    """Return the checks of one machine, by name."""
    checks: dict[str, machine.Check] = {
        **machine.MACHINE_CHECKS,
        "hub": partial(inspect_hub, targets.models),
        "clock": partial(inspect_clock, targets.store, targets.storage_options),
    }
    if targets.store is not None:
        checks[machine.STORE] = partial(inspect_store, targets.store, targets.storage_options)
    return {name: check for name, check in checks.items() if not targets.only or name in targets.only}


def check_machine(targets: Targets) -> tuple[list[CheckResult], dict[str, str]]:
    """Run the checks on a machine; return their results, and the versions of libraries."""
    return machine.run_checks(checks_of(targets)), machine.versions()


def _check_cluster(targets: Targets, address: str, fleet: FleetSettings) -> Iterator[CheckResult]:
    from framefleet.plugins.doctor.everywhere import everywhere, meet, run_on

    with everywhere(address) as machines:
        installed = machine.versions()
        answers = run_on(machines, check_machine, targets, timeout_s=_CLUSTER_S)
        met = {} if targets.only and "ports" not in targets.only else meet(machines, timeout_s=_MEET_S)
    worker = shares(fleet, machines)
    if not targets.only or "fleet" in targets.only:
        if room := worker.room(machines):
            fits = machine.ok(f"room for {count_text(room, 'worker')}, each of which needs {worker}")
        else:
            problem = f"no machine has room for a worker, which needs {worker}"
            fix = f"the cluster has {machines_in_words(machines)}; this is fine if an autoscaler adds others,"
            fix += " else change `fleet`, e.g. gpus_per_worker: 0 renders on CPUs"
            fits = machine.warning(problem, fix)
        yield replace(fits, machine=address, check="fleet")
    for name, answer in answers.items():
        if isinstance(answer, FleetError):
            yield replace(machine.error(answer.problem, answer.fix), machine=name, check="libraries")
            continue
        results, theirs = answer
        compared = replace(_compared(theirs, installed), check="libraries")
        of_ports = [replace(one, check="ports") for one in _of_meeting(met.get(name))]
        yield from (replace(one, machine=name) for one in [*results, compared, *of_ports])


def _compared(theirs: Mapping[str, str], ours: Mapping[str, str]) -> CheckResult:
    wrong = {
        name: f"{name} {theirs.get(name)} (here {ours[name]})"
        for name in ours
        if theirs.get(name) != ours[name]
    }
    if not wrong:
        return machine.ok("the same versions as on the driver's machine")
    is_refused = not wrong.keys().isdisjoint(("framefleet", "source", "ray", "python"))
    fix = "install the same versions on every machine, e.g. with one image"
    return (machine.error if is_refused else machine.warning)(", ".join(wrong.values()), fix)


def _of_meeting(met: Met | FleetError | None) -> Iterator[CheckResult]:
    if isinstance(met, FleetError):
        yield machine.error(met.problem, met.fix)
    elif met and met.unreachable:
        yield machine.error(
            f"cannot connect to {'; '.join(met.unreachable)}",
            "open all TCP ports between the machines of the cluster, or those that Ray uses",
        )
    elif met:
        yield machine.ok("reaches Ray on every machine, and the driver")
        if abs(met.offset_s) > NEAR_S:
            yield machine.warning(
                f"the clock is {met.offset_s:+.0f} s off the driver's", "synchronize it (chrony)"
            )
