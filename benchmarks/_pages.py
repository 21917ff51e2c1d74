"""A server of pages that costs next to nothing, and the bare loop over them: the limit that a source is held to.

``python -m benchmarks._pages serve PAGES`` prints its port and serves; ``... bare PORT PAGES`` fetches all of them.
"""

from __future__ import annotations

import asyncio
import json
import sys

ROWS = 20
AT_ONCE = 8


def page(number: int, pages: int) -> bytes:
    """One page: some records with a number, texts, a list and an object; none beyond the last page."""
    rows = [
        {
            "id": number * ROWS + row,
            "name": f"customer {row}",
            "at": "2026-01-01T00:00:00Z",
            "amount": row * 1.5,
            "tags": ["a", "b"],
            "address": {"city": "Berlin", "zip": f"{row:05}"},
        }
        for row in range(ROWS)
    ]
    return json.dumps({"items": rows if number < pages else [], "pages": pages}).encode()


async def serve(pages: int) -> None:
    bodies = [page(number, pages) for number in range(pages + 1)]

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport, self.waiting = transport, b""

        def data_received(self, data: bytes) -> None:
            self.waiting += data
            while b"\r\n\r\n" in self.waiting:
                head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
                number = int(head.partition(b"page=")[2].split(b" ")[0])
                body = bodies[min(number, pages)]
                said = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                self.transport.write(said + body)

    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def bare(port: int, pages: int) -> None:
    """Fetch every page and keep nothing."""
    import httpx  # noqa: PLC0415 - the server does not need it

    numbers = iter(range(pages))
    async with httpx.AsyncClient() as client:

        async def fetch() -> None:
            for number in numbers:
                response = await client.get(f"http://127.0.0.1:{port}/items", params={"page": number})
                response.raise_for_status()

        await asyncio.gather(*(fetch() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", pages]:
            asyncio.run(serve(int(pages)))
        case ["bare", port, pages]:
            asyncio.run(bare(int(port), int(pages)))
