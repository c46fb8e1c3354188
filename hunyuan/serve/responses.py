"""OpenAI's ``/v1/responses``: one answer, its events, and the responses kept for the next one."""

import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hunyuan.errors import Language
from hunyuan.serve import errors, streams
from hunyuan.serve.backend import Backend
from hunyuan.serve.bridge import told
from hunyuan.serve.responses_output import Event, ResponseBuilder
from hunyuan.serve.responses_schema import Item, ResponseRequest
from hunyuan.serve.responses_store import ResponseStore
from hunyuan.serve.schema import FieldError


def router(backend: Callable[[str], Backend], store: ResponseStore) -> APIRouter:
    """Routes of responses; ``backend`` gives the one that serves a model, or raises."""
    routes = APIRouter(tags=["responses"])

    @routes.post("/v1/responses", response_model=None)
    async def create(body: ResponseRequest, request: Request) -> Response:
        """Answer an input, whole or as events."""
        lang = errors.language_of(request.headers)
        source = backend(body.model)
        body.refuse_unsupported()
        previous: tuple[Item, ...] = ()
        if body.previous_response_id is not None:
            found = store.get(body.previous_response_id)
            if found is None:
                return _unknown(body.previous_response_id, lang, param="previous_response_id")
            previous = (*found.items, *found.response["output"])
        items = _resolved(body.items(), store)
        chat = body.chat([*previous, *items], len(previous))
        builder = ResponseBuilder(body, source.model)

        def keep() -> None:
            if body.store is not False:
                store.put(builder.response, (*previous, *map(_stored, items)))

        if body.stream:
            chunks = await streams.unless_gone(request, streams.begun(source.stream(chat, lang)))
            return streams.event_stream(_events(builder, chunks, keep, lang))
        answer = await streams.unless_gone(request, source.complete(chat, lang))
        for step in (builder.start(), builder.feed(answer), builder.finish()):
            for _ in step:
                pass
        keep()
        return streams.json_reply(builder.response)

    @routes.get("/v1/responses/{id}", response_model=None)
    async def retrieve(id: str, request: Request, stream: bool = False) -> Response:
        """A response that was kept."""
        lang = errors.language_of(request.headers)
        if stream:
            text = {
                "en": "stream=true: a kept response cannot be replayed as events; leave it out",
                "zh": "stream=true：无法以事件流重放已保存的响应；请去掉该参数",
            }
            return errors.reply(400, text[lang], param="stream", code="invalid_value")
        found = store.get(id)
        return _unknown(id, lang) if found is None else streams.json_reply(found.response)

    @routes.delete("/v1/responses/{id}", response_model=None)
    async def delete(id: str, request: Request) -> Response:
        """Forget a response."""
        lang = errors.language_of(request.headers)
        if not store.delete(id):
            return _unknown(id, lang)
        return streams.json_reply({"id": id, "object": "response", "deleted": True})

    @routes.get("/v1/responses/{id}/input_items", response_model=None)
    async def input_items(
        id: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> Response:
        """What a kept response was made from, the conversation before it included."""
        lang = errors.language_of(request.headers)
        found = store.get(id)
        if found is None:
            return _unknown(id, lang)
        items = list(found.items) if order == "asc" else list(reversed(found.items))
        if after is not None:
            ids = [item["id"] for item in items]
            items = items[ids.index(after) + 1 :] if after in ids else []
        page = items[:limit]
        return streams.json_reply(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else "",
                "last_id": page[-1]["id"] if page else "",
                "has_more": len(items) > limit,
            }
        )

    return routes


async def _events(
    builder: ResponseBuilder,
    chunks: AsyncGenerator[dict[str, Any], None],
    keep: Callable[[], None],
    lang: Language,
) -> AsyncGenerator[bytes, None]:
    number = 0

    def numbered(events: Iterator[Event]) -> Iterator[bytes]:
        nonlocal number
        for event in events:
            yield streams.event({**event, "sequence_number": number})
            number += 1

    for text in numbered(builder.start()):
        yield text
    try:
        async with aclosing(streams.with_silences(chunks)) as items:
            async for chunk in items:
                if chunk is None:
                    yield streams.KEEP_ALIVE
                    continue
                for text in numbered(builder.feed(chunk)):
                    yield text
    except Exception as error:
        # The status is sent already: whatever broke, the client must hear of it as an event.
        known = told(error, "a stream of events")
        for text in numbered(builder.fail("server_error", known.text(lang))):
            yield text
        return
    last = list(numbered(builder.finish()))
    keep()  # before the client hears of the end and may go on from here
    for text in last:
        yield text


def _resolved(items: list[Item], store: ResponseStore) -> list[Item]:
    """``items`` with those that a reference names, as clients send them that rely on the store."""
    resolved = []
    for i, item in enumerate(items):
        if item.get("type") == "item_reference":
            found = store.item(str(item.get("id")))
            if found is None:
                where, shown = f"input.{i}.id", repr(str(item.get("id"))[:80])
                raise FieldError(
                    where,
                    f"{where}={shown}: no such item is kept; send the item itself",
                    f"{where}={shown}：未保存该条目；请直接发送条目内容",
                )
            item = found
        resolved.append(item)
    return resolved


def _stored(item: Item) -> Item:
    """An input item as it is listed later: with an id, and a text as a part."""
    kind = item.get("type", "message")
    prefixes = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
    head = {
        "id": item.get("id") or f"{prefixes.get(kind, 'msg')}_{uuid.uuid4().hex}",
        "type": kind,
        "status": "completed",
    }
    listed = {**item, **head}
    if kind == "reasoning":
        listed.setdefault("summary", [])
    if kind == "message" and isinstance(item["content"], str):
        spoken = item["role"] == "assistant"
        part: dict[str, Any] = {
            "type": "output_text" if spoken else "input_text",
            "text": item["content"],
        }
        listed["content"] = [part | ({"annotations": []} if spoken else {})]
    return listed


def _unknown(id: str, lang: Language, param: str | None = None) -> Response:
    shown = id[:80]
    text = {
        "en": f"there is no response {shown!r}: not kept (store=false), forgotten or deleted; "
        "send the whole conversation as input",
        "zh": f"没有响应 {shown!r}：未保存（store=false）、已过期或已删除；"
        "请在 input 中发送完整对话",
    }
    if param is not None:
        return errors.reply(400, text[lang], param=param, code="previous_response_not_found")
    return errors.reply(404, text[lang], code="response_not_found")
