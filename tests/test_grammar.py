"""Answers that must match a grammar, on random models: whatever they would say, it must hold."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.engine.engine import Engine
from hunyuan.engine.grammar import GrammarCompiler
from hunyuan.engine.request import Conversation, Grammar, SamplingParams
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.model.config import preset
from hunyuan.tokenizer.tokenizer import Tokenizer

Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def engine(byte_tokenizer: Tokenizer) -> Engine:
    return Engine(random_transformer(preset("tiny")), byte_tokenizer, max_sequences=4)


def answer(engine: Engine, grammar: Grammar, seed: int = 0, **fields: Any) -> Any:
    params = {"max_tokens": 200, "temperature": 1.5, "top_k": 0, "top_p": 1.0, **fields}
    return engine.generate("begin", SamplingParams(grammar=grammar, seed=seed, **params))


# --- schemas --------------------------------------------------------------------------------

LEAVES = st.sampled_from(
    [
        {"type": "integer", "minimum": 0, "maximum": 99},
        {"type": "boolean"},
        {"type": "string", "maxLength": 6},
        {"enum": ["red", "绿色", 3]},
        {"type": "null"},
        {"const": "是"},
    ]
)


def objects(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.lists(st.sampled_from(["a", "b", "名", "d e"]), unique=True, max_size=3)

    def made(keys: list[str], values: list[Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": dict(zip(keys, values, strict=True)),
            "required": keys,
            "additionalProperties": False,
        }

    return names.flatmap(
        lambda keys: st.tuples(*[children] * len(keys)).map(lambda v: made(keys, list(v)))
    ) | children.map(lambda item: {"type": "array", "items": item, "maxItems": 2})


def holds(schema: dict[str, Any], value: Any) -> bool:
    """Whether ``value`` is what ``schema``, one of those above, asks for."""
    if "enum" in schema:
        return value in schema["enum"]
    if "const" in schema:
        return bool(value == schema["const"])
    kind = schema["type"]
    if kind == "object":
        properties = schema["properties"]
        return (
            isinstance(value, dict)
            and set(value) == set(properties)
            and all(holds(properties[key], value[key]) for key in value)
        )
    if kind == "array":
        return len(value) <= 2 and all(holds(schema["items"], item) for item in value)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 99
    if kind == "string":
        return isinstance(value, str) and len(value) <= 6
    return value is None if kind == "null" else isinstance(value, bool)


@settings(max_examples=40, deadline=None)
@given(st.recursive(LEAVES, objects, max_leaves=4), st.integers(0, 2**31))
def test_a_schema_holds_whatever_the_model_would_say(
    engine: Engine, schema: dict[str, Any], seed: int
) -> None:
    made = answer(engine, Grammar(kind="json_schema", source=schema), seed)
    if made.finish_reason == "length":
        return
    assert made.finish_reason == "stop"
    assert holds(schema, json.loads(made.text)), made.text


def test_any_json_object(engine: Engine) -> None:
    for seed in range(5):
        made = answer(engine, Grammar(kind="json_object"), seed, max_tokens=400)
        assert made.text.startswith("{")
        if made.finish_reason == "stop":
            assert isinstance(json.loads(made.text), dict)


# --- other kinds ----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_regular_expression_a_choice_and_a_lark_grammar(
    engine: Engine, temperature: float
) -> None:
    pattern = "[a-f]{3}-(中|文){2}"
    made = answer(engine, Grammar(kind="regex", source=pattern), temperature=temperature)
    assert re.fullmatch(pattern, made.text)
    assert made.finish_reason == "stop"
    made = answer(engine, Grammar(kind="choice", source=["yes", "不", 'a "b"']), temperature=1.5)
    assert made.text in ("yes", "不", 'a "b"')
    lark = 'start: "<tool>" NAME "</tool>"\nNAME: /[a-z]{2,4}/'
    made = answer(engine, Grammar(kind="lark", source=lark), temperature=temperature)
    assert re.fullmatch("<tool>[a-z]{2,4}</tool>", made.text)


def test_log_probabilities_are_the_models_own(engine: Engine) -> None:
    made = answer(engine, Grammar(kind="regex", source="[a-c]{4}"), logprobs=3)
    assert len(made.logprobs) == 4
    # What the model would rather have said stands beside what it was allowed to say.
    assert any(entry.top[0][0] != entry.token for entry in made.logprobs)
    plain = engine.generate("begin", max_tokens=1, logprobs=3, temperature=0)
    assert made.logprobs[0].top == plain.logprobs[0].top


def test_alone_and_together_are_the_same(engine: Engine) -> None:
    grammars = [
        Grammar(kind="regex", source="[a-z]{12}"),
        None,
        Grammar(kind="json_schema", source={"type": "array", "items": {"type": "integer"}}),
    ]
    params = [
        SamplingParams(grammar=g, seed=i, temperature=1.0, max_tokens=24, ignore_eos=g is None)
        for i, g in enumerate(grammars)
    ]
    alone = [engine.generate_each(["same"], [p])[0].tokens for p in params]
    together = engine.generate_each(["same"] * 3, params)
    assert [made.tokens for made in together] == alone


def test_it_survives_being_put_back_into_the_queue(byte_tokenizer: Tokenizer) -> None:
    model = random_transformer(preset("tiny"))
    grammar = Grammar(kind="regex", source="([a-f]{5} )*END")
    params = SamplingParams(grammar=grammar, seed=3, temperature=1.0, max_tokens=90)
    roomy = Engine(model, byte_tokenizer, context=128, max_sequences=2)
    expected = [roomy.generate(p, params).text for p in ("one", "two")]
    # Room for one of them at full length: the second gives way and comes back.
    tight = Engine(model, byte_tokenizer, context=128, max_sequences=2, cache_tokens=128)
    assert [c.text for c in tight.generate_many(["one", "two"], params)] == expected


def test_a_stop_string_ends_it_early(engine: Engine) -> None:
    grammar = Grammar(kind="regex", source="(ab){20}")
    made = answer(engine, grammar, stop=["baba"])
    assert made.text == "a"


# --- thinking -------------------------------------------------------------------------------


class Scripted:
    """Logits that want the given text, whatever the model computes."""

    def __init__(self, engine: Engine, text: str) -> None:
        self.ids = engine.tokenizer.encode(text)
        self.vocab = engine.model.config.vocab
        self.at = 0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        wanted = torch.zeros(len(hidden), self.vocab)
        if self.at < len(self.ids):
            wanted[:, self.ids[self.at]] = 9.0
            self.at += 1
        return wanted


def test_a_grammar_begins_after_the_thinking(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammar = Grammar(kind="choice", source=["yes", "no"], after="</think>")
    params = SamplingParams(grammar=grammar, temperature=0, max_tokens=40)
    monkeypatch.setattr(engine.model, "logits", Scripted(engine, "hm, no</think>no").logits)
    thought = engine.generate("Question<think>", params)
    assert thought.text == "hm, no</think>no"
    monkeypatch.setattr(engine.model, "logits", Scripted(engine, "hm, no</think>no").logits)
    assert engine.generate("Question", params).text in ("yes", "no"), "no thinking was begun"


# --- what cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("regex", "(", "regex: cannot be used as a grammar"),
        ("regex", "(?=a)b", "regex: cannot be used as a grammar"),
        ("regex", "", "regex: must be a non-empty text"),
        ("lark", "start: nothing", "lark: cannot be used as a grammar"),
        ("lark", "begin: /a/", "lark: cannot be used as a grammar"),
        ("choice", [], "choice: must be a list of non-empty strings"),
        ("choice", ["a", 1], "choice: must be a list of non-empty strings"),
        ("choice", "ab", "choice: must be a list of non-empty strings"),
        ("json_schema", "{", "json_schema: is no JSON"),
        ("json_schema", ["a"], "json_schema: must be an object"),
        ("json_schema", {"type": "nothing"}, "json_schema: cannot be used as a grammar"),
        ("json_schema", {"$ref": "#/$defs/x"}, "json_schema: cannot be used as a grammar"),
        ("json_schema", {"type": "string", "pattern": "(?<!a)b"}, "cannot be used"),
        ("json_schema", {"not": {"type": "string"}}, "cannot be used"),
        ("json_schema", {"type": "integer", "minimum": 3, "maximum": 1}, "cannot be used"),
        ("lark", "start: /" + "a" * 300_000 + "/", "has 3000"),
    ],
)
def test_a_bad_grammar_is_refused_before_anything_runs(
    engine: Engine, kind: Any, source: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        answer(engine, Grammar(kind=kind, source=source))
    assert not engine.busy


def test_a_bad_grammar_hurts_no_other(engine: Engine) -> None:
    request = engine.submit("other", SamplingParams(max_tokens=4, ignore_eos=True))
    with pytest.raises(UsageError):
        engine.submit("x", SamplingParams(grammar=Grammar(kind="regex", source="(")))
    while request.finish_reason is None:
        engine.step()
    assert len(request.generated) == 4


def test_a_grammar_with_no_way_on_is_an_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        GrammarCompiler, "mask", lambda self, matcher: np.zeros(self._vocab, np.bool_)
    )
    with pytest.raises(HunyuanError, match="the answer's grammar has no way on"):
        answer(engine, Grammar(kind="regex", source="ab"))
    assert not engine.busy


# --- conversations --------------------------------------------------------------------------


def test_a_conversation_is_its_messages(engine: Engine) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    assert engine.encode(Conversation(messages=messages)) == engine.encode(messages)
    with pytest.raises(UsageError, match="chat_template_kwargs"):
        engine.encode(Conversation(messages=messages, variables={"x": object()}))


def test_ids_may_be_arrays(engine: Engine) -> None:
    ids = [5, 6, 7]
    assert engine.encode(np.array(ids)) == ids
    assert engine.encode(torch.tensor(ids)) == ids  # type: ignore[arg-type]
