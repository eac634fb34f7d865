"""A dispatcher holding rows named by number, and what a worker gets from it, in one line each."""

from __future__ import annotations

from framefleet.cluster.dispatch.dispatcher import Dispatcher, Lease, LeaseSize, Row

MACHINE = "machine"


def dispatcher_with(
    shapes: str,
    *,
    workers: str = "A",
    min_rows: int = 2,
    max_rows: int = 64,
    target_s: float = 60.0,
    leases_per_worker: int = 2,
    closed: bool = False,
    is_proven: bool = False,
) -> Dispatcher:
    """Return a dispatcher holding row "0" of the first letter's shape, row "1" of the second's, ..."""
    size = LeaseSize(min_rows=min_rows, max_rows=max_rows, target_s=target_s)
    dispatcher = Dispatcher(size=size, leases_per_worker=leases_per_worker)
    if is_proven:
        prove(dispatcher)
    for number, shape in enumerate(shapes):
        dispatcher.add(Row(row_id=str(number), shape=shape))
    for worker in workers:
        join(dispatcher, worker)
    if closed:
        dispatcher.close()
    return dispatcher


def prove(dispatcher: Dispatcher) -> None:
    """Have a row done on the machine of all workers: until then no death there counts against a row."""
    dispatcher.add(Row(row_id="proof", shape="proof"))
    join(dispatcher, "prover")
    lease(dispatcher, "prover")
    dispatcher.done("prover", "proof", 0.0)
    dispatcher.lost("prover")


def join(dispatcher: Dispatcher, worker: str) -> None:
    dispatcher.join(worker, at=(MACHINE,))


def lease(dispatcher: Dispatcher, worker: str, now: float = 0.0) -> Lease:
    granted = dispatcher.lease(worker, now)
    assert granted is not None, f"nothing for {worker}"
    return granted


def ids(granted: Lease) -> str:
    return " ".join(leased.row.row_id for leased in granted.rows)
