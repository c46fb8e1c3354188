"""The backend of a model on another server that speaks OpenAI's API, such as vLLM.

Requests go on as they came, under the upstream's name for the model. What comes back is checked
all the same: a call must be of an offered function with arguments of its schema, a call that was
required must be there, JSON that was asked for must be of its schema.
"""

import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from hunyuan.errors import HunyuanError, Language, UsageError
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.completion_schema import CompletionRequest
from hunyuan.serve.errors import UpstreamError
from hunyuan.serve.schema import ChatRequest, Sampling
from hunyuan.serve.upstream_checks import AnswerCheck

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0
"""How long the upstream may say nothing; a long prompt on a busy server takes minutes."""

CHAT, TEXT = "chat/completions", "completions"


class UpstreamBackend:
    """Answers with ``model`` of the server at ``url``, which ends in ``/v1`` as a rule.

    Raises `UsageError` if ``url`` is none.
    """

    def __init__(self, url: str, model: str, *, api_key: str | None = None) -> None:
        try:
            address = httpx2.URL(url.rstrip("/") + "/")
        except httpx2.InvalidURL:
            address = httpx2.URL("")
        if address.scheme not in ("http", "https") or not address.host:
            raise UsageError(
                f"upstream={url!r}: must be an address such as http://10.0.0.5:8000/v1",
                f"upstream={url!r}：必须是网址，例如 http://10.0.0.5:8000/v1",
            )
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx2.AsyncClient(
            base_url=address,
            headers=headers,
            timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            # A proxy of the environment has no business between two servers of a team, and a
            # redirect could carry the key elsewhere.
            trust_env=False,
            follow_redirects=False,
        )
        self._where = f"{address.host}:{address.port}" if address.port else address.host
        self._card = ModelCard(
            id=model, created=int(time.time()), context=None, parameters=None, local=False
        )

    @property
    def model(self) -> ModelCard:
        """The model that answers."""
        return self._card

    @property
    def failure(self) -> HunyuanError | None:
        """None: whether the upstream answers, only asking shows."""
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(self, request: ChatRequest, lang: Language = "en") -> dict[str, Any]:
        """The whole answer as a ``chat.completion`` object."""
        request.check()
        answer = await self._post(CHAT, request, lang)
        check = AnswerCheck(request)
        for choice in _choices(answer):
            check.whole(choice)
        return answer

    async def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as ``chat.completion.chunk`` objects."""
        request.check()
        check = AnswerCheck(request)
        async for chunk in self._events(CHAT, request, lang):
            for choice in _choices(chunk):
                check.piece(choice)
            yield chunk
        check.end()

    async def complete_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> dict[str, Any]:
        """The whole answer as a ``text_completion`` object."""
        request.check()
        return await self._post(TEXT, request, lang)

    async def stream_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as ``text_completion`` objects, each with a piece."""
        request.check()
        async for piece in self._events(TEXT, request, lang):
            yield piece

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """None: OpenAI's API does not count."""
        return None

    # ------------------------------------------------------------ the wire

    async def _post(self, path: str, request: Sampling, lang: Language) -> dict[str, Any]:
        async with self._answering(path, request, lang) as response:
            content = await response.aread()
        return self._object(content)

    async def _events(
        self, path: str, request: Sampling, lang: Language
    ) -> AsyncGenerator[dict[str, Any], None]:
        done = False
        async with self._answering(path, request, lang) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    done = True
                    break
                value = self._object(data)
                if value.get("error"):
                    raise _refusal(value["error"], 502)
                yield value
        if not done:
            raise self._broken("it ended its answer early", "回答提前结束")

    @asynccontextmanager
    async def _answering(
        self, path: str, request: Sampling, lang: Language
    ) -> AsyncIterator[httpx2.Response]:
        """The response to a request, once its status says that it is one."""
        try:
            async with self._client.stream(
                "POST", path, json=self._body(request), headers={"Accept-Language": lang}
            ) as response:
                if response.status_code >= 300:
                    raise self._refused(response.status_code, await response.aread())
                yield response
        except httpx2.TimeoutException as error:
            raise UpstreamError(
                f"the server {self._where} does not answer; see whether it is overloaded",
                f"服务 {self._where} 没有响应；请检查其是否过载",
                status=504,
                code="upstream_timeout",
            ) from error
        except httpx2.ConnectError as error:
            raise UpstreamError(
                f"the server {self._where} cannot be reached; see whether it runs",
                f"无法连接服务 {self._where}；请检查其是否在运行",
                status=502,
                code="upstream_unreachable",
            ) from error
        except httpx2.HTTPError as error:
            raise self._broken(
                f"the connection broke: {type(error).__name__}", f"连接中断：{type(error).__name__}"
            ) from error

    def _body(self, request: Sampling) -> dict[str, Any]:
        body = request.model_dump(by_alias=True, exclude_none=True)
        return {**body, "model": self._card.id}

    def _object(self, content: bytes | str) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._broken("its answer is no JSON object", "返回的不是 JSON 对象")
        return value

    def _refused(self, status: int, content: bytes) -> UpstreamError:
        try:
            error = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            error = {}
        if status in (401, 403):
            return UpstreamError(
                f"the server {self._where} refuses the key; set HUNYUAN_UPSTREAM_KEY",
                f"服务 {self._where} 拒绝了密钥；请设置 HUNYUAN_UPSTREAM_KEY",
                status=502,
                code="upstream_key_refused",
            )
        if 400 <= status < 500 and isinstance(error, Mapping) and error.get("message"):
            return _refusal(error, status)
        return self._broken(f"it answered with status {status}", f"返回状态码 {status}")

    def _broken(self, en: str, zh: str) -> UpstreamError:
        return UpstreamError(
            f"the server {self._where} failed: {en}",
            f"服务 {self._where} 出错：{zh}",
            status=502,
            code="upstream_failed",
        )


def _choices(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = answer.get("choices") or []
    return [choice for choice in choices if isinstance(choice, dict)]


def _refusal(error: Any, status: int) -> UpstreamError:
    """The upstream's own words, which it has in one language."""
    found = error if isinstance(error, Mapping) else {"message": error}
    message = str(found.get("message"))[:1000]

    def text(name: str) -> str | None:
        value = found.get(name)
        return value[:200] if isinstance(value, str) else None

    return UpstreamError(message, message, status=status, param=text("param"), code=text("code"))
