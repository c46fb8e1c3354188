"""The HTTP interface: OpenAI's models and chat completions, health, and the page."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from hunyuan.engine.request import Chunk, Completion, TokenLogprob
from hunyuan.errors import HunyuanError, Language
from hunyuan.serve import errors
from hunyuan.serve.bridge import Bridge, Ticket
from hunyuan.serve.guard import Guard
from hunyuan.serve.schema import ChatRequest
from hunyuan.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine

STATIC = Path(__file__).parent / "static"
KEEP_ALIVE_SECONDS = 5.0


def create_app(
    engine: "Engine",
    model_id: str,
    *,
    host: str = "127.0.0.1",
    api_key: str | None = None,
    max_waiting: int = 64,
) -> FastAPI:
    """The application serving ``engine`` as ``model_id``.

    ``host`` is the address it will listen on (the Host header is checked on loopback), ``api_key``
    what requests under /v1 must carry. The engine thread lives as long as the application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.bridge = Bridge(engine, max_waiting=max_waiting)
        try:
            yield
        finally:
            await stop_engine(app)

    # The interactive documentation of FastAPI loads scripts from elsewhere; the schema stays.
    app = FastAPI(title="hunyuan", docs_url=None, redoc_url=None, lifespan=lifespan)
    created = int(time.time())

    @app.get("/health")
    async def health(request: Request) -> JSONResponse:
        failure = app.state.bridge.failure
        if failure is not None:
            return errors.reply_to(failure, _language(request))
        return JSONResponse({"status": "ok"})

    def card() -> dict[str, Any]:
        return {
            "id": model_id,
            "object": "model",
            "created": created,
            "owned_by": "hunyuan",
            "context_length": engine.context,
        }

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name:path}", response_model=None)
    def model(name: str, request: Request) -> dict[str, Any] | Response:
        return card() if name == model_id else _unknown_model(name, model_id, _language(request))

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        lang = _language(request)
        if body.model != model_id:
            return _unknown_model(body.model, model_id, lang)
        bridge: Bridge = app.state.bridge
        ticket = await bridge.start(body.conversation(), body.params())
        answer = Answer(model_id, engine.tokenizer, ticket)
        if body.stream:
            return StreamingResponse(
                answer.events(bridge, body.include_usage, lang),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        return await answer.whole(bridge, request)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _add_error_handlers(app)
    app.add_middleware(Guard, host=host, api_key=api_key)
    return app


async def stop_engine(app: FastAPI) -> None:
    """End the engine thread of an application of `create_app`; open streams end with an error."""
    await asyncio.to_thread(app.state.bridge.stop)


class Answer:
    """One chat completion in OpenAI's form, whole or as events."""

    def __init__(self, model_id: str, tokenizer: Tokenizer, ticket: Ticket) -> None:
        self._ticket = ticket
        self._tokenizer = tokenizer
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model_id,
        }

    async def whole(self, bridge: Bridge, request: Request) -> Response:
        """The complete answer; gives up when the client does."""
        finished = asyncio.create_task(self._finished())
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait((finished, gone), return_when=asyncio.FIRST_COMPLETED)
            if not finished.done():
                return Response(status_code=499)  # nobody is there to read it
            completion = finished.result()
        finally:
            bridge.cancel(self._ticket)
            finished.cancel()
            gone.cancel()
        logprobs = None
        if self._ticket.params.logprobs is not None:
            logprobs = {"content": [self._logprob(entry) for entry in completion.logprobs]}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": completion.text, "refusal": None},
            "logprobs": logprobs,
            "finish_reason": completion.finish_reason,
        }
        return JSONResponse(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [choice],
                "usage": self._usage(),
            }
        )

    async def events(
        self, bridge: Bridge, include_usage: bool, lang: Language
    ) -> AsyncIterator[str]:
        """Server-sent events: role, text, finish reason, usage if asked for, [DONE]."""
        try:
            yield self._event({"role": "assistant", "content": ""}, None, include_usage)
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        chunk = await self._ticket.next()
                except TimeoutError:
                    yield ": keep-alive\n\n"
                    continue
                if chunk.text or chunk.logprob is not None:
                    yield self._event({"content": chunk.text}, chunk, include_usage)
                if chunk.finish_reason is not None:
                    yield self._event({}, Chunk("", None, None, chunk.finish_reason), include_usage)
                    break
            if include_usage:
                last = {**self._head, "object": "chat.completion.chunk", "choices": []}
                yield _data({**last, "usage": self._usage()})
            yield "data: [DONE]\n\n"
        except HunyuanError as error:
            yield _data(errors.body(error.text(lang), "server_error", code="server_error"))
        finally:
            # Also when the client has gone: frees the request's place at once.
            bridge.cancel(self._ticket)

    async def _finished(self) -> Completion:
        while (await self._ticket.next()).finish_reason is None:
            pass
        assert self._ticket.request is not None
        return self._ticket.request.completion()

    def _event(self, delta: dict[str, Any], chunk: Chunk | None, usage: bool) -> str:
        logprobs = None
        if chunk is not None and chunk.logprob is not None:
            logprobs = {"content": [self._logprob(chunk.logprob)]}
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": chunk.finish_reason if chunk is not None and not delta else None,
        }
        event = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return _data({**event, "usage": None} if usage else event)

    def _usage(self) -> dict[str, Any]:
        request = self._ticket.request
        assert request is not None
        prompt, answer = len(request.prompt), len(request.generated)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }

    def _logprob(self, entry: TokenLogprob) -> dict[str, Any]:
        return {
            **self._token(entry.token, entry.logprob),
            "top_logprobs": [self._token(token, value) for token, value in entry.top],
        }

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self._tokenizer.token_bytes(token)
        # JSON has no minus infinity; OpenAI's own floor for "impossible" is -9999.
        value = max(logprob, -9999.0)
        return {"token": raw.decode("utf-8", "replace"), "logprob": value, "bytes": list(raw)}


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _disconnected(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _language(request: Request) -> Language:
    return errors.language_of(request.headers.get("accept-language"))


def _unknown_model(name: str, known: str, lang: Language) -> Response:
    text = {
        "en": f"model {name!r} is not served here; use {known!r}",
        "zh": f"本服务没有模型 {name!r}；请使用 {known!r}",
    }
    return errors.reply(404, text[lang], param="model", code="model_not_found")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(HunyuanError)
    async def ours(request: Request, error: HunyuanError) -> Response:
        return errors.reply_to(error, _language(request))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Where a field may have several types pydantic reports each; the deepest was meant.
        first = max(error.errors(), key=lambda found: len(found["loc"]))
        parts = [str(part) for part in first["loc"] if part != "body"]
        # Beside names and places the location tells which member of a union was tried.
        where = ".".join(p for p in parts if p not in ("str", "[key]") and "list[" not in p)
        chinese = _language(request) == "zh"
        if first["type"] == "json_invalid":
            text = "请求体不是有效的 JSON" if chinese else "the body is not valid JSON"
            return errors.reply(400, text, code="invalid_json")
        text = f"{where}：无效（{first['msg']}）" if chinese else f"{where}: {first['msg']}"
        return errors.reply(400, text, param=where or None, code="invalid_value")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path, method = request.url.path[:80], request.method
        ours: dict[int, dict[Language, str]] = {
            404: {"en": f"there is nothing at {path}", "zh": f"{path} 不存在"},
            405: {"en": f"{path} does not answer {method}", "zh": f"{path} 不支持 {method} 方法"},
        }
        text = ours.get(error.status_code, {}).get(_language(request), str(error.detail))
        code = "request_too_large" if error.status_code == 413 else None
        return errors.reply(error.status_code, text, code=code, headers=error.headers)
