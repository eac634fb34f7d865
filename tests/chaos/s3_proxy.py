"""An S3 server on the hosts' network that fails when told: it passes requests on to a real one on loopback.

Run as a program by where to listen, in whose network, and the port of the real server. How it fails comes as
lines of JSON on its standard input, with which it ends. The standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from dataclasses import dataclass, replace

from tests.chaos.namespaces import inside

BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 54\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message></Message></Error>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """put_errors: of so many PUTs, as a share, one third is refused as by a busy server, one third cut off
    before, one third after it was carried out. delay_s: before each answer. seed: of what is left to chance.
    """

    put_errors: float = 0.0
    delay_s: float = 0.0
    seed: int = 0


class Proxy:
    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self.faults = Faults()
        self._chance = random.Random()

    def follow(self, line: str) -> None:
        """Fail from now on as a line of JSON says."""
        self.faults = replace(Faults(), **json.loads(line))
        self._chance.seed(self.faults.seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection's requests, one after the other."""
        try:
            above, below = await asyncio.open_connection("127.0.0.1", self._upstream)
            while (request := await _message(reader, writer)) and await self._answer(
                request, above, below, writer
            ):
                pass
        except (OSError, asyncio.IncompleteReadError):  # either end is gone
            pass
        finally:
            writer.transport.abort()  # a reset where something is still under way

    async def _answer(
        self,
        request: bytes,
        above: asyncio.StreamReader,
        below: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Carry a request out and answer it; False where the connection breaks."""
        fault = ""
        if request.startswith(b"PUT ") and self._chance.random() < self.faults.put_errors:
            fault = self._chance.choice(("busy", "before", "after"))
        if fault == "before":
            return False
        if fault == "busy":
            writer.write(BUSY)
            return True
        below.write(request)
        answer = await _message(above, is_of_head=request.startswith(b"HEAD "))
        await asyncio.sleep(self.faults.delay_s)
        if fault == "after":
            return False
        writer.write(answer)
        await writer.drain()
        return True


async def _message(
    reader: asyncio.StreamReader, asker: asyncio.StreamWriter | None = None, *, is_of_head: bool = False
) -> bytes:
    """Return one request or answer as it came; b"" at the end. asker: who may wait to be told to go on."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lines = head.lower().split(b"\r\n")
    fields = dict(line.split(b":", 1) for line in lines[1:] if line)
    if asker and fields.get(b"expect", b"").strip() == b"100-continue":
        asker.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
    if is_of_head or lines[0].split()[1] in (b"204", b"304"):
        return head
    if fields.get(b"transfer-encoding", b"").strip() == b"chunked":
        return head + await _chunks(reader)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        line = await reader.readline()
        size = int(line.split(b";")[0], 16)
        body += line + await reader.readexactly(size + 2)
        if not size:
            return body


async def main(host: int, address: str, port: int, upstream: int) -> None:
    proxy = Proxy(upstream)
    with inside(host):
        listener = socket.create_server((address, port))
    server = await asyncio.start_server(proxy.serve, sock=listener)
    print("ready", flush=True)
    async with server:
        while line := await asyncio.to_thread(sys.stdin.readline):
            proxy.follow(line)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
