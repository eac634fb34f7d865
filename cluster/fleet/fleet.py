"""Worker actors on a Ray cluster: started, asked, replaced when they die. Decides nothing about rows.

A worker always has one call under way: `place`, then `start` until it is ready, then `exchange`. Its answer
becomes an event. Each call except the first is answered within a second or so: a silent worker is lost.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import ray
from ray.exceptions import RayError

from framefleet.cluster.dispatch.faults import MAX_REST_S, NO_MACHINE, REST_S, FaultPolicy, Hosts, LostRows
from framefleet.cluster.fleet import events
from framefleet.cluster.fleet.actors import Actors, Listening, Slot, check_hello, kill, modules_to_ship
from framefleet.cluster.fleet.connection import Head, RayMetrics, connect
from framefleet.cluster.fleet.losses import Cause, LaneHosts, cause_of_loss
from framefleet.cluster.fleet.machines import Machines
from framefleet.cluster.fleet.settings import FleetSettings, machines_in_words, resources_in_words, shares
from framefleet.cluster.worker.messages import Assignment, Hello, Loading, WorkerSetup
from framefleet.cluster.worker.worker import Worker
from framefleet.pipeline.errors import FleetError, FramefleetError, count_text
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.rows.identity import LaneKey

log = logging.getLogger(__name__)

# Until a first row is done libraries are loaded, in calls that may keep all of Python waiting.
LOADING_SILENCE_S = 120.0
_TURN_S = 1.0  # of a driver, at most: one that took longer was suspended, or did not listen
HELD_S = 10.0  # of waiting for room: a process of ours that has just ended holds some for a moment


class Fleet:
    """Workers on Ray, as a context: they end when it ends, and so does a cluster that it started.

    setups: of the workers, by lane. next_lane: returns the lane for a worker that starts, given the number of
    workers of each lane, and lanes to avoid; until it is set, the first lane. lanes_left: returns the lanes
    with rows left. worker_class: of the workers, with the methods of `Worker` that are called here.
    """

    next_lane: Callable[[Mapping[LaneKey, int], Collection[LaneKey]], LaneKey]
    lanes_left: Callable[[], Sequence[LaneKey]]
    _setups: Mapping[LaneKey, WorkerSetup]  # of the driver that it serves

    def __init__(
        self,
        settings: FleetSettings,
        setups: Mapping[LaneKey, WorkerSetup],
        faults: FaultPolicy,
        *,
        worker_class: type[Any] = Worker,
        python: str | None = None,
    ) -> None:
        """python: the command that starts Python for a worker; None: the one of this process."""
        self._settings = settings
        self._begin(setups)
        self._worker_class, self._python = worker_class, python
        self._lanes = LaneHosts(faults)
        self._slots: dict[str, Slot] = {}  # by the names of the processes that live, or are on their way
        self._resting: list[Slot] = []
        self._losses: dict[str, Slot] = {}  # by the process that is gone, until `replace` is called
        self._num_slots = self._num_made = self._num_rows = 0
        self._clock = Listening(time.monotonic())
        self._heard = 0.0  # the cluster; as the clock counts
        self._was_ready: dict[LaneKey, float] = {}  # the last worker of each lane
        self._num_looks = 0
        self._told_room = self._told_held = False
        self._had_room = 0.0  # when no worker waited for room that others have; as the clock counts
        self._metrics = RayMetrics(_output_of(setups)) if settings.address else None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._modules = modules = _modules_of(self._setups)
        with ExitStack() as stack:  # __exit__ is not called when entering fails
            self._connection = stack.enter_context(
                connect(self._settings.address, num_cpus=self._settings.num_cpus, modules=modules)
            )
            own, head = ray.get_runtime_context().get_node_id(), Head()
            self._machines = stack.enter_context(Machines(own, look=head.machines, look_for_room=head.room))
            self._shares = shares(self._settings, self._machines.alive)
            self._asked = self._shares.asked
            self._setups = {lane: self._fitted(setup) for lane, setup in self._setups.items()}
            folder = os.getcwd() if modules else None
            self._actors = Actors(
                self._options(), self._worker_class, self._setups, folder=folder, clock=self._clock
            )
            self.grow(1)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            if self._connection.is_lost:
                for slot in self._slots.values():
                    slot.actor.__ray_terminate__.remote()  # goes to the worker itself, and `kill` to the head
            else:
                for slot in self._slots.values():
                    kill(slot.actor)
                self._actors.wait_for_kills()
        finally:
            self._stack.__exit__(*raised)

    def grow(self, num_rows: int) -> None:
        """Start the workers that this many rows keep busy, as far as machines have room."""
        self._was_ready = {}
        self._num_rows = num_rows
        self._fill()

    def resize(self, num_workers: int | None) -> None:
        """Have this many workers; None: as at first. Ray's autoscaler adds machines for those that wait.

        If there are too many, workers that are no longer used go first. Those without a machine end at once,
        others when they are retired. With 0 workers, those that load their model end at once too.
        """
        self._shares = replace(self._shares, asked=self._asked if num_workers is None else num_workers)
        if self.has_too_many:
            in_use = len(self._slots) + len(self._resting) + len(self._losses)
            self._num_slots = max(in_use, self._shares.asked or 0)
        self._fill()
        idle = ("pending",) if num_workers else ("pending", "loading")
        for slot in [*self._resting, *(slot for slot in self._slots.values() if slot.state in idle)]:
            if self.has_too_many:
                self._give_up(slot)

    def _fitted(self, setup: WorkerSetup) -> WorkerSetup:
        return replace(setup, num_writers=int(self._shares.cpus))

    def _options(self) -> dict[LaneKey, dict[str, Any]]:
        options = {}
        for lane, setup in self._setups.items():
            options[lane] = self._shares.options(threads=setup.model.threads, python=self._python)
            options[lane]["runtime_env"] |= self._connection.runtime_env
        return options

    def open(self, setups: Mapping[LaneKey, WorkerSetup]) -> None:
        """Serve these lanes too, which were added later. Lanes that it serves already stay as they are."""
        self._setups = {lane: self._fitted(setup) for lane, setup in setups.items()} | {**self._setups}
        self._actors.set_up(self._options(), self._setups)

    def can_serve(self, setups: Mapping[LaneKey, WorkerSetup]) -> bool:
        """Return whether its workers can serve another driver: they have the same models and all modules."""
        own = {lane.model: (setup.model, setup.model_files) for lane, setup in self._setups.items()}
        models = {lane.model: (setup.model, setup.model_files) for lane, setup in setups.items()}
        return own | models == models | own and {*_modules_of(setups)} <= {*self._modules}

    def renew(self, setups: Mapping[LaneKey, WorkerSetup]) -> None:
        """Serve another driver: each worker drops its rows, and is ready again once it has its lane's setup.

        setups: of the lanes of that driver, for which `can_serve` is true.
        """
        self._begin({lane: self._fitted(setup) for lane, setup in setups.items()})
        self._actors.set_up(self._options(), self._setups)
        self._lanes.renew()
        if self._metrics:
            self._metrics.begin(_output_of(setups))
        for slot in [*self._slots.values()]:
            setup = self._setups.get(slot.lane)
            if setup is None or (slot.state == "pending" and slot.setup != setup):
                self._forget(slot)
                self._start(slot)
                continue
            if slot.host:
                machine = self._machines.find(node_id=slot.host)
                self._hosts(slot).placed(slot.name, slot.host, machine.name if machine else slot.host[:8])
            if slot.state in ("loading", "ready"):
                slot.state, slot.since, slot.is_to_renew = "loading", self._clock.seconds, True
        self.resize(None)

    def _begin(self, setups: Mapping[LaneKey, WorkerSetup]) -> None:
        self._setups, first = setups, next(iter(setups))
        self.next_lane = lambda num, but: first
        self.lanes_left = lambda: [first]

    def _give_up(self, slot: Slot) -> None:
        if slot in self._resting:
            self._resting.remove(slot)
        else:
            self._forget(slot)
            self._hosts(slot).left(slot.name)
        self._num_slots -= 1

    def _hosts(self, slot: Slot) -> Hosts:
        return self._lanes.of(slot.lane)

    @property
    def has_too_many(self) -> bool:
        return self._shares.asked is not None and self._num_slots > self._shares.asked

    def exchange(self, worker: str, assignments: Sequence[Assignment], dropped: Sequence[str] = ()) -> None:
        """Send rows to a worker that has just reported; wait for its next report. dropped: rows to stop."""
        slot = self._slots[worker]
        self._actors.ask(slot, slot.actor.exchange.remote(tuple(assignments), tuple(dropped)))

    def drain(self, worker: str) -> None:
        """Ask a worker that has just reported to hand back its rows, and wait for its next report."""
        slot = self._slots[worker]
        self._actors.ask(slot, slot.actor.exchange.remote((), (), drain=True))

    def num_by_lane(self) -> Counter[LaneKey]:
        """Return how many workers each lane has, including those on their way."""
        return Counter(slot.lane for slot in self._slots.values())

    def num_serving(self) -> Counter[LaneKey]:
        """Return how many workers each lane has, except those that wait for room that others have."""
        waiting = self._num_pending()
        if self._is_room_taken:
            return self.num_by_lane() - waiting
        without_room = {lane: max(0, num - max(0, self._num_free(lane))) for lane, num in waiting.items()}
        return self.num_by_lane() - Counter(without_room)

    def _num_pending(self) -> Counter[LaneKey]:
        """Return how many workers of each lane have no machine yet."""
        return Counter(slot.lane for slot in self._slots.values() if slot.state == "pending")

    def _num_free(self, lane: LaneKey) -> int:
        """Return how many more workers have room on the machines that a lane uses."""
        blocked = self._lanes.blocked([lane])
        num_there = sum(slot.host not in {None, *blocked} for slot in self._slots.values())
        return self._shares.room(self._machines.alive, but=blocked) - num_there

    def retire(self, worker: str, lane: LaneKey | None = None) -> None:
        """End a worker that has no rows; another takes its place, unless there are too many.

        lane: of the one in its place; None: the one that `next_lane` returns.
        """
        slot = self._slots[worker]
        self._had_room = self._clock.seconds  # this worker makes room
        if self.has_too_many:
            self._give_up(slot)
        else:
            self._forget(slot)
            self._hosts(slot).left(slot.name)
            self._start(slot, lane)

    def rendered(self, worker: str, row_id: str) -> None:
        """The worker has finished a row: its earlier faults no longer count, and were not this row's."""
        self._slots[worker].has_rendered = True
        self._hosts(self._slots[worker]).done(self._slots[worker].name, row_id)

    def acquitted(self, worker: str, row_id: str) -> None:
        """A row of the worker has ended by an error of its own: earlier deaths were not this row's doing."""
        self._hosts(self._slots[worker]).acquitted(row_id)

    def cleared(self, worker: str) -> None:
        """A row was given up: earlier faults of the worker were that row's doing."""
        self._hosts(self._slots[worker]).cleared(self._slots[worker].name)

    def end(self, worker: str, cause: Cause) -> events.Lost:
        """End a worker that is no longer of use. Pass the result to `replace`, as if the worker were lost."""
        return self._lose(self._slots[worker], cause)

    def replace(self, lost: events.Lost, loss: LostRows = LostRows()) -> None:  # noqa: B008 - frozen
        """Start another process in its place, if that may help."""
        slot, unused = self._losses.pop(lost.worker), self.unused
        starts_at = self._lanes.fault(slot.lane, slot.name, lost.cause, loss=loss, now=time.monotonic())
        if self.has_too_many:
            self._num_slots -= 1
        else:  # also one that is barred: other lanes may do better there, or its machine may be replaced
            slot.state, slot.host, slot.starts_at = "to start", None, starts_at or time.monotonic() + REST_S
            self._resting.append(slot)
        for place in set(self.unused) - set(unused):
            log.warning("%s", place)

    @property
    def unused(self) -> tuple[str, ...]:
        return self._lanes.unused(are_several=len(self._setups) > 1)

    def unfit(self, worker: str) -> set[LaneKey]:
        """Return the lanes that must have no process in this worker's place."""
        slot = self._slots[worker]
        return {lane for lane in self.lanes_left() if self._lanes.is_unfit(lane, slot.name, slot.host)}

    def _lanes_open(self) -> list[LaneKey]:
        """Return the lanes with rows left that have not been given up."""
        return [lane for lane in self.lanes_left() if lane not in self._lanes.closed]

    def publish(self, figures: Mapping[str, float]) -> None:
        if self._metrics:
            self._metrics.publish(figures)

    def wait(self, timeout_s: float) -> list[events.Event]:
        """Return what happened, as soon as something did. Raises FramefleetError when nothing more can."""
        self._clock.tick(time.monotonic(), at_most=_TURN_S)
        self._check_cluster()
        now = time.monotonic()
        for slot in [slot for slot in self._resting if slot.starts_at <= now]:
            self._resting.remove(slot)
            self._start(slot)
        pending = [slot for slot in self._slots.values() if slot.state == "pending"]
        for slot in [slot for slot in pending if 0 < slot.avoids_until <= now]:
            self._forget(slot)  # it found no place while a machine rested
            self._start(slot)
        closed = self._close_lanes()
        answers = [self._event(slot, ref) for slot, ref in self._actors.answered(0 if closed else timeout_s)]
        going = {machine.node_id for machine in self._machines.alive if machine.is_draining}
        ready = (slot for slot in self._slots.values() if slot.state == "ready")
        leaving = [events.Leaving(slot.worker) for slot in ready if slot.host in going]
        happened = [event for event in answers if event]
        return [*closed, *leaving, *self._held_up(), *happened, *self._silent()]

    def _fill(self) -> None:
        """Start as many workers as were asked for, or have room, but no more than there are rows."""
        blocked = self._lanes.blocked(self._lanes_open())
        wanted = min(self._shares.num_workers(self._machines.alive, but=blocked), self._num_rows)
        while self._num_slots < wanted:
            self._start(Slot(self._num_made))
            self._num_made += 1
            self._num_slots += 1
        has_room = self._shares.room(self._machines.alive)
        if wanted > has_room and not self._told_room:
            self._told_room = True
            log.warning(
                "there is room for %s of %s: each takes %s, the cluster has %s; the others start "
                "when there is more",
                has_room,
                count_text(wanted, "worker"),
                self._shares,
                machines_in_words(self._machines.alive),
            )

    @property
    def _is_room_taken(self) -> bool:
        """Whether workers have long waited for room that others have."""
        return self._clock.seconds - self._had_room >= HELD_S

    def _held_up(self) -> list[events.Starting]:
        """Return the first worker that waits for room that others have, once that has lasted. Log it once."""
        room, slots = self._machines.room, self._slots.values()
        pending = [slot for slot in slots if slot.state == "pending"]
        self._machines.wants_room = bool(pending)
        is_held = (
            (self._shares.cpus, self._shares.gpus) in room.awaited
            and not self._shares.room(room.free)
            and any(self._num_free(lane) > 0 for lane in self._num_pending())
        )
        if not is_held:
            self._had_room = self._clock.seconds
        if not self._is_room_taken:
            return []
        if not self._told_held:
            self._told_held = True
            log.warning(
                "others hold the room for %s: each takes %s, the cluster has %s, and %s are free; they start "
                "when there is room",
                count_text(len(pending), "worker"),
                self._shares,
                machines_in_words(self._machines.alive),
                resources_in_words(room.free),
            )
        return [events.Starting(slot.worker, "waiting for room that others hold") for slot in pending[:1]]

    def _start(self, slot: Slot, lane: LaneKey | None = None) -> None:
        if lane is None or lane in self._lanes.closed:
            lane = self.next_lane(self.num_by_lane(), self._disliked(slot))
        slot.lane = lane
        is_closed = lane in self._lanes.closed  # which the driver does not know yet
        if is_closed or self._hosts(slot).is_barred(slot.name):  # until there is something else to do
            rest_s = REST_S if is_closed else MAX_REST_S
            slot.state, slot.host, slot.starts_at = "to start", None, time.monotonic() + rest_s
            self._resting.append(slot)
            return
        blocked, resting = self._hosts(slot).to_avoid(time.monotonic())
        avoided, slot.avoids_until = blocked, 0.0
        if resting and self._shares.room(self._machines.alive, but=[*blocked, *resting]):
            avoided, slot.avoids_until = [*blocked, *resting], max(resting.values())
        self._actors.make(slot, but=avoided)
        self._slots[slot.worker] = slot

    def _disliked(self, slot: Slot) -> set[LaneKey]:
        """Return the lanes that have no room for another worker, or whose workers die."""
        num_pending, disliked = self._num_pending(), set(self._lanes.closed)
        for lane in self._lanes_open():
            is_full = bool(self._lanes.blocked([lane])) and num_pending[lane] >= self._num_free(lane)
            if is_full or self._lanes.is_unfit(lane, slot.name, None) or self._lanes.of(lane).are_doubtful:
                disliked.add(lane)
        return disliked

    def _event(self, slot: Slot, ref: Any) -> events.Event | None:
        try:
            answer = ray.get(ref)
        except RayError as error:
            cause = cause_of_loss(error, is_ready=slot.state == "ready")
            machine = self._machines.find(address=cause.address)
            if machine and slot.host is None:  # it ended before it could say where it was
                self._hosts(slot).placed(slot.name, machine.node_id, machine.name)
            return self._lose(slot, cause)
        if isinstance(answer, str):
            return self._place(slot, answer)
        if slot.is_to_renew:
            self._actors.renew(slot)
            return None
        if isinstance(answer, Loading):
            self._actors.ask(slot, slot.actor.start.remote())
            return events.Starting(slot.worker, f"{answer.doing} on {self._at(slot)}")
        if isinstance(answer, Hello):
            try:
                check_hello(self._at(slot), answer)
            except FleetError as error:
                return self._lose(slot, Cause(reason=error.problem, kind="refused", error=error))
            slot.state, slot.load_s = "ready", slot.load_s or self._clock.seconds - slot.since
            at = (slot.host, slot.name) if slot.host else (slot.name,)
            return events.Ready(slot.worker, answer, at, slot.lane, slot.load_s)
        return events.Reported(slot.worker, answer)

    def _place(self, slot: Slot, host: str) -> events.Event | None:
        """Note where the worker is, and load its model there, unless its machine is no longer used."""
        machine = self._machines.find(node_id=host)
        slot.host = host
        self._hosts(slot).placed(slot.name, host, machine.name if machine else host[:8])
        if self._hosts(slot).is_blocked(host):
            self._forget(slot)
            self._start(slot)
            return None
        slot.state, slot.since = "loading", self._clock.seconds
        self._actors.ask(slot, slot.actor.start.remote())
        return events.Starting(slot.worker, f"starting a worker on {self._hosts(slot).name_of(slot.name)}")

    def _silent(self) -> list[events.Lost]:
        lost, now = [], self._clock.seconds
        for slot in self._actors.pending():
            if slot.state == "loading" and now - slot.since > self._settings.ready_timeout_s:
                reason = f"its model was not loaded after {now - slot.since:.0f} s (fleet.ready_timeout_s)"
                lost.append(self._lose(slot, Cause(reason=reason, kind="machine")))
                continue
            patience_s = self._settings.silence_s
            if slot.state == "pending":
                patience_s = math.inf  # there may be no room for it yet
            elif not slot.has_rendered:
                patience_s = max(LOADING_SILENCE_S, patience_s)
            if now - slot.asked_at > patience_s:
                reason = f"it has not answered for {now - slot.asked_at:.0f} s"
                lost.append(self._lose(slot, Cause(reason=reason, kind="silent")))
        return lost

    def _lose(self, slot: Slot, cause: Cause) -> events.Lost:
        cause = replace(cause, reason=public_text(cause.reason))
        log.warning("%s is lost: %s", self._at(slot), cause.reason)
        self._connection.keep_logs = True
        self._forget(slot)
        self._losses[slot.worker] = slot
        return events.Lost(slot.worker, cause)

    def _forget(self, slot: Slot) -> None:
        del self._slots[slot.worker]
        self._actors.end(slot)

    def _at(self, slot: Slot) -> str:
        host = self._hosts(slot).name_of(slot.name)
        worker = f"{slot.worker} ({slot.lane})" if str(slot.lane) else slot.worker
        return f"{worker} on {host}" if host else worker

    def _check_cluster(self) -> None:
        """Raise FleetError if the cluster is lost; use machines that have joined it."""
        now = self._clock.seconds
        if self._machines.num_looks != self._num_looks:
            self._num_looks, self._heard = self._machines.num_looks, now
            self._lanes.use_again({machine.node_id for machine in self._machines.alive})
            self._fill()
        try:
            self._machines.check(silent_s=now - self._heard, limit_s=self._settings.silence_s)
        except FleetError:
            self._connection.is_lost = True
            raise

    def _close_lanes(self) -> list[events.LaneLost]:
        """Give up the lanes that no worker can serve any more; their workers serve others from now on."""
        if self._shares.asked == 0:
            self._was_ready = {}
            return []
        lost = []
        for lane in self._lanes_open():
            error = self._hopeless(lane) or self._unready(lane)
            if error is None:
                continue
            self._lanes.closed[lane] = error
            lost.append(events.LaneLost(lane, error))
            for slot in [slot for slot in self._slots.values() if slot.lane == lane]:
                self._forget(slot)
                self._hosts(slot).left(slot.name)
                lost[-1].workers.append(slot.worker)
                slot.state, slot.starts_at = "to start", 0.0
                self._resting.append(slot)
        return lost

    def _hopeless(self, lane: LaneKey) -> FramefleetError | None:
        """Return why no worker of a lane can be started any more; None if one can be, or is alive."""
        hosts, blocked = self._lanes.of(lane), self._lanes.blocked([lane])
        is_placed = any(slot.lane == lane and slot.state != "pending" for slot in self._slots.values())
        slots = [*self._slots.values(), *self._resting, *self._losses.values()]
        # Machines that have gone may come again; `_unready` says for how long they are waited for.
        is_full = bool(blocked) and not hosts.num_gone and self._are_all(blocked)
        is_one_left = any(not hosts.is_barred(slot.name) for slot in slots) and not is_full
        num_workers = max(self._settings.max_workers or 0, self._num_slots)
        problem = hosts.despair(num_workers) if is_placed or is_one_left else NO_MACHINE
        if not problem:
            return None
        return hosts.error or FleetError(
            "\n".join([problem, *hosts.unused]),
            "look for the cause there, then run the same command again to continue",
        )

    def _are_all(self, blocked: Collection[str]) -> bool:
        """Whether there are machines with room for workers, and all of them are blocked."""
        alive, room = self._machines.alive, self._shares.room
        return bool(room(alive)) and not room(alive, but=blocked)

    def _unready(self, lane: LaneKey) -> FleetError | None:
        """Return an error if a lane has waited too long for its first worker, or the next one.

        A lane may wait longer if its workers wait for those of other lanes to end, on machines that it uses.
        """
        now = self._clock.seconds
        slots = [slot for slot in [*self._slots.values(), *self._resting] if slot.lane == lane]
        states = Counter(slot.state for slot in slots)
        is_others_turn = len(slots) == states["pending"] and any(
            slot.host and not self._lanes.is_unfit(lane, slot.name, slot.host)
            for slot in self._slots.values()
        )
        if states["ready"] or is_others_turn:
            self._was_ready[lane] = now
        waited_s = now - self._was_ready.setdefault(lane, now)
        if waited_s <= self._settings.ready_timeout_s:
            return None
        free = f", free: {resources_in_words(self._machines.room.free)}" if states["pending"] else ""
        return FleetError(
            f"no worker was ready for {waited_s:.0f} s: {states['pending']} wait for a machine, "
            f"{states['loading']} load the model, {states['to start']} wait to restart after a fault; each "
            f"needs {self._shares}, the cluster has {machines_in_words(self._machines.alive)}{free}",
            "lower fleet.gpus_per_worker or fleet.cpus_per_worker, or raise fleet.ready_timeout_s",
        )


def _output_of(setups: Mapping[LaneKey, WorkerSetup]) -> str:
    return next(iter(setups.values())).store.url_of("")


def _modules_of(setups: Mapping[LaneKey, WorkerSetup]) -> list[str]:
    recipes = (recipe for setup in setups.values() for recipe in setup.recipes.values())
    return modules_to_ship(recipes, (column for setup in setups.values() for column in setup.columns))
