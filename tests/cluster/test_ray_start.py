"""Where Ray does not start: a dead process is noticed, its last words are shown, and it is tried again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import ray

from framefleet.cluster.fleet import ray_start
from framefleet.cluster.fleet.connection import connect
from framefleet.pipeline.errors import FleetError

# Fails until it was started a number of times, logging as the real one does, with a stack trace.
SICK = """#!/bin/sh
echo >> {tries}
[ $(wc -l < {tries}) -gt {num_sick} ] && exec {real} "$@"
for word; do case "$word" in --log_dir=*) logs="${{word#--log_dir=}}";; esac; done
printf 'C: Timed out waiting for it\\n*** StackTrace Information ***\\n/bin/x\\n' > "$logs/{name}.err"
{end}
"""


@pytest.fixture
def tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ray_start, "RETRY_AFTER_S", 0.1)
    return tmp_path / "tries"


def make_sick(
    tries: Path, monkeypatch: pytest.MonkeyPatch, *, num_sick: int, end: str, name: str = "raylet"
) -> None:
    services, attribute = ray._private.services, f"{name.upper()}_EXECUTABLE"
    real = getattr(services, attribute)
    script = tries.with_name(name)
    script.write_text(SICK.format(tries=tries, num_sick=num_sick, end=end, real=real, name=name))
    script.chmod(0o700)
    monkeypatch.setattr(services, attribute, str(script))


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_start_that_is_killed_is_tried_again(
    name: str, tries: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_sick(tries, monkeypatch, num_sick=1, end=f"touch {tries}.died; kill -KILL $$", name=name)
    with caplog.at_level(logging.WARNING), connect(None, num_cpus=1):
        assert ray.is_initialized()
    warned_at = next(one.created for one in caplog.records if "trying again" in one.getMessage())
    died_at = tries.with_name("tries.died").stat().st_mtime
    assert warned_at - died_at < min(ray_start.PATIENCE_S)  # nobody waited for the dead one
    assert f"its {name} ended with SIGKILL" in caplog.text
    assert "Timed out waiting for it" in caplog.text
    assert "StackTrace" not in caplog.text
    assert len(tries.read_text().splitlines()) == 2


def test_a_raylet_that_always_ends_is_said_to_after_three_tries(
    tries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sick(tries, monkeypatch, num_sick=9, end="exit 7")
    with pytest.raises(FleetError, match="its raylet ended with exit code 7") as caught:
        connect(None, num_cpus=1).__enter__()
    assert "Timed out waiting for it" in caught.value.problem
    assert len(tries.read_text().splitlines()) == 3
    assert not ray.is_initialized()


def test_one_that_is_slow_is_given_up_and_the_next_may_take_longer(
    tries: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_start, "PATIENCE_S", (10.0, 60.0, 60.0))  # the first also of gcs_server
    make_sick(tries, monkeypatch, num_sick=1, end="exec sleep 600")
    with caplog.at_level(logging.WARNING), connect(None, num_cpus=1):
        slow = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_slow(Path("/proc", pid))]
    assert "its raylet was not ready after 10 s" in caplog.text
    assert not slow, "the first one was ended"


def is_slow(process: Path) -> bool:
    """Whether it is a sleeping child of this process."""
    try:
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        return parent == str(os.getpid()) and (process / "comm").read_text() == "sleep\n"
    except OSError:
        return False


def test_a_cluster_of_our_own_ends_by_itself_and_is_not_killed_after_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connect(None, num_cpus=1):
        processes = ray._private.worker._global_node.all_processes
        raylet = processes["raylet"][0].process
        wait = raylet.wait  # Ray waits a second, in which a busy machine may not come to it
        monkeypatch.setattr(raylet, "wait", lambda timeout=None: wait(30))
    assert raylet.returncode == 0  # -9 if Ray had to kill it
