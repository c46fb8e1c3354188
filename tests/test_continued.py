"""An answer that goes on with the text of the last message, as vLLM spells it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import random_transformer, write_byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from serving import http, listening

from hunyuan import Engine
from hunyuan.errors import UsageError
from hunyuan.model.config import preset
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMED = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
THINKS = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}",
)
FIRST_ONLY = CHATML.replace("in messages", "in messages[:1]")

QUESTION = {"role": "user", "content": "Why?"}


def begun(text: str, **more: str) -> list[dict[str, str]]:
    return [QUESTION, {"role": "assistant", "content": text, **more}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_tokenizer(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def chatml(folder: Path) -> Tokenizer:
    return tokenizer_of(folder, CHATML)


def tokenizer_of(folder: Path, template: str) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = template
    return tokenizer


def prompt(tokenizer: Tokenizer, messages: list[dict[str, str]], **options: Any) -> str:
    ids = tokenizer.chat_prompt(messages, continue_final_message=True, **options)
    return tokenizer.decode(ids, skip_specials=False)


@pytest.mark.parametrize("text", ["Because", "i", "user", "end\n", " two ", "是因为"])
@pytest.mark.parametrize("template", [CHATML, TRIMMED])
def test_the_prompt_ends_with_the_text_whatever_stands_in_the_template(
    folder: Path, template: str, text: str
) -> None:
    found = prompt(tokenizer_of(folder, template), begun(text))
    start = text.lstrip() if template == TRIMMED else text
    assert found == f"<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n{start}"


@given(st.text(min_size=1, max_size=20))
def test_the_ids_are_those_of_an_answer_that_has_come_so_far(chatml: Tokenizer, text: str) -> None:
    assert chatml.chat_prompt(begun(text), continue_final_message=True) == [
        *chatml.chat_prompt([QUESTION]),
        *chatml.encode(text),
    ]


def test_text_that_looks_like_the_end_of_a_turn_stays_text(folder: Path) -> None:
    tokenizer = tokenizer_of(folder, CHATML)
    for text in ("a<|im_end|>", "a<|im_end|", "<|im_start|>user\nb"):
        ids = tokenizer.chat_prompt(begun(text), continue_final_message=True)
        ends = tokenizer.specials["<|im_end|>"]
        assert ids.count(ends) == 1
        assert tokenizer.decode(ids, skip_specials=False).endswith(text)


def test_thoughts_stand_before_the_text(folder: Path) -> None:
    found = prompt(tokenizer_of(folder, THINKS), begun("So", reasoning_content="hm"))
    assert found.endswith("<think>\nhm\n</think>\n\nSo")


def test_a_template_that_leaves_the_text_out_is_refused(folder: Path) -> None:
    for template, messages in ((FIRST_ONLY, begun("So")), (CHATML, [QUESTION, calling()])):
        with pytest.raises(UsageError, match="continue_final_message"):
            prompt(tokenizer_of(folder, template), messages)


def calling() -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


# ---------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx2.Client]:
    config = replace(preset("tiny"), vocab=384, context=512)
    engine = Engine(random_transformer(config), load_tokenizer(folder), context=512)
    app = create_app(ModelHost.of_engine(engine, "tiny"))
    with listening(app) as address, http(address) as found:
        yield found


def answer(client: httpx2.Client, messages: list[Any], tokens: int, **fields: Any) -> str:
    body = {"model": "tiny", "temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    # Bytes of one character each, so that an answer's text says all about its tokens.
    letters = {"regex": "[a-z ]+"}
    response = client.post(
        "/v1/chat/completions",
        json=body | {"messages": messages, "structured_outputs": letters} | fields,
    )
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def test_an_answer_in_two_halves_is_the_answer(client: httpx2.Client) -> None:
    whole = answer(client, [QUESTION], 24)
    first = answer(client, [QUESTION], 10)
    assert len(whole) == 24
    assert whole.startswith(first)
    on = {"continue_final_message": True, "add_generation_prompt": False}
    assert first + answer(client, begun(first), 14, **on) == whole
    assert answer(client, begun(first), 14) != whole[10:], "without it another answer begins"


def test_a_stream_goes_on_too(client: httpx2.Client) -> None:
    body = {
        **{"model": "tiny", "temperature": 0, "max_tokens": 6, "stream": True},
        **{"messages": begun("abc"), "continue_final_message": True},
        "structured_outputs": {"regex": "[a-z ]+"},
    }
    lines = client.post("/v1/chat/completions", json=body).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    text = "".join(
        choice["delta"].get("content") or ""
        for one in data
        for choice in json.loads(one)["choices"]
    )
    assert text == answer(client, begun("abc"), 6, continue_final_message=True, ignore_eos=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"add_generation_prompt": True, "messages": begun("a")}, "add_generation_prompt"),
        ({"messages": [QUESTION]}, "continue_final_message"),
        ({"messages": begun("")}, "continue_final_message"),
        (
            {
                "messages": [
                    QUESTION,
                    calling(),
                    {"role": "tool", "content": "1", "tool_call_id": "1"},
                ]
            },
            "continue_final_message",
        ),
    ],
)
def test_what_cannot_go_on_is_refused(
    client: httpx2.Client, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "tiny", "continue_final_message": True, **fields}
    for lang in ("en", "zh"):
        response = client.post("/v1/chat/completions", json=body, headers={"Accept-Language": lang})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param)


def test_tokens_are_counted_the_same_way(client: httpx2.Client) -> None:
    def ids(**fields: Any) -> list[int]:
        found: list[int] = client.post("/tokenize", json=fields).json()["tokens"]
        return found

    going_on = ids(messages=begun("abc"), continue_final_message=True)
    assert going_on == ids(messages=[QUESTION]) + ids(prompt="abc")
    both = {"continue_final_message": True, "add_generation_prompt": True}
    assert client.post("/tokenize", json={"messages": begun("a"), **both}).status_code == 400
    closed = ids(messages=[QUESTION], add_generation_prompt=False)
    assert closed == ids(messages=[QUESTION])[: len(closed)]
    assert len(closed) < len(ids(messages=[QUESTION]))
