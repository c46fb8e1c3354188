"""OpenAI's server-sent events: one object a line, errors too, and ``[DONE]`` at the end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from hunyuan.errors import Language
from hunyuan.serve import errors, streams
from hunyuan.serve.bridge import told


async def openai_events(
    objects: AsyncGenerator[dict[str, Any], None], lang: Language
) -> AsyncGenerator[bytes, None]:
    """``objects`` as events, with comments while nothing comes."""
    try:
        async with aclosing(streams.with_silences(objects, streams.KEEP_ALIVE_SECONDS)) as values:
            async for value in values:
                yield streams.KEEP_ALIVE if value is None else streams.data_event(value)
        yield b"data: [DONE]\n\n"
    except Exception as error:
        # The status is sent already: whatever broke, the client must hear of it as an event.
        yield streams.data_event(errors.body_of(told(error, "a stream of events"), lang))
