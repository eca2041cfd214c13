#!/usr/bin/env python3
"""Runs examples/resuming_client.py twice, through a proxy that cuts all connections again and again, and checks that
what one client says reaches the other once and in order.

Usage: resuming_client_test.py TINYCHAT CLIENT. Run it with a Python that has the websockets library.
"""

import asyncio
import os
import re
import sys
import tempfile

CUTS = 20
LINES_PER_CUT = 20
# Seconds. Only a hang takes this long, even on a busy machine.
TIMEOUT = 300


class Proxy:
    """Forwards connections on 127.0.0.1 to a port."""

    def __init__(self, port):
        self.port = port
        self.writers = set()

    async def start(self):
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        return server, server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self.forward(reader, server_writer), self.forward(server_reader, writer))

    async def forward(self, reader, writer):
        self.writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()
        self.writers.discard(writer)

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()


class Client:
    """A client's process."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.has_printed = asyncio.Condition()
        self.reading = asyncio.create_task(self.read())

    @classmethod
    async def start(cls, path, port, name):
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, path, f"ws://127.0.0.1:{port}", name]
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))

    async def read(self):
        async for line in self.process.stdout:
            async with self.has_printed:
                self.lines.append(line.decode().rstrip("\n"))
                self.has_printed.notify_all()

    async def wait_for(self, line):
        async with self.has_printed:
            await self.has_printed.wait_for(lambda: line in self.lines)

    def say(self, line):
        self.process.stdin.write(f"{line}\n".encode())

    async def leave(self):
        self.process.stdin.close()
        status = await self.process.wait()
        assert status == 0, f"the client has exited with {status}"
        await self.reading


async def converse(proxy, port, path):
    ada = await Client.start(path, port, "Ada")
    await ada.wait_for("System: Ada joined.")
    bob = await Client.start(path, port, "Bob")
    await bob.wait_for("System: Bob joined.")
    await ada.wait_for("System: Bob joined.")
    said = [f"line {number}" for number in range(CUTS * LINES_PER_CUT)]
    for start in range(0, len(said), LINES_PER_CUT):
        for line in said[start : start + LINES_PER_CUT]:
            ada.say(line)
        # Some of the lines have arrived.
        await bob.wait_for(f"Ada: {said[start]}")
        proxy.cut()
    said.append("the end")
    ada.say(said[-1])
    await bob.wait_for(f"Ada: {said[-1]}")
    await ada.leave()
    await bob.leave()
    for client in (ada, bob):
        received = [line for line in client.lines if line.startswith("Ada: ")]
        assert received == [f"Ada: {line}" for line in said], client.lines
    print(f"{len(said)} lines have arrived once and in order, through {CUTS} cuts")


async def main(tinychat, path):
    settings = {"PORT": "0", "MESSAGE_RATE": "0", "RESUME_SECONDS": "3600"}
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            tinychat, cwd=folder, env=os.environ | settings, stderr=asyncio.subprocess.PIPE
        )
        try:
            address = None
            while not address:
                address = re.search(rb"running: ws://127.0.0.1:(\d+)", await server.stderr.readline())
            log = asyncio.create_task(server.stderr.read())
            proxy = Proxy(int(address[1]))
            listener, port = await proxy.start()
            async with listener:
                await converse(proxy, port, path)
        finally:
            server.terminate()
            await server.wait()
        await log


os.environ["WEBSOCKETS_BACKOFF_INITIAL_DELAY"] = "0.1"
asyncio.run(asyncio.wait_for(main(*map(os.path.abspath, sys.argv[1:])), TIMEOUT))
