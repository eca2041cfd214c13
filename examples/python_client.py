"""Joins a TinyChat server over TLS, asks for the list of commands, prints what arrives, and leaves.

Needs the websockets library, for example in a virtual environment (docs/protocol.md). Run it where `tinychat
generate-certs` has put ./certs/server.crt, against a server that uses that certificate.
"""

import asyncio
import json
import ssl

import websockets


async def main():
    trust = ssl.create_default_context(cafile="./certs/server.crt")
    async with websockets.connect("wss://localhost:8765", ssl=trust) as server:
        await server.send(json.dumps({"type": "join", "username": "Ada"}))
        await server.send(json.dumps({"type": "command", "content": "/help"}))
        async for text in server:
            message = json.loads(text)
            print(message["type"], message["content"])
            if message["type"] == "system" and message["content"].startswith("Commands:"):
                return True
            if message["type"] == "error":
                return False
    return False


if not asyncio.run(asyncio.wait_for(main(), timeout=10)):
    raise SystemExit("the server did not answer /help")
