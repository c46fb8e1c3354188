"""Requests to the model: made of a conversation, within what it can read, and read as text."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from hunyuan.errors import Language
from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import MAX_MESSAGES, ChatRequest
from hunyuan.workbench.conversation_records import Settings, Trimmed
from hunyuan.workbench.refusal import RefusedError

Turn = dict[str, Any]

_ANSWER_ROOM = 256
"""Tokens kept free for an answer, unless the settings say more; an eighth of a small context."""


def chat_request(
    backend: Backend, turns: Sequence[Mapping[str, Any]], settings: Settings
) -> ChatRequest:
    """The request for the backend's own model, streamed, with usage."""
    return ChatRequest.model_validate(
        {
            "model": backend.model.id,
            "messages": [dict(turn) for turn in turns],
            "stream": True,
            "stream_options": {"include_usage": True},
            **settings.model_dump(exclude_none=True),
        }
    )


async def pieces(
    backend: Backend, request: ChatRequest, lang: Language
) -> AsyncGenerator[str, None]:
    """The text of an answer as it comes; closing ends the generation."""
    async with aclosing(backend.stream(request, lang)) as stream:
        async for chunk in stream:
            for choice in chunk.get("choices") or ():
                if piece := (choice.get("delta") or {}).get("content"):
                    yield piece


def available_tokens(backend: Backend, settings: Settings) -> int | None:
    """Tokens a prompt may have so that there is room for an answer; None: nobody knows."""
    context = backend.model.context
    if context is None:
        return None
    room = min(_ANSWER_ROOM, context // 8) if settings.max_tokens is None else settings.max_tokens
    return max(context - room, 0)


async def fitted(
    backend: Backend, turns: list[Turn], settings: Settings, *, trim: bool
) -> tuple[list[Turn], Trimmed | None]:
    """``turns`` if they fit; otherwise without the earliest ones, if ``trim`` allows it.

    The system prompt and the last turn always stay, and what is left begins with a question.
    Raises `RefusedError` with both numbers.
    """
    if len(turns) > MAX_MESSAGES and not trim:
        raise RefusedError(
            f"the conversation has {len(turns)} messages, a request holds {MAX_MESSAGES}; leave "
            "out earlier ones",
            f"对话共 {len(turns)} 条消息，一次请求最多 {MAX_MESSAGES} 条；请略去较早的消息",
            code="context_length_exceeded",
            param="messages",
            extra={"needed": len(turns), "available": MAX_MESSAGES},
        )
    available = available_tokens(backend, settings)
    needed = await count(backend, turns)
    fits = available is None or needed is None or needed <= available
    if fits and len(turns) <= MAX_MESSAGES:
        return turns, None
    head = turns[:1] if turns[0]["role"] == "system" else []
    rest = turns[len(head) :]
    first = max(1, len(turns) - MAX_MESSAGES)
    starts = [i for i in range(first, len(rest)) if rest[i]["role"] == "user"]

    async def fitting(i: int) -> bool:
        tokens = await count(backend, [*head, *rest[i:]])
        return available is None or tokens is None or tokens <= available

    if trim and (start := await _first(starts, fitting)) is not None:
        kept = [*head, *rest[start:]]
        left = await count(backend, kept) or 0
        return kept, Trimmed(messages=start, tokens=(needed or 0) - left)
    assert needed is not None
    assert available is not None
    raise overflow(needed, available, can_trim=not trim and bool(starts))


def overflow(needed: int, available: int, *, can_trim: bool) -> RefusedError:
    """What a conversation is refused with that does not fit."""
    remedy = "shorten it, or leave out earlier messages" if can_trim else "shorten it"
    remedy_zh = "请缩短内容，或略去较早的消息" if can_trim else "请缩短内容"
    return RefusedError(
        f"the conversation needs {needed} tokens, {available} fit beside an answer; {remedy}, "
        "lower the longest answer, or use a model with a larger context",
        f"对话需要 {needed} 个词元，除回答外只能容纳 {available} 个；{remedy_zh}、"
        "减小最长回答，或换用上下文更大的模型",
        code="context_length_exceeded",
        param="messages",
        extra={"needed": needed, "available": available},
    )


async def count(backend: Backend, turns: Sequence[Turn]) -> int | None:
    """Tokens of ``turns`` as a prompt; None where nobody knows."""
    total = 0
    for start in range(0, len(turns), MAX_MESSAGES):
        part = chat_request(backend, turns[start : start + MAX_MESSAGES], Settings())
        tokens = await backend.count_tokens(part)
        if tokens is None:
            return None
        total += tokens
    return total


async def _first(starts: list[int], fits: Callable[[int], Awaitable[bool]]) -> int | None:
    """The earliest start that fits, by halving: later ones leave less."""
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        if await fits(starts[middle]):
            high = middle
        else:
            low = middle + 1
    return starts[low] if low < len(starts) else None
