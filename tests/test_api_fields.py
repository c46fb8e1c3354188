"""The other fields of chats, plain completions, and the rest of the surface."""

import json
from collections.abc import Callable
from typing import Any

import api_setting
import httpx2
import openai
import pytest
from api_setting import HI, NOW, TOOLS, Setting
from oracle import HERMES

open_setting = api_setting.open_setting
hermes = api_setting.hermes


# ---------------------------------------------------------------- other fields


def test_choices_differ_and_come_again(hermes: Setting) -> None:
    hermes.say("")  # from its stop token on the model is random
    request = {
        "model": "tiny",
        "messages": HI,
        "n": 3,
        "seed": 5,
        "temperature": 1.5,
        "max_tokens": 12,
        "extra_body": {"ignore_eos": True},
    }
    first, second = (hermes.client.chat.completions.create(**request) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) == 3
    alone = hermes.client.chat.completions.create(**request | {"n": 1})
    assert alone.choices[0].message.content == texts[0]
    assert first.usage.completion_tokens == 36
    assert first.usage.prompt_tokens == alone.usage.prompt_tokens


def test_logprobs_are_of_the_words(hermes: Setting) -> None:
    asked = {"logprobs": True, "top_logprobs": 2}
    answer = hermes.say("海 ok", NOW).ask(tools=TOOLS, **asked)
    entries = answer.choices[0].logprobs.content
    assert b"".join(bytes(e.bytes) for e in entries).decode().startswith("海 ok")
    assert all(len(e.top_logprobs) == 2 for e in entries)
    text = hermes.say("海水 ok").ask(**asked).choices[0]
    raw = b"".join(bytes(e.bytes) for e in text.logprobs.content)
    assert raw.decode() == text.message.content == "海水 ok"


def test_stop_strings_and_penalties_reach_the_engine(hermes: Setting) -> None:
    answer = hermes.say("one two three").ask(stop=[" three", "zzz"])
    assert answer.choices[0].message.content == "one two"
    biased = hermes.ask(
        logit_bias={str(hermes.ids("o")[0]): -100}, max_tokens=3, temperature=1, seed=1
    )
    assert not biased.choices[0].message.content.startswith("o") or biased.usage.total_tokens


def test_expert_load(hermes: Setting) -> None:
    request = {"model": "tiny", "messages": HI, "temperature": 0, "return_expert_load": True}
    answer = hermes.say("fine").http.post("/v1/chat/completions", json=request).json()
    load = answer["expert_load"]
    usage = answer["usage"]
    computed = usage["total_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    assert {sum(row) for row in load["tokens"]} == {computed}
    assert load["shared"] is False
    streamed = hermes.http.post("/v1/chat/completions", json=request | {"stream": True}).text
    last = json.loads(streamed.strip().split("\n\n")[-2].removeprefix("data: "))
    assert (last["choices"], len(last["expert_load"]["tokens"])) == ([], len(load["tokens"]))


# ---------------------------------------------------------------- plain completions


def test_a_text_goes_on(hermes: Setting) -> None:
    create = hermes.say(" und weiter").client.completions.create
    answer = create(model="tiny", prompt="Es geht", temperature=0, max_tokens=50)
    assert answer.choices[0].text == " und weiter"
    assert answer.choices[0].finish_reason == "stop"
    # As OpenAI's own, pieces have no reason to end yet, which the client's strict types forbid.
    pieces = list(hermes.pieces(prompt="Es geht", max_tokens=50))
    assert "".join(p["choices"][0]["text"] for p in pieces) == " und weiter"
    reasons = [p["choices"][0]["finish_reason"] for p in pieces]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert create(model="tiny", prompt="x", temperature=0).usage.completion_tokens <= 16


def test_many_prompts_in_every_form(hermes: Setting) -> None:
    create = hermes.say("!").client.completions.create
    fields: dict[str, Any] = {"model": "tiny", "temperature": 0, "echo": True, "n": 2}
    ab, c = hermes.ids("ab"), hermes.ids("c")
    for prompt in (["ab", "c"], [ab, c]):
        answer = create(prompt=prompt, **fields)
        assert [c.text for c in answer.choices] == ["ab!", "ab!", "c!", "c!"]
        assert [c.index for c in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == 3
    assert create(prompt=ab, **fields).choices[1].text == "ab!"


def test_scoring_a_text(hermes: Setting) -> None:
    """As an evaluation harness asks: the prompt's own log-probabilities and nothing else."""
    # The first token has no log-probability, as with OpenAI, which the strict types forbid.
    hermes.say("!")
    client = openai.OpenAI(base_url=hermes.client.base_url, api_key="none")
    create = client.completions.create
    fields: dict[str, Any] = {"model": "tiny", "prompt": "a海b", "logprobs": 1, "echo": True}
    answer = create(**fields, max_tokens=0)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("a海b", "length")
    assert answer.usage.completion_tokens == 0
    found = choice.logprobs
    assert len(found.tokens) == 5
    assert found.token_logprobs[0] is found.top_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert found.text_offset == [0, 1, 1, 1, 2]
    assert found.tokens[1].startswith("bytes:")
    longer = create(**fields, max_tokens=1).choices[0].logprobs
    assert longer.token_logprobs[:5] == pytest.approx(found.token_logprobs, abs=1e-5)
    assert longer.tokens[5] == "!"
    streamed = [p["choices"][0]["logprobs"] for p in hermes.pieces(**fields, max_tokens=1)]
    pieces = [piece for piece in streamed if piece]
    assert [t for p in pieces for t in p["tokens"]] == longer.tokens
    assert [o for p in pieces for o in p["text_offset"]] == longer.text_offset


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**6]}, None),
        ({"prompt": ["a"] * 100, "n": 2}, "n"),
        ({"logprobs": 21}, None),
        ({"model": "other"}, "model"),
    ],
)
def test_bad_completions_name_the_field(hermes: Setting, change: Any, param: str | None) -> None:
    answer = hermes.http.post("/v1/completions", json={"model": "tiny", "prompt": "a"} | change)
    assert answer.status_code == (404 if "model" in change else 400), answer.text
    assert (answer.json()["error"]["param"] or "").startswith(param or "")


# ---------------------------------------------------------------- the rest of the surface


def test_embeddings_of_the_model_itself(hermes: Setting) -> None:
    answer = hermes.client.embeddings.create(
        model="tiny", input=["abc", "abd", "xyz" * 9], encoding_format="float"
    )
    vectors = [entry.embedding for entry in answer.data]
    near, far = (sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors[1:])
    assert 1.001 > near > far
    assert answer.usage.prompt_tokens == 3 + 3 + 27
    with pytest.raises(openai.BadRequestError):
        hermes.client.embeddings.create(model="tiny", input="x" * 9_000, encoding_format="float")


def test_tokens_and_versions(hermes: Setting) -> None:
    ids = hermes.http.post("/tokenize", json={"model": "tiny", "prompt": "ab"}).json()
    assert (ids["count"], ids["max_model_len"]) == (2, 8192)
    tokens = {"tokens": ids["tokens"]}
    assert hermes.http.post("/detokenize", json=tokens).json() == {"prompt": "ab"}
    assert hermes.http.get("/version").json()["version"]


def test_metrics_count_what_happened(open_setting: Callable[[str], Setting]) -> None:
    setting = open_setting(HERMES)

    def metrics() -> dict[str, float]:
        lines = setting.http.get("/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    before = metrics()
    usage = (
        setting.say("one two three")
        .client.chat.completions.create(model="tiny", messages=HI, temperature=0)
        .usage
    )
    after = metrics()

    def grown(name: str, labels: str = '{model_name="tiny"}') -> float:
        key = f"hunyuan:{name}{labels}"
        return after[key] - before.get(key, 0)

    assert grown("prompt_tokens_total") == usage.prompt_tokens
    assert grown("generation_tokens_total") == usage.completion_tokens
    assert grown("request_success_total", '{finished_reason="stop",model_name="tiny"}') == 1
    assert grown("time_to_first_token_seconds_count") == 1
    assert grown("inter_token_latency_seconds_count") == usage.completion_tokens - 1
    assert after['hunyuan:num_requests_running{model_name="tiny"}'] == 0
    experts = [name for name in after if name.startswith("hunyuan:moe_expert_tokens_total{")]
    assert 'hunyuan:moe_expert_tokens_total{expert="0",layer="0"}' in experts


def test_the_description_names_every_route(hermes: Setting) -> None:
    paths = hermes.http.get("/openapi.json").json()["paths"]
    wanted = {
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"),
        *("/v1/models", "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize"),
        *("/health", "/version", "/metrics"),
    }
    assert wanted <= set(paths)


def test_httpx2_is_what_the_clients_ride_on() -> None:
    """The tests above count on one HTTP library for all clients."""
    assert issubclass(type(openai.OpenAI(api_key="x")._client), httpx2.Client)
