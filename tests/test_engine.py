"""The engine: batched = alone, chunked = whole, streamed = joined; limits, stops, cancellation."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan import Engine, SamplingParams
from hunyuan.engine import sampling
from hunyuan.engine.cache import RowCache
from hunyuan.engine.request import Request
from hunyuan.engine.sampling import choose_token
from hunyuan.engine.scheduler import Scheduler
from hunyuan.engine.text import TextStream
from hunyuan.errors import DoesNotFitError, HunyuanError, UsageError
from hunyuan.model.config import Routing, preset
from hunyuan.model.transformer import Transformer
from hunyuan.tokenizer.tokenizer import Tokenizer

MakeModel = Callable[..., Transformer]
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture
def engine(random_model: MakeModel, byte_tokenizer: Tokenizer) -> Engine:
    return Engine(random_model(), byte_tokenizer, max_sequences=4, prefill_chunk=8)


def greedy_by_hand(model: Transformer, prompt: Sequence[int], count: int, rows: int) -> list[int]:
    """Without cache, batch or engine: the whole sequence again for every token."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1, :rows].argmax()))
    return ids[len(prompt) :]


PROMPTS = ["", "a", "Hello, world", "海水为什么是咸的？", "def f(x):\n    return x", "z" * 40]


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("prompt", PROMPTS[1:])
def test_greedy_answers_are_those_of_the_plain_model(
    random_model: MakeModel, byte_tokenizer: Tokenizer, share: int, prompt: str
) -> None:
    model = random_model(cla_share=share)
    engine = Engine(model, byte_tokenizer, prefill_chunk=8)
    answer = engine.generate(prompt, GREEDY, ignore_eos=True)
    expected = greedy_by_hand(model, byte_tokenizer.encode_prompt(prompt), 12, 259)
    assert list(answer.tokens) == expected
    assert answer.finish_reason == "length"


def test_answers_in_a_batch_are_those_alone(engine: Engine) -> None:
    """Six requests on four rows, of different lengths: continuous batching changes nothing."""
    prompts = [*PROMPTS[1:], "again"]
    alone = [engine.generate(p, GREEDY).tokens for p in prompts]
    together = [c.tokens for c in engine.generate_many(prompts, GREEDY)]
    assert together == alone
    assert engine.running == engine.waiting == 0


def test_a_request_that_joins_midway_changes_nothing(engine: Engine) -> None:
    expected = [engine.generate(p, GREEDY).tokens for p in PROMPTS[2:4]]
    first = engine.submit(PROMPTS[2], GREEDY)
    for _ in range(5):
        engine.step()
    second = engine.submit(PROMPTS[3], GREEDY)
    while engine.busy:
        engine.step()
    assert [tuple(first.generated), tuple(second.generated)] == expected


def test_streamed_text_is_the_whole_text(engine: Engine) -> None:
    for prompt in PROMPTS[1:]:
        whole = engine.generate(prompt, seed=7, max_tokens=40)
        chunks = list(engine.stream(prompt, seed=7, max_tokens=40))
        assert "".join(c.text for c in chunks) == whole.text
        assert [c.token for c in chunks if c.token is not None] == list(whole.tokens)
        assert [c.finish_reason for c in chunks if c.finish_reason] == [whole.finish_reason]


def test_padding_rows_are_never_sampled(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    """The model has 384 rows, the tokenizer 259 tokens; the highest logits are padding rows."""
    model = random_model(tied=False)
    with torch.no_grad():
        model.lm_head.weight[259:] *= 100
    engine = Engine(model, byte_tokenizer)
    for temperature in (0, 1, 2):
        answer = engine.generate("abc", max_tokens=50, temperature=temperature, top_k=0, top_p=1)
        assert max(answer.tokens, default=0) < 259


def test_conversations_go_through_the_template(engine: Engine) -> None:
    messages = [{"role": "user", "content": "hi <|im_end|>"}]
    request = engine.submit(messages, GREEDY)
    assert request.prompt.count(258) == 1, "typed specials are text"
    assert request.prompt.count(257) == 2


# ---------------------------------------------------------------- ends


class Scripted:
    """Makes an engine's model say given bytes: the logits of the next wanted token are 100."""

    def __init__(self, engine: Engine, ids: Sequence[int]) -> None:
        self._engine = engine
        self._ids = list(ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(hidden), self._engine.model.config.vocab)
        out[:, self._ids.pop(0) if self._ids else 0] = 100
        return out


@pytest.fixture
def say(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Engine]:
    def script(text: str, *more: int) -> Engine:
        ids = [*engine.tokenizer.encode(text), *more]
        monkeypatch.setattr(engine.model, "logits", Scripted(engine, ids).logits)
        return engine

    return script


def test_the_models_own_stop_token_ends_an_answer(say: Callable[..., Engine]) -> None:
    answer = say("done", 258, 65).generate("x", temperature=0, max_tokens=20)
    assert (answer.text, answer.finish_reason) == ("done", "stop")
    assert len(answer.tokens) == 4


def test_every_stop_id_stops(say: Callable[..., Engine]) -> None:
    answer = say("do", 256, 65).generate("x", temperature=0, max_tokens=20, stop_token_ids=[256])
    assert (answer.text, answer.finish_reason) == ("do", "stop")
    answer = say("ab", 258, 66).generate("x", temperature=0, max_tokens=4, ignore_eos=True)
    assert (answer.tokens[2:], answer.finish_reason) == ((258, 66), "length")


@pytest.mark.parametrize(
    ("said", "stop", "shown"),
    [
        ("one STOP two", ["STOP"], "one "),
        ("one ST two", ["STOP"], "one ST two"),
        ("aaab", ["aab"], "a"),
        ("你好。再见。", ["再见"], "你好。"),
        ("x\n\ny", ["\n\n", "y"], "x"),
        ("abc", ["abc"], ""),
        ("abcd", ["cd", "bc"], "a"),
    ],
)
def test_stop_strings_across_token_borders(
    say: Callable[..., Engine], said: str, stop: list[str], shown: str
) -> None:
    """Tokens are single bytes, so every stop string lies across borders."""
    length = len(said.encode())
    chunks = list(say(said).stream("x", temperature=0, max_tokens=length, stop=stop))
    assert "".join(c.text for c in chunks) == shown
    assert chunks[-1].finish_reason == ("stop" if shown != said else "length")


def test_characters_are_never_split(say: Callable[..., Engine]) -> None:
    said = "a海é😀z"
    for chunk in say(said).stream("x", temperature=0, max_tokens=len(said.encode())):
        assert "\ufffd" not in chunk.text
        assert len(chunk.text) <= 1


def test_half_a_character_at_the_end_is_shown_as_such(say: Callable[..., Engine]) -> None:
    assert say("a海").generate("x", temperature=0, max_tokens=3).text == "a\ufffd"


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab海", max_size=30),
    st.lists(st.text("ab海", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_streams_show_exactly_what_precedes_the_stop(
    byte_tokenizer: Tokenizer, said: str, stops: list[str]
) -> None:
    """Whenever it is cut into tokens: nothing of a stop string, nothing missing before it."""
    stream = TextStream(byte_tokenizer, stops, after_text=True)
    shown = ""
    for token in byte_tokenizer.encode(said):
        shown += stream.push(token)
        if stream.stopped:
            break
    shown += stream.flush()
    # The stop that is complete first ends the text; of several, the one that starts first.
    ends = [said.find(s) + len(s) for s in stops if s in said]
    expected = said
    if ends:
        seen = said[: min(ends)]
        expected = seen[: min(seen.find(s) for s in stops if s in seen)]
    assert shown == expected
    assert stream.stopped == bool(ends)


def test_cancelling_frees_the_row_at_once(engine: Engine) -> None:
    requests = [engine.submit("abc", max_long()) for _ in range(6)]
    engine.step()
    assert (engine.running, engine.waiting) == (4, 2)
    requests[0].cancel()
    requests[5].cancel()
    events = engine.step()
    assert [r for r, c in events if c.finish_reason == "cancelled"] == [requests[5], requests[0]]
    assert (engine.running, engine.waiting) == (4, 0)
    assert requests[0].finish_reason == "cancelled"


def max_long() -> SamplingParams:
    return SamplingParams(max_tokens=400, ignore_eos=True)


def test_closing_a_stream_cancels(engine: Engine) -> None:
    stream = engine.stream("abc", max_long())
    next(stream)
    assert engine.running == 1
    stream.close()
    assert (engine.running, engine.waiting) == (0, 0)


# ---------------------------------------------------------------- limits


def test_overflow_names_both_numbers(engine: Engine) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        engine.generate("x" * 500, max_tokens=100)
    for text in (caught.value.en, caught.value.zh):
        assert "500" in text
        assert "600" in text
        assert "512" in text
    assert engine.generate("x" * 500, max_tokens=12, ignore_eos=True).finish_reason == "length"


def test_without_a_limit_an_answer_fills_the_context(
    random_model: MakeModel, byte_tokenizer: Tokenizer
) -> None:
    engine = Engine(random_model(), byte_tokenizer, context=32)
    answer = engine.generate("x" * 20, ignore_eos=True)
    assert (len(answer.tokens), answer.finish_reason) == (12, "length")


def test_contexts_that_cannot_be(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(DoesNotFitError, match="context=513 exceeds the 512 tokens"):
        Engine(random_model(), byte_tokenizer, context=513)


@pytest.mark.parametrize("option", [{"max_sequences": 0}, {"prefill_chunk": -3}, {"context": 0}])
def test_impossible_engines_are_refused(
    random_model: MakeModel, byte_tokenizer: Tokenizer, option: dict
) -> None:
    (name,) = option
    with pytest.raises(UsageError, match=f"{name}={option[name]}: must be at least"):
        Engine(random_model(), byte_tokenizer, **option)


def test_a_cache_that_does_not_fit_is_refused_before_it_is_made(
    random_model: MakeModel, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("hunyuan.memory.available_memory", "hunyuan.engine.engine.available_memory"):
        monkeypatch.setattr(place, lambda: 1_000_000)
    # 256 bytes a token and row in float32: 2 slots, 2 heads of 8, K and V
    with pytest.raises(DoesNotFitError, match="largest context that fits is 439"):
        Engine(random_model(), byte_tokenizer, context=512, max_sequences=8)
    assert Engine(random_model(), byte_tokenizer, max_sequences=8).context == 439


def test_cache_bytes_are_those_of_the_formula(random_model: MakeModel) -> None:
    for share, slots in ((1, 4), (2, 2), (3, 2), (4, 1)):
        config = random_model(cla_share=share).config
        for dtype in (torch.float32, torch.bfloat16):
            cache = RowCache(config, 3, 100, dtype)
            assert cache.nbytes == 3 * 100 * config.kv_bytes_per_token(dtype.itemsize)
            assert cache.k.shape[0] == slots == config.slots
    large = preset("large")
    assert large.kv_bytes_per_token(2) == 81_920


def test_only_dropless_models_serve(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    model = random_model(routing=Routing(mode="capacity-drop"))
    with pytest.raises(UsageError, match="capacity-drop cannot serve"):
        Engine(model, byte_tokenizer)


def test_a_foreign_tokenizer_is_refused(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="tokenizer has 259 tokens, the model 200"):
        Engine(random_model(vocab=200), byte_tokenizer)


@pytest.mark.parametrize(
    ("prompt", "overrides", "words"),
    [
        ("", {}, "the prompt is empty"),
        ([1, 999], {}, "token id 999"),
        ([], {}, "the prompt is empty"),
        ("x", {"temperature": 3}, "temperature=3: must be at least 0 and at most 2"),
        ("x", {"temperature": float("nan")}, "temperature=nan"),
        ("x", {"top_p": 0}, "top_p=0: must be above 0"),
        ("x", {"max_tokens": 0}, "max_tokens=0"),
        ("x", {"stop": [""]}, "stop="),
        ("x", {"logprobs": 21}, "logprobs=21"),
        ("x", {"logit_bias": {3: 1000}}, r"logit_bias\[3\]=1000"),
        ("x", {"temprature": 1}, "temprature.*sampling parameters: max_tokens"),
    ],
)
def test_bad_requests_are_named(
    engine: Engine, prompt: object, overrides: dict, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        engine.generate(prompt, **overrides)
    assert (engine.running, engine.waiting) == (0, 0)


# ---------------------------------------------------------------- sampling


def request_with(
    prompt: Sequence[int] = (), answer: Sequence[int] = (), **params: object
) -> Request:
    request = Request(prompt, SamplingParams(**params), limit=100)
    request.generated = list(answer)
    return request


def distribution(logits: torch.Tensor, **params: object) -> torch.Tensor:
    """Frequencies of 4,000 draws."""
    generator = torch.Generator().manual_seed(0)
    request = request_with(**params)
    draws = [choose_token(logits, request, generator)[0] for _ in range(4000)]
    return torch.tensor(draws).bincount(minlength=len(logits)) / 4000


LOGITS = torch.tensor([0.2, 0.1, 0.4, 0.25, 0.05]).log()
NEUTRAL = {"temperature": 1, "top_k": 0, "top_p": 1}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (NEUTRAL, [0.2, 0.1, 0.4, 0.25, 0.05]),
        (NEUTRAL | {"temperature": 0.5}, [0.04, 0.01, 0.16, 0.0625, 0.0025]),
        (NEUTRAL | {"top_k": 2}, [0, 0, 0.4, 0.25, 0]),
        (NEUTRAL | {"top_p": 0.6}, [0, 0, 0.4, 0.25, 0]),
        (NEUTRAL | {"top_p": 0.66}, [0.2, 0, 0.4, 0.25, 0]),
        (NEUTRAL | {"top_p": 0.01}, [0, 0, 1, 0, 0]),
        (NEUTRAL | {"min_p": 0.4}, [0.2, 0, 0.4, 0.25, 0]),
        (NEUTRAL | {"temperature": 0}, [0, 0, 1, 0, 0]),
        (NEUTRAL | {"logit_bias": {1: 100}}, [0, 1, 0, 0, 0]),
        (NEUTRAL | {"logit_bias": {2: -100}}, [0.2, 0.1, 0, 0.25, 0.05]),
    ],
)
def test_draws_follow_the_distribution(params: dict, expected: list[float]) -> None:
    wanted = torch.tensor(expected) / sum(expected)
    assert (distribution(LOGITS, **params) - wanted).abs().max() < 0.035
    assert ((wanted == 0) <= (distribution(LOGITS, **params) == 0)).all()


def test_penalties() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, 1.0])
    seen = request_with([0], [1, 3, 3], repetition_penalty=2.0)
    assert sampling.apply_penalties(logits, seen).tolist() == [1, -4, 1, 0.5]
    said = request_with([0], [1, 3, 3], presence_penalty=0.5, frequency_penalty=0.25)
    assert sampling.apply_penalties(logits, said).tolist() == [2, -2.75, 1, 0]
    assert logits.tolist() == [2, -2, 1, 1], "the logits are not changed in place"


def test_logprobs_are_those_of_the_model(engine: Engine) -> None:
    answer = engine.generate("abc", temperature=0.3, max_tokens=5, logprobs=3, seed=1)
    assert len(answer.logprobs) == len(answer.tokens)
    ids = [*engine.tokenizer.encode("abc")]
    for entry in answer.logprobs:
        with torch.no_grad():
            expected = engine.model(torch.tensor([ids]))[0, -1, :259].log_softmax(0)
        assert entry.logprob == pytest.approx(float(expected[entry.token]), abs=1e-4)
        values, order = expected.topk(3)
        assert [t for t, _ in entry.top] == order.tolist()
        assert [p for _, p in entry.top] == pytest.approx(values.tolist(), abs=1e-4)
        ids.append(entry.token)


def test_seeds(engine: Engine) -> None:
    def answer(seed: int | None) -> tuple[int, ...]:
        return engine.generate(
            "abc", temperature=2, top_k=0, top_p=1, max_tokens=20, seed=seed
        ).tokens

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)
    assert answer(None) != answer(None)


# ---------------------------------------------------------------- scheduling


def plans(scheduler: Scheduler) -> Iterator[list[tuple[int, int, int]]]:
    """(row, start, count) of each step; pretends to run it."""
    while segments := scheduler.plan():
        yield [(s.row, s.start, s.count) for s in segments]
        for s in segments:
            s.request.cached += s.count
            if s.request.pending == 0:
                s.request.generated.append(0)
                if len(s.request.generated) == s.request.limit:
                    scheduler.remove(s.request)


def test_a_long_prompt_does_not_stop_the_others() -> None:
    scheduler = Scheduler(rows=2, prefill_chunk=4)
    scheduler.add(Request([1], SamplingParams(), limit=5))
    scheduler.add(Request([1] * 10, SamplingParams(), limit=1))
    assert list(plans(scheduler)) == [
        [(0, 0, 1)],
        [(0, 1, 1), (1, 0, 4)],
        [(0, 2, 1), (1, 4, 4)],
        [(0, 3, 1), (1, 8, 2)],
        [(0, 4, 1)],
    ]


def test_requests_wait_for_a_row_in_order() -> None:
    scheduler = Scheduler(rows=1, prefill_chunk=4)
    for length in (2, 3):
        scheduler.add(Request([1] * length, SamplingParams(), limit=2))
    assert list(plans(scheduler)) == [[(0, 0, 2)], [(0, 2, 1)], [(0, 0, 3)], [(0, 3, 1)]]


# ---------------------------------------------------------------- several callers, one engine


def test_two_streams_on_one_engine_keep_their_own_text(engine: Engine) -> None:
    expected = [engine.generate(p, GREEDY).text for p in ("abc", "xyz!")]
    streams = [engine.stream(p, GREEDY) for p in ("abc", "xyz!")]
    said = ["", ""]
    open_streams = {0, 1}
    while open_streams:
        for i in sorted(open_streams):
            chunk = next(streams[i], None)
            if chunk is None:
                open_streams.remove(i)
            else:
                said[i] += chunk.text
    assert said == expected


def test_generating_inside_an_open_stream_loses_nothing(engine: Engine) -> None:
    expected = engine.generate("abc", GREEDY)
    stream = engine.stream("abc", GREEDY)
    chunks = [next(stream)]
    engine.generate("another", GREEDY)
    chunks += list(stream)
    assert "".join(c.text for c in chunks) == expected.text
    assert chunks[-1].finish_reason == expected.finish_reason


def test_a_stream_that_is_never_read_holds_no_place(engine: Engine) -> None:
    engine.stream("abc", max_long()).close()
    assert (engine.running, engine.waiting) == (0, 0)
    stream = engine.stream("abc", max_long())
    del stream
    assert (engine.running, engine.waiting) == (0, 0)


def test_one_bad_prompt_of_several_leaves_none_behind(engine: Engine) -> None:
    with pytest.raises(DoesNotFitError):
        engine.generate_many(["abc", "x" * 600])
    assert (engine.running, engine.waiting) == (0, 0)


def test_a_failing_draw_ends_its_request_and_no_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["abc", "defg", "hijkl"]
    expected = [engine.generate(p, GREEDY, ignore_eos=True).tokens for p in prompts]
    long = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    requests = [engine.submit(p, long) for p in prompts]
    for _ in range(5):
        engine.step()

    def fails_once(logits: torch.Tensor, request: Request, generator: torch.Generator) -> object:
        if request is requests[1]:
            raise RuntimeError("no draw")
        return choose_token(logits, request, generator)

    monkeypatch.setattr("hunyuan.engine.engine.choose_token", fails_once)
    with pytest.raises(RuntimeError, match="no draw"):
        engine.step()
    while engine.busy:
        engine.step()
    assert requests[1].finish_reason == "cancelled"
    assert [tuple(requests[i].generated) for i in (0, 2)] == [expected[0], expected[2]]


def test_damaged_weights_are_named(engine: Engine) -> None:
    with torch.no_grad():
        engine.model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(HunyuanError, match="no finite logits"):
        engine.generate("abc")
    assert (engine.running, engine.waiting) == (0, 0)


@pytest.mark.parametrize(
    "overrides",
    [
        {"top_k": 2.5},
        {"top_k": True},
        {"logprobs": 1.5},
        {"max_tokens": 2.5},
        {"seed": 1.5},
        {"temperature": "hot"},
        {"repetition_penalty": 1e-300},
        {"logit_bias": {"5": 1}},
        {"logit_bias": [1]},
        {"logit_bias": {99999: 1}},
        {"stop_token_ids": 5},
        {"stop_token_ids": ["a"]},
        {"stop": None},
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_named(engine: Engine, overrides: dict) -> None:
    with pytest.raises(UsageError, match=r"must be|token id"):
        engine.generate("x", **overrides)
    assert (engine.running, engine.waiting) == (0, 0)


def test_tiny_temperatures_are_greedy(engine: Engine) -> None:
    assert engine.generate("abc", GREEDY, temperature=1e-45).tokens == (
        engine.generate("abc", GREEDY).tokens
    )
