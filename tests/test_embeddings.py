"""Embeddings and the counting of tokens, as OpenAI's client and a plain one meet them."""

import base64
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from serving import app_of, http, listening, openai_client

from hunyuan.errors import HunyuanError
from hunyuan.serve import embeddings, tokens
from hunyuan.serve.embeddings import SentenceEmbeddings
from hunyuan.serve.tokens import Vocabulary
from hunyuan.tokenizer.tokenizer import Tokenizer


class Letters:
    """An embedder that counts letters; a question differs from a document in one place."""

    id = "letters"
    dimensions = 27

    def embed_queries(self, texts: Sequence[str]) -> Any:
        return self._embed(texts, 1)

    def embed_passages(self, texts: Sequence[str]) -> Any:
        return self._embed(texts, 2)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text) for text in texts)

    def _embed(self, texts: Sequence[str], kind: int) -> Any:
        rows = [[kind, *(text.count(chr(97 + i)) for i in range(26))] for text in texts]
        vectors = np.array(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    models = [SentenceEmbeddings(Letters(), "letters")]
    with listening(app_of(embeddings.router(lambda: models))) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai_client(address)


def test_one_text_and_many_have_the_same_vectors(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="letters", input="abc", encoding_format="float")
    many = client.embeddings.create(model="letters", input=["xyz", "abc"], encoding_format="float")
    assert [entry.index for entry in many.data] == [0, 1]
    assert one.data[0].embedding == many.data[1].embedding != many.data[0].embedding
    assert np.linalg.norm(one.data[0].embedding) == pytest.approx(1)
    assert (one.usage.prompt_tokens, many.usage.total_tokens) == (3, 6)


def test_base64_is_little_endian_float32(client: openai.OpenAI, address: str) -> None:
    plain = client.embeddings.create(model="letters", input="abc", encoding_format="float")
    with http(address) as raw:
        body = {"model": "letters", "input": "abc", "encoding_format": "base64"}
        text = raw.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert list(struct.unpack("<27f", base64.b64decode(text))) == plain.data[0].embedding
    # What the client does by itself, as it asks for base64 and decodes it.
    loose = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    assert loose.embeddings.create(model="letters", input="abc").data == plain.data


def test_questions_and_documents_are_told_apart(client: openai.OpenAI) -> None:
    def vector(text: str, **extra: str) -> list[float]:
        found = client.embeddings.create(
            model="letters", input=text, encoding_format="float", extra_body=extra
        )
        return found.data[0].embedding

    assert vector("abc") == vector("query: abc") == vector("abc", input_type="query")
    assert vector("passage: abc") == vector("abc", input_type="passage")
    assert vector("abc") != vector("passage: abc")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1], [2]]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a" * 8193}, "input"),
        ({"input": "a", "dimensions": 8}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    for language in ("en", "zh"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(
                **{"model": "letters", "encoding_format": "float", **fields},
                extra_headers={"Accept-Language": language},
            )
        assert (caught.value.param or "").split(".")[0] == param


def test_full_dimensions_may_be_named(client: openai.OpenAI) -> None:
    found = client.embeddings.create(
        model="letters", input="a", dimensions=27, encoding_format="float"
    )
    assert len(found.data[0].embedding) == 27


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="letters") as caught:
        client.embeddings.create(model="other", input="a", encoding_format="float")
    assert caught.value.code == "model_not_found"


# ---------------------------------------------------------------- /tokenize, /detokenize


@pytest.fixture(scope="module")
def words(byte_tokenizer: Tokenizer) -> Iterator[httpx2.Client]:
    def vocabulary(model: str | None) -> Vocabulary:
        if model not in (None, "bytes"):
            raise HunyuanError("unknown", "未知")
        return Vocabulary(byte_tokenizer, 100)

    with listening(app_of(tokens.router(vocabulary))) as address, http(address) as client:
        yield client


def test_a_text_goes_there_and_back(words: httpx2.Client) -> None:
    body = {"model": "bytes", "prompt": "hé 你", "return_token_strs": True}
    found = words.post("/tokenize", json=body).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) == 7
    assert found["max_model_len"] == 100
    assert found["token_strs"][0] == "h"
    back = words.post("/detokenize", json={"tokens": found["tokens"]}).json()
    assert back == {"prompt": "hé 你"}


def test_a_conversation_is_what_the_model_reads(
    words: httpx2.Client, byte_tokenizer: Tokenizer
) -> None:
    conversation = [{"role": "user", "content": "hi <|im_end|>"}]
    for generation in (True, False):
        body = {"messages": conversation, "add_generation_prompt": generation}
        found = words.post("/tokenize", json=body).json()
        assert found["tokens"] == byte_tokenizer.chat_prompt(
            conversation, add_generation_prompt=generation
        )
        assert found["token_strs"] is None
    text = words.post("/detokenize", json={"tokens": found["tokens"]}).json()["prompt"]
    assert text.startswith("<|im_start|>user\nhi")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}),
        ("/tokenize", {"messages": []}),
        ("/tokenize", {"messages": [{"role": "wizard", "content": "a"}]}),
        ("/tokenize", {"prompt": 3}),
        ("/tokenize", {"messages": [{"role": "user", "content": "a"}], "chat_template": "x"}),
        ("/detokenize", {"tokens": [100_000]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": "abc"}),
        ("/detokenize", {}),
    ],
)
def test_what_has_no_tokens_is_refused(words: httpx2.Client, path: str, body: Any) -> None:
    for language in ("en", "zh"):
        reply = words.post(path, json=body, headers={"Accept-Language": language})
        assert reply.status_code == 400
        assert reply.json()["error"]["message"]
