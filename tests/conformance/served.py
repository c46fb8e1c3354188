"""The whole server on a free port: over a random model, and over one that answers well."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from answers import good_model, good_words
from conftest import random_transformer, write_byte_tokenizer
from oracle import oracle_engine
from scripted import ScriptedBackend
from serving import listening

from hunyuan import Engine
from hunyuan.model.config import preset
from hunyuan.serve.app import create_app
from hunyuan.serve.completion_schema import CompletionRequest
from hunyuan.serve.embeddings import installed_embedders
from hunyuan.serve.host import ModelHost
from hunyuan.tokenizer.load import load_tokenizer


class GoodBackend(ScriptedBackend):
    """Answers conversations as `good_model` does; it continues no plain text."""

    failure = None

    def __init__(self) -> None:
        super().__init__(good_model)

    async def complete_text(self, request: CompletionRequest, *args: Any) -> dict[str, Any]:
        raise NotImplementedError

    async def stream_text(
        self, request: CompletionRequest, *args: Any
    ) -> AsyncIterator[dict[str, Any]]:
        raise NotImplementedError
        yield {}

    async def close(self) -> None:
        """Nothing runs."""


@contextmanager
def served_by_a_good_model() -> Iterator[str]:
    """The address of a server whose model, ``scripted``, answers sensibly."""
    host = ModelHost(lambda metrics: GoodBackend())
    with listening(create_app(host, embedders=installed_embedders())) as address:
        yield address


@contextmanager
def served_by_an_oracle() -> Iterator[str]:
    """The same, ``oracle``, from a real engine that is made to prefer the words of the answer."""
    host = ModelHost.of_engine(oracle_engine(good_words, max_sequences=4), "oracle")
    with listening(create_app(host, embedders=installed_embedders())) as address:
        yield address


@contextmanager
def served_by_a_random_model(folder: Path, **options: Any) -> Iterator[str]:
    """The address of a server whose model, ``tiny``, has random weights and says nonsense."""
    engine = Engine(
        random_transformer(replace(preset("tiny"), context=4096)),
        load_tokenizer(write_byte_tokenizer(folder)),
        max_sequences=4,
    )
    app = create_app(
        ModelHost.of_engine(engine, "tiny"), embedders=installed_embedders(), **options
    )
    with listening(app) as address:
        yield address
