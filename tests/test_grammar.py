"""Answers that must match a grammar, on random models: whatever they would say, it must hold."""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_transformer, write_byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokenizer import sentence_piece_metadata

import hunyuan.engine.grammar as grammar_module
from hunyuan.engine.engine import Engine
from hunyuan.engine.grammar import Constraint, GrammarCompiler
from hunyuan.engine.request import Conversation, Grammar, GrammarError, SamplingParams
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.model.config import preset
from hunyuan.tokenizer.gguf_vocabulary import from_gguf_metadata
from hunyuan.tokenizer.load import load_tokenizer
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


@pytest.mark.parametrize("texts", [["yes", "no"], [f"v{i}" for i in range(3000)], ["a", "ab"]])
def test_a_choice_is_one_of_its_texts_however_many(engine: Engine, texts: list[str]) -> None:
    for seed in range(4):
        made = answer(engine, Grammar(kind="choice", source=texts), seed)
        assert made.text in texts
        assert made.finish_reason == "stop"


def test_a_stop_token_of_the_request_ends_where_the_grammar_accepts(engine: Engine) -> None:
    """A byte that is no part of the grammar, but which the request names, may end the answer."""
    (bang,) = engine.tokenizer.encode("!")
    grammar = Grammar(kind="regex", source="a{3,}")
    bias = {bang: 100.0}
    made = answer(engine, grammar, stop_token_ids=[bang], logit_bias=bias, temperature=0)
    assert (made.text, made.finish_reason) == ("aaa", "stop")
    made = answer(engine, grammar, logit_bias=bias, temperature=0, max_tokens=9, ignore_eos=True)
    assert (made.text, made.finish_reason) == ("a" * 9, "length")


def test_a_complete_answer_ends_at_its_last_token(engine: Engine) -> None:
    """Without a step more, and as whole where the limit is reached by the same token."""
    made = answer(engine, Grammar(kind="regex", source="[ab]{7}"), max_tokens=7)
    assert (len(made.tokens), made.finish_reason) == (7, "stop")


# --- tokens that stand for tags -------------------------------------------------------------


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine whose tokenizer has tool and thinking tags as tokens, as Qwen's has."""
    folder = write_byte_tokenizer(tmp_path_factory.mktemp("tags"))
    add_tokens(folder, "<tool_call>", "</tool_call>", "</think>\n\n")
    return Engine(random_transformer(preset("tiny")), load_tokenizer(folder), max_sequences=4)


def add_tokens(folder: Path, *texts: str) -> None:
    file = folder / "tokenizer.json"
    described = json.loads(file.read_text())
    for text in texts:
        token = {**described["added_tokens"][-1], "content": text, "special": False}
        token["id"] = described["added_tokens"][-1]["id"] + 1
        described["added_tokens"].append(token)
    file.write_text(json.dumps(described))


@pytest.mark.parametrize(
    "lark",
    [
        'start: "<tool_call>" BODY "</tool_call>"\nBODY: /[a-z]{2}/',
        "start: <tool_call> BODY </tool_call>\nBODY: /[a-z]{2}/",
    ],
)
def test_a_tag_that_is_a_token_is_written_as_one(tagged: Engine, lark: str) -> None:
    """Whether the grammar demands its text or names the token: the model knows only the token."""
    for seed in range(4):
        made = answer(tagged, Grammar(kind="lark", source=lark), seed)
        assert re.fullmatch("<tool_call>[a-z]{2}</tool_call>", made.text)
        specials = tagged.tokenizer.specials
        assert made.tokens[0] == specials["<tool_call>"]
        assert made.tokens[-1] == specials["</tool_call>"]
        assert len(made.tokens) == 4


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", "the quick (fox|中文)", "the quick (fox|中文)"),
        ("lark", 'start: "the " <tool> "quick"', "the <tool>quick"),
        ("lark", 'start: "a<tool> the"', "a<tool> the"),
        ("json_schema", {"type": "array", "items": {"const": "the fox"}}, r"\[.*\]"),
    ],
)
def test_a_vocabulary_that_puts_a_space_before_a_text(kind: Any, source: Any, pattern: str) -> None:
    """Whatever is allowed is chosen at random: the bytes of all tokens together must match."""
    tokenizer = from_gguf_metadata(sentence_piece_metadata())
    assert tokenizer.backend.prefix_space
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size + 3)
    for seed in range(8):
        dice = Random(seed)
        constraint = compiler.start(Grammar(kind=kind, source=source), [1], tokenizer.stop_ids)
        ids: list[int] = []
        while not constraint.complete:
            chosen = dice.choice(np.flatnonzero(constraint.allowed()).tolist())
            if chosen in tokenizer.stop_ids:
                break
            constraint.accept(chosen)
            ids.append(chosen)
        text = b"".join(map(tokenizer.token_bytes, ids)).decode()
        assert re.fullmatch(pattern, text)
        if kind == "json_schema":
            assert set(json.loads(text)) <= {"the fox"}


def test_text_without_a_tag_cannot_have_it_as_a_token(tagged: Engine) -> None:
    tag = tagged.tokenizer.specials["<tool_call>"]
    free = "start: TEXT\nTEXT: /(.|\\n)*/ & ~/(.|\\n)*<tool_call>(.|\\n)*/"
    made = answer(tagged, Grammar(kind="lark", source=free), logit_bias={tag: 100.0}, max_tokens=20)
    assert tag not in made.tokens
    assert "<tool_call>" not in made.text


def test_what_bounds_turns_is_no_text(engine: Engine) -> None:
    """The text <|im_start|> may be spelled in bytes, and the token never stands for it."""
    start = engine.tokenizer.specials["<|im_start|>"]
    grammar = Grammar(kind="choice", source=["<|im_start|>"])
    made = answer(engine, grammar, logit_bias={start: 100.0})
    assert made.text == "<|im_start|>"
    assert start not in made.tokens


# --- thinking -------------------------------------------------------------------------------


class Scripted:
    """Logits that want the given text, whatever the model computes."""

    def __init__(self, engine: Engine, text: str, *more: int) -> None:
        self.ids = [*engine.tokenizer.encode_markup(text), *more]
        self.vocab = engine.model.config.vocab
        self.at = 0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        wanted = torch.zeros(len(hidden), self.vocab)
        if self.at < len(self.ids):
            wanted[:, self.ids[self.at]] = 9.0
            self.at += 1
        return wanted


AFTER = Grammar(kind="choice", source=["yes", "no"], after="</think>")


@pytest.mark.parametrize(
    ("prompt", "wanted", "shown"),
    [
        ("Question<think>", "hm, no</think>no", "hm, no</think>no"),
        ("Question<think>\n", "\n中</think>\n\nno", "\n中</think>\n\nno"),
        ("Question", "<think>hm, {</think>\nno", "<think>hm, {</think>\nno"),
        ("Question", "no", "no"),
        ("Question<think></think>", "hm", "yes|no"),
        ("Question<think>", "hm</think>}}no", "hm</think>(yes|no)"),
    ],
)
def test_a_grammar_begins_after_the_thinking(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, prompt: str, wanted: str, shown: str
) -> None:
    monkeypatch.setattr(engine.model, "logits", Scripted(engine, wanted).logits)
    made = engine.generate(prompt, SamplingParams(grammar=AFTER, temperature=0, max_tokens=60))
    assert re.fullmatch(shown.replace("{", r"\{"), made.text)
    assert made.finish_reason == "stop"


def test_thoughts_cannot_be_all(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ends its answer within its thoughts is kept from it."""
    (stop,) = engine.tokenizer.stop_ids
    script = Scripted(engine, "hm", stop)
    script.ids += engine.tokenizer.encode("</think>no")
    monkeypatch.setattr(engine.model, "logits", script.logits)
    params = SamplingParams(grammar=AFTER, temperature=0, max_tokens=60)
    made = engine.generate("Question<think>", params)
    assert re.fullmatch("hm.?</think>no", made.text, re.DOTALL)


def test_a_token_may_end_the_thoughts_and_go_on(
    tagged: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagged.model, "logits", Scripted(tagged, "hm</think>\n\nno").logits)
    params = SamplingParams(grammar=AFTER, temperature=0, max_tokens=60)
    made = tagged.generate("Question<think>", params)
    assert made.text == "hm</think>\n\nno"
    assert len(made.tokens) == 5


# --- what cannot be used --------------------------------------------------------------------


ENDLESS = {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("regex", "(", "regex: cannot be used as a grammar: unclosed group"),
        ("regex", "(?=a)b", "regex: cannot be used as a grammar: look-around"),
        ("regex", "", "regex: cannot be used as a grammar: must be a non-empty text"),
        ("regex", None, "must be a non-empty text"),
        ("regex", r"a&b[^\s\S]", "no text satisfies it"),
        ("regex", "\ud800", "regex: cannot be used as a grammar: 'utf-8' codec"),
        ("regex", "(a{1000}){1000}", "nested repetitions ask for too much"),
        ("regex", "((a{99}b?){99}){999999999}", "nested repetitions ask for too much"),
        ("lark", "start: nothing", "lark: cannot be used as a grammar"),
        ("lark", "begin: /a/", "lark: cannot be used as a grammar"),
        ("lark", "start: <nope>", "unknown special token"),
        ("lark", "start: A\nA: /a/ & /b/", "no text satisfies it"),
        ("lark", 'start: "a" start', "or text without end"),
        ("choice", [], "choice: cannot be used as a grammar: must be a list of non-empty texts"),
        ("choice", ["a", 1], "must be a list of non-empty texts"),
        ("choice", "ab", "must be a list of non-empty texts"),
        ("choice", [""], "must be a list of non-empty texts"),
        ("json_schema", "{", "json_schema: cannot be used as a grammar: Expecting property name"),
        ("json_schema", ["a"], "must be an object"),
        ("json_schema", "[1]", "must be an object"),
        ("json_schema", {"a": object()}, "is no JSON value"),
        ("json_schema", {"type": "nothing"}, "Invalid type: nothing"),
        ("json_schema", {"$ref": "#/$defs/x"}, "Pointer '/$defs/x' does not exist"),
        ("json_schema", {"$ref": "http://example.org/x"}, "is not present in a registry"),
        ("json_schema", {"type": "string", "pattern": "(?<!a)b"}, "look-around"),
        ("json_schema", {"not": {"type": "string"}}, "cannot be used"),
        ("json_schema", {"type": "integer", "minimum": 3, "maximum": 1}, "Unsatisfiable schema"),
        ("json_schema", False, "must be an object"),
        ("json_schema", {"$ref": "#/$defs/a", "$defs": {"a": ENDLESS}}, "or text without end"),
        ("json_schema", '{"items":' * 3000 + "{}" + "}" * 3000, "recursion"),
        ("json_schema", {"enum": ["x" * 200_000]}, "at most 131072 are allowed"),
    ],
)
def test_a_bad_grammar_is_refused_before_anything_runs(
    engine: Engine, kind: Any, source: Any, message: str
) -> None:
    started = time.perf_counter()
    with pytest.raises(GrammarError, match=re.escape(message)) as refused:
        answer(engine, Grammar(kind=kind, source=source))
    assert time.perf_counter() - started < 3
    for text in (refused.value.en, refused.value.zh):
        assert text.startswith(kind)
        assert len(text.splitlines()) == 1
        assert len(text) < 260
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
    monkeypatch.setattr(engine.model, "logits", Scripted(engine, "kb").logits)
    real = Constraint.allowed

    def nothing_after_k(constraint: Constraint) -> Any:
        allowed = real(constraint)
        allowed[engine.tokenizer.encode("ab")] = False  # as if the vocabulary had neither
        return allowed

    monkeypatch.setattr(Constraint, "allowed", nothing_after_k)
    other = engine.submit("other", SamplingParams(max_tokens=3, temperature=0))
    with pytest.raises(HunyuanError, match="allows none of the model's tokens"):
        answer(engine, Grammar(kind="regex", source="k[ab]"), temperature=0)
    while other.finish_reason is None:
        engine.step()
    assert other.error is None
    assert engine.stats().cache_tokens_used == 0


def test_a_grammar_that_grows_too_large_on_the_way_is_an_error(engine: Engine) -> None:
    """It is fine at its beginning, then asks for the same object again and again."""
    schema = {
        "type": "object",
        "properties": {"first": {"enum": ["a", "b"]}, "rest": {"$ref": "#/$defs/a"}},
        "required": ["first", "rest"],
        "$defs": {"a": ENDLESS},
    }
    with pytest.raises(HunyuanError, match="the answer's grammar allows nothing here") as ended:
        answer(engine, Grammar(kind="json_schema", source=schema))
    assert not isinstance(ended.value, UsageError)
    assert not engine.busy


def test_compiled_grammars_are_kept_and_answers_share_nothing(byte_tokenizer: Tokenizer) -> None:
    compiler = GrammarCompiler(byte_tokenizer, 384)
    grammar = Grammar(kind="regex", source="ab|ac")
    one, other = (compiler.start(grammar, [1], byte_tokenizer.stop_ids) for _ in range(2))
    letter = byte_tokenizer.encode("abc")
    one.accept(letter[0])
    assert np.flatnonzero(one.allowed()).tolist() == sorted(letter[1:])
    assert np.flatnonzero(other.allowed()).tolist() == [letter[0]]
    with pytest.raises(HunyuanError, match="allows nothing here"):
        other.accept(letter[1])


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
    assert engine.encode([np.int64(5), torch.tensor(6), 7]) == ids


@pytest.mark.parametrize(
    "prompt", [np.array([1.5, 2.0]), np.array([[1, 2]]), ["a", "b"], [1, None], 5, None]
)
def test_what_is_no_prompt_is_named(engine: Engine, prompt: Any) -> None:
    with pytest.raises(UsageError, match=r"prompt(\[\d\]=.*)?: must be"):
        engine.submit(prompt)


def test_a_warm_vocabulary_is_built_once_whoever_asks(
    byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    going, again = threading.Event(), threading.Event()

    class Slow(grammar_module.Vocabulary):
        def __init__(self, tokenizer: Tokenizer) -> None:
            if built:
                again.set()
            built.append(threading.current_thread().name)
            going.set()
            again.wait(0.3)  # time enough for a second one to begin, if it could
            super().__init__(tokenizer)

    monkeypatch.setattr(grammar_module, "Vocabulary", Slow)
    compiler = GrammarCompiler(byte_tokenizer, 384)
    warming = threading.Thread(target=compiler.warm, name="warming")
    warming.start()
    assert going.wait(10)
    constraint = compiler.start(Grammar(kind="regex", source="[ab]"), [1], byte_tokenizer.stop_ids)
    warming.join()
    assert built == ["warming"]
    assert constraint.allowed().sum() == 2
