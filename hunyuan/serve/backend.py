"""The seam between everything that shows answers and whatever makes them.

The local engine and any OpenAI-compatible server look the same from here: they take OpenAI's chat
request and give OpenAI's chat objects. The routes under ``/v1`` pass these on; the workbench reads
them.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from hunyuan.errors import HunyuanError, Language
from hunyuan.serve.completion_schema import CompletionRequest
from hunyuan.serve.schema import ChatRequest


class UnknownModelError(HunyuanError):
    """A model that is not served here."""


class UnsupportedError(HunyuanError):
    """Something this backend cannot do, though others can."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of the model that answers."""

    id: str
    created: int
    """Seconds since 1970."""

    context: int | None
    """Tokens of prompt and answer; None where an upstream does not say."""

    parameters: int | None = None
    local: bool = True


class Backend(Protocol):
    """A model that answers conversations.

    Every method raises `HunyuanError` subclasses, which `hunyuan.serve.errors.reply_to` turns into
    responses. Cancelling the awaiting task or closing the generator ends the generation.
    """

    @property
    def model(self) -> ModelCard:
        """The model that answers now."""

    async def complete(self, request: ChatRequest, lang: Language = "en") -> dict[str, Any]:
        """The whole answer as a ``chat.completion`` object."""

    def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as ``chat.completion.chunk`` objects, as OpenAI orders them.

        Who stops reading before the end closes it, which ends the generation at once. Refusals
        are raised by the first step, before any chunk. The usage chunk comes if
        ``stream_options.include_usage`` asks for it; no ``[DONE]``.
        """

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Tokens of the prompt of ``request``; None where an upstream cannot say."""


class ServedBackend(Backend, Protocol):
    """What the server needs of a backend besides conversations."""

    @property
    def failure(self) -> HunyuanError | None:
        """Why no request can be served, or None."""

    async def complete_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> dict[str, Any]:
        """The whole answer as a ``text_completion`` object."""

    def stream_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as ``text_completion`` objects, each with a piece; as `stream`."""

    async def close(self) -> None:
        """End what runs; open requests get an error. May be repeated."""
