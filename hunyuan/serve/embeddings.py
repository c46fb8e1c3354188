"""OpenAI's ``/v1/embeddings``: texts as vectors, by the model that is served or one made for it."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from hunyuan.serve import errors, streams
from hunyuan.serve.schema import FieldError, Lenient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hunyuan.knowledge.embedder import Embedder

    Vectors = NDArray[np.float32]

MAX_INPUTS = 2048

Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
Tokens = Annotated[list[int], Field(min_length=1)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)]


class EmbeddingRequest(Lenient):
    """POST /v1/embeddings."""

    model: str
    input: str | Texts | Tokens | TokenLists
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: Literal["query", "passage"] | None = None
    """For models that tell questions from documents; a prefix in the text says it too."""


@dataclass(frozen=True)
class Embedded:
    """Vectors (inputs, dimensions), each of length one, and the tokens that were read."""

    vectors: "Vectors"
    tokens: int


class EmbeddingModel(Protocol):
    """What makes vectors of inputs."""

    @property
    def id(self) -> str:
        """Its name in requests."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    async def embed(
        self, inputs: Sequence[str] | Sequence[Sequence[int]], input_type: str | None
    ) -> Embedded:
        """Vectors of texts or of token lists; raises `HunyuanError` for what it cannot read."""


class SentenceEmbeddings:
    """A model made for retrieval, of the e5 family: it tells questions from documents.

    By e5's own convention texts may begin with ``query: `` or ``passage: ``; without either, and
    without ``input_type``, all are taken as queries, which is right for comparing like with like.
    """

    MAX_TOKENS = 8192

    def __init__(self, embedder: "Embedder", id: str) -> None:
        self._embedder = embedder
        # Of its own: a few long requests would take all threads that the other places share.
        self._thread = ThreadPoolExecutor(1, "embeddings")
        self._id = id

    @property
    def id(self) -> str:
        """Its name in requests."""
        return self._id

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._embedder.dimensions

    async def embed(
        self, inputs: Sequence[str] | Sequence[Sequence[int]], input_type: str | None
    ) -> Embedded:
        """Vectors of texts; `FieldError` for token lists and what is longer than it reads."""
        texts = [text for text in inputs if isinstance(text, str)]
        if len(texts) < len(inputs):
            raise FieldError(
                "input",
                f"input: {self.id} takes texts, not token ids; send strings "
                "(LangChain: check_embedding_ctx_length=False)",
                f"input：{self.id} 只接受文本，不接受词元编号；请发送字符串"
                "（LangChain：check_embedding_ctx_length=False）",
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._embed, texts, input_type)

    def _embed(self, texts: list[str], input_type: str | None) -> Embedded:
        import numpy as np

        kinds, plain = zip(*(_prefixed(text, input_type) for text in texts), strict=True)
        counts = [self._embedder.count_tokens([text]) for text in plain]
        for i, count in enumerate(counts):
            if count > self.MAX_TOKENS:
                raise FieldError(
                    f"input.{i}",
                    f"input.{i}: {count} tokens, and {self.id} reads {self.MAX_TOKENS}; split it",
                    f"input.{i}：{count} 个词元，而 {self.id} 最多读 {self.MAX_TOKENS} 个；请拆分",
                )
        vectors = np.empty((len(plain), self.dimensions), np.float32)
        embed = {"query": self._embedder.embed_queries, "passage": self._embedder.embed_passages}
        for kind, work in embed.items():
            rows = [i for i, found in enumerate(kinds) if found == kind]
            if rows:
                vectors[rows] = work([plain[i] for i in rows])
        return Embedded(vectors, sum(counts))


def installed_embedders() -> list[EmbeddingModel]:
    """The embedding model of the extra ``embed``, if it is installed and can run here."""
    from hunyuan.knowledge.embedder import find_embedder

    found = find_embedder()
    return [] if found is None else [SentenceEmbeddings(found, "multilingual-e5-small")]


def router(models: Callable[[], Sequence[EmbeddingModel]]) -> APIRouter:
    """The route of embeddings by the ``models`` there are at the moment."""
    routes = APIRouter(tags=["embeddings"])

    @routes.post("/v1/embeddings", response_model=None)
    async def create(body: EmbeddingRequest, request: Request) -> Response:
        """Vectors of texts or token lists, in their order."""
        known = {model.id: model for model in models()}
        model = known.get(body.model)
        if model is None:
            lang = errors.language_of(request.headers)
            listed = ", ".join(known) or "-"
            text = {
                "en": f"model {body.model[:80]!r} makes no embeddings here; use one of: {listed}",
                "zh": f"模型 {body.model[:80]!r} 在此不提供向量；可用：{listed}",
            }
            return errors.reply(404, text[lang], param="model", code="model_not_found")
        if body.dimensions not in (None, model.dimensions):
            raise FieldError(
                "dimensions",
                f"dimensions={body.dimensions}: {model.id} has {model.dimensions}, and was not "
                "trained to be cut shorter; leave it out",
                f"dimensions={body.dimensions}：{model.id} 的向量为 {model.dimensions} 维，"
                "且未针对截短进行训练；请去掉该字段",
            )
        found = await streams.unless_gone(
            request, model.embed(_inputs(body.input), body.input_type)
        )
        encode = _base64 if body.encoding_format == "base64" else _floats
        data = [
            {"object": "embedding", "index": i, "embedding": encode(vector)}
            for i, vector in enumerate(found.vectors)
        ]
        usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
        return JSONResponse({"object": "list", "data": data, "model": model.id, "usage": usage})

    return routes


def _inputs(given: str | list[str] | list[int] | list[list[int]]) -> list[Any]:
    """One input or many as many."""
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    for i, text in enumerate(inputs):
        if not text:
            where = f"input.{i}"
            raise FieldError(where, f"{where}: is empty; give a text", f"{where}：为空；请给出文本")
    return list(inputs)


def _prefixed(text: str, input_type: str | None) -> tuple[str, str]:
    for kind in ("query", "passage"):
        if text.startswith(f"{kind}: "):
            return kind, text.removeprefix(f"{kind}: ")
    return input_type or "query", text


def _floats(vector: "NDArray[np.float32]") -> list[float]:
    return vector.tolist()  # type: ignore[no-any-return]


def _base64(vector: "NDArray[np.float32]") -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
