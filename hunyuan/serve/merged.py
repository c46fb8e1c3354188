"""The chunks of several answers that are made at the same time, as they come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from hunyuan.engine.request import Chunk
from hunyuan.serve.bridge import Ticket


async def merged(tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, Chunk], None]:
    """Chunks with the place of their ticket, until all have ended; raises what broke one off."""
    if len(tickets) == 1:
        while True:
            chunk = await tickets[0].next()
            yield 0, chunk
            if chunk.finish_reason is not None:
                return
    waits = {asyncio.ensure_future(ticket.next()): i for i, ticket in enumerate(tickets)}
    try:
        while waits:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in sorted(done, key=lambda finished: waits[finished]):
                i = waits.pop(one)
                chunk = one.result()
                if chunk.finish_reason is None:
                    waits[asyncio.ensure_future(tickets[i].next())] = i
                yield i, chunk
    finally:
        for one in waits:
            one.cancel()
