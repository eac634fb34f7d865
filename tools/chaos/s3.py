"""The S3 server of a network: a process that can be made to fail, killed and started again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faulty_s3 import Fault
from tests.servers import S3Server
from tests.warm.process import ROOT
from tools.chaos.network import SWITCH, Host

PORT = 9000


class HostsS3:
    """What hosts reach at `endpoint`. Objects are kept by the server behind it, which nothing befalls."""

    endpoint = f"http://{SWITCH}:{PORT}"

    def __init__(self, server: S3Server, switch: Host) -> None:
        self.server, self._switch = server, switch
        self._process: subprocess.Popen[str] | None = None
        self._fault = Fault()

    @property
    def env(self) -> dict[str, str]:
        """What processes on hosts need to reach it."""
        return {**self.server.env, "AWS_ENDPOINT_URL": self.endpoint}

    def start(self) -> None:
        where = (str(self._switch.pid), SWITCH, str(PORT), self.server.endpoint)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.chaos.s3_process", *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # connections that break off
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.goes_wrong(self._fault)

    def goes_wrong(self, fault: Fault) -> None:
        """Let this go wrong from now on, after a kill too."""
        self._fault = fault
        if self._process is not None:
            assert self._process.stdin is not None
            told = {"kind": fault.kind, "share": fault.share, "methods": sorted(fault.methods)}
            print(json.dumps(told), file=self._process.stdin, flush=True)

    def kill(self) -> None:
        """kill -9: connections break, new ones are refused."""
        if self._process is not None:
            self._process.kill()
            with self._process:
                pass
            self._process = None


@contextmanager
def hosts_s3(server: S3Server, switch: Host) -> Iterator[HostsS3]:
    s3 = HostsS3(server, switch)
    s3.start()
    try:
        yield s3
    finally:
        s3.kill()
