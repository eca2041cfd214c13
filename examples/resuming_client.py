"""Says what is typed and prints what is said, across lost connections: resuming_client.py ws://localhost:8765 Ada"""

import asyncio
import json
import secrets
import sys

import websockets


class Client:
    def __init__(self, url, name):
        self.url, self.name = url, name
        self.position = {"history": 50}  # what the next join asks for
        self.outbox = {}  # messages that may not have arrived, by txn_id, oldest first
        self.socket, self.sending = None, asyncio.Lock()  # the socket is set while messages may be sent

    async def read_input(self):
        lines, loop = asyncio.StreamReader(), asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            await self.say(line.decode().strip())
        while True:
            if self.socket and not self.outbox:
                await self.socket.close()  # with code 1000, so that the member leaves at once
            await asyncio.sleep(0.1)

    async def say(self, content):
        async with self.sending:
            txn_id = secrets.token_urlsafe(12)
            self.outbox[txn_id] = {"type": "public", "content": content, "txn_id": txn_id}
            if self.socket:  # if this fails, it is sent again after the next join
                await asyncio.gather(self.socket.send(json.dumps(self.outbox[txn_id])), return_exceptions=True)

    async def run(self):
        self.reading = asyncio.create_task(self.read_input())
        async for socket in websockets.connect(self.url, ping_interval=5, ping_timeout=10):
            try:
                return await self.converse(socket)
            except websockets.ConnectionClosed as closed:
                self.socket = None
                if closed.rcvd and closed.rcvd.code in (1000, 4001):  # this client has left, or another has its place
                    return closed.rcvd.code == 4001

    async def converse(self, socket):
        live, since, epoch = [], self.position.get("since"), self.position.get("epoch")
        answer = await self.ask(socket, live, "history", "error", type="join", username=self.name, **self.position)
        if answer["type"] == "error":
            return answer["content"]
        missed = {message["id"]: message for message in answer["messages"]}
        if answer.get("recovered") is False and answer["epoch"] == epoch:  # page back to what is known
            page = {"messages": [{"id": answer["id"] + 1}], "more": True}
            while page["more"] and (oldest := page["messages"][0]["id"]) > since:
                page = await self.ask(socket, live, "history", type="history", before=oldest, limit=200)
                missed |= {message["id"]: message for message in page["messages"] if message["id"] > since}
        self.position = {"epoch": answer["epoch"], "since": answer["id"], "session": answer["session"]}
        for message in [missed[id] for id in sorted(missed)] + live:
            self.receive(message)
        async with self.sending:
            for message in self.outbox.values():  # those that are not in the history
                await socket.send(json.dumps(message))
            self.socket = socket
        while True:
            self.receive(json.loads(await socket.recv()))

    async def ask(self, socket, live, *answers, **request):
        await socket.send(json.dumps(request))
        while (message := json.loads(await socket.recv()))["type"] not in answers:
            live.append(message)
        return message

    def receive(self, message):
        self.position["since"] = max(self.position["since"], message.get("id", 0))
        shown = {"username": message.get("from", self.name)} | self.outbox.pop(message.get("txn_id"), {}) | message
        if message["type"] not in ("user_list", "command_list"):
            print(f"{shown['username']}: {shown['content']}", flush=True)


sys.exit(asyncio.run(Client(*sys.argv[1:]).run()))
