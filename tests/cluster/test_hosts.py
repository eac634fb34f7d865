"""Three hosts on which something goes wrong: cut off, without S3, powered off; and two drivers on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from framefleet import Store
from tests.jobs import prompt_rows, write_table
from tests.servers import bucket_on
from tests.warm.process import start
from tools.chaos.chaos import chaos_job
from tools.chaos.checks import check, frames_by_seed
from tools.chaos.network import SWITCH, Host, why_not
from tools.chaos.rig import Driver, Rig, rig

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

NUM_ROWS = 12
WITHIN_S = 400.0  # of waiting for what takes a second on a free machine


@pytest.fixture(scope="module")
def hosts(s3_process: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Two workers have room on each: those of a driver that was given up stay a while."""
    with rig(bucket_on(s3_process), tmp_path_factory.mktemp("hosts"), cpus_per_host=2) as made:
        yield made


@pytest.fixture(scope="module")
def table(hosts: Rig) -> Path:
    return write_table(hosts.folder / "rows.parquet", prompt_rows(NUM_ROWS))


@pytest.fixture(scope="module")
def undisturbed(hosts: Rig, table: Path) -> dict[int, str]:
    hosts.start_driver(chaos_job(hosts, table, "undisturbed"), hosts.hosts[0]).finish()
    return frames_by_seed(_output(hosts, "undisturbed"))


@pytest.fixture(autouse=True)
def _whole(hosts: Rig) -> Iterator[None]:
    """Leave the hosts as they were, whatever a test has done to them."""
    hosts.trace.unlink(missing_ok=True)
    yield
    for host in hosts.hosts:
        hosts.open_gate(host)
        hosts.make_well(host)
        host.join()
        host.find(SWITCH)
    for driver in hosts.drivers:
        driver.process.kill()
        driver.process.wait()
    hosts.wait_until_up()


def test_doctor_names_the_machines_that_do_not_reach_each_other(hosts: Rig) -> None:
    _, second, third = hosts.hosts
    second.lose(third.address)
    try:
        ended = start(
            *("-m", "framefleet.jobs.cli", "doctor", "--address", hosts.address, "--json"),
            *("--only", "ports", "--only", "open-files"),
            env={**hosts.s3.env, **hosts.hosts[0].env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said, errors = ended.communicate(timeout=WITHIN_S)
    finally:
        second.find(third.address)
    assert ended.returncode == 1, errors
    found = [json.loads(line) for line in said.splitlines()]
    wrong = [one for one in found if one["state"] == "error"]
    assert len({one["machine"] for one in found}) == len(hosts.hosts)
    assert {one["machine"].split()[0] for one in wrong} == {second.name, third.name}
    assert all("cannot connect to" in one["text"] for one in wrong)


def test_a_worker_behind_a_cut_link_finishes_late_and_changes_nothing(
    hosts: Rig, table: Path, undisturbed: dict[int, str]
) -> None:
    far = hosts.hosts[2]
    _close_gates(hosts)
    driver = hosts.start_driver(chaos_job(hosts, table, "zombie"), hosts.hosts[0])
    _wait_for_rows_on(far, hosts, driver)
    cut_at = time.time()
    held = {one.seed for one in hosts.begun() if one.host == far.name}
    far.cut()
    driver.finish()
    again = [one.at_s - cut_at for one in hosts.begun() if one.seed in held and one.host != far.name]
    print(f"{len(held)} rows were begun again {min(again):.1f} to {max(again):.1f} s after the link was cut")
    store = _output(hosts, "zombie")
    before = _seen(store)
    hosts.open_gate(far)
    far.join()
    time.sleep(5)  # in which it uploads, if it ever does
    assert _seen(store) == before
    assert frames_by_seed(store) == undisturbed


def test_a_driver_that_wakes_after_a_takeover_ends_and_changes_nothing(
    hosts: Rig, table: Path, undisturbed: dict[int, str]
) -> None:
    for host in hosts.hosts:
        hosts.close_gate(host)
    job = chaos_job(hosts, table, "woken")
    old = hosts.start_driver(job, hosts.hosts[1])
    _wait(hosts.begun, old)
    os.kill(old.process.pid, signal.SIGSTOP)
    for host in hosts.hosts:
        hosts.open_gate(host)
    hosts.start_driver(job, hosts.hosts[2]).finish()
    store = _output(hosts, "woken")
    assert frames_by_seed(store) == undisturbed
    before = _seen(store)
    os.kill(old.process.pid, signal.SIGCONT)
    assert old.process.wait(timeout=WITHIN_S) == 3, old.said
    assert _seen(store) == before
    hosts.start_driver(job, hosts.hosts[2]).finish()  # sweeps what its workers may have left in pending/
    check(store, undisturbed)


@pytest.mark.parametrize("harm", ["lost-s3", "sick"])
def test_a_host_where_no_row_can_be_done_is_named_and_its_rows_are_done_elsewhere(
    harm: str, hosts: Rig, table: Path, undisturbed: dict[int, str]
) -> None:
    far = hosts.hosts[2]
    if harm == "sick":
        hosts.make_sick(far)
        retries: dict[str, float] = {"faults": 1}
    else:
        far.lose(SWITCH)
        # With copies, others may end its rows before anybody knows what is wrong with it.
        retries = {"store_outage_s": 5, "copies": False}
    _close_gates(hosts)
    driver = hosts.start_driver(chaos_job(hosts, table, harm, retries=retries), hosts.hosts[0])
    _wait_for_rows_on(far, hosts, driver)  # one that is ready late gets none, and cannot be found out
    hosts.open_gate(far)
    said = driver.finish()
    check(_output(hosts, harm), undisturbed)
    assert far.name in said and (harm != "sick" or "no longer used" in said), said


def test_a_host_that_loses_its_power_comes_back_to_work(
    hosts: Rig, table: Path, undisturbed: dict[int, str]
) -> None:
    far = hosts.hosts[2]
    _close_gates(hosts)
    driver = hosts.start_driver(chaos_job(hosts, table, "power"), hosts.hosts[0])
    _wait_for_rows_on(far, hosts, driver)
    far.kill()
    hosts.open_gate(far)
    hosts.wait_until_up()
    driver.finish()
    check(_output(hosts, "power"), undisturbed)


def _close_gates(hosts: Rig) -> None:
    """Have all rows wait that are begun: who is ready first would render them all."""
    for host in hosts.hosts:
        hosts.close_gate(host)


def _wait_for_rows_on(far: Host, hosts: Rig, driver: Driver) -> None:
    """Wait until that host has begun rows, and open the gates of all others."""
    _wait(lambda: any(one.host == far.name for one in hosts.begun()), driver)
    for host in hosts.hosts:
        if host is not far:
            hosts.open_gate(host)


def _output(hosts: Rig, name: str) -> Store:
    return Store(f"{hosts.s3.server.url}/{name}", hosts.s3.server.storage_options)


def _seen(store: Store) -> dict[str, bytes]:
    """Return what readers see."""
    return {path: store.read(path) for path in store.list("clips") + store.list("records")}


def _wait(until: Callable[[], object], driver: Driver) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not until():
        assert driver.process.poll() is None and time.monotonic() < deadline, driver.said
        time.sleep(0.05)
