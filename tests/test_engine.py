"""The engine: batched = alone, chunked = whole, streamed = joined; limits, stops, cancellation."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan import Engine, SamplingParams
from hunyuan.engine import sampling
from hunyuan.engine.blocks import BlockPool
from hunyuan.engine.cache import PagedCache, block_bytes
from hunyuan.engine.request import Request
from hunyuan.engine.sampling import choose_token
from hunyuan.engine.scheduler import Scheduler, Segment
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
    # 256 bytes a token in float32: 2 slots, 2 heads of 8, K and V; 109 blocks of 8,192 bytes fit
    with pytest.raises(DoesNotFitError, match="largest that fits is 3488"):
        Engine(random_model(context=4096), byte_tokenizer, context=4096)
    assert Engine(random_model(context=4096), byte_tokenizer).context == 3488
    with pytest.raises(DoesNotFitError, match="a cache of 5000 tokens"):
        Engine(random_model(), byte_tokenizer, cache_tokens=5000)


def test_requests_share_one_cache(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    engine = Engine(random_model(), byte_tokenizer, max_sequences=3, context=100)
    assert engine.cache.k.shape[1] == 3 * 4
    assert Engine(random_model(), byte_tokenizer, cache_tokens=640).cache.k.shape[1] == 20
    with pytest.raises(UsageError, match="cache_tokens=64: must be at least the context of 100"):
        Engine(random_model(), byte_tokenizer, context=100, cache_tokens=64)
    with pytest.raises(UsageError, match="cache_tokens=-5: must be at least"):
        Engine(random_model(), byte_tokenizer, cache_tokens=-5)


def test_unknown_kv_dtypes_are_named(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="kv_dtype='int4' is unknown; use auto, float32"):
        Engine(random_model(), byte_tokenizer, kv_dtype="int4")


def test_cache_bytes_are_those_of_the_formula(random_model: MakeModel) -> None:
    for share, slots in ((1, 4), (2, 2), (3, 2), (4, 1)):
        config = random_model(cla_share=share).config
        for dtype in (torch.float32, torch.bfloat16):
            cache = PagedCache(config, 5, dtype)
            assert cache.nbytes == 5 * 32 * config.kv_bytes_per_token(dtype.itemsize)
            assert cache.nbytes == 5 * block_bytes(config, dtype)
            assert cache.k.shape[0] == slots == config.slots
        # One float32 scale per token and head, for K and for V.
        scales = 5 * 32 * 2 * config.kv_heads * slots * 4
        whole = PagedCache(config, 5, torch.int8)
        assert whole.nbytes == 5 * 32 * config.kv_bytes_per_token(1) + scales
        assert whole.nbytes == 5 * block_bytes(config, torch.int8)
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


def scheduler_of(
    blocks: int = 64, max_sequences: int = 4, prefill_chunk: int = 64, shared_chunk: int = 32
) -> Scheduler:
    return Scheduler(
        BlockPool(blocks),
        max_sequences=max_sequences,
        prefill_chunk=prefill_chunk,
        shared_chunk=shared_chunk,
    )


def asked(name: int, length: int, limit: int) -> Request:
    """A request of ``length`` tokens that are all ``name``."""
    return Request([name] * length, SamplingParams(), limit=limit)


def plans(scheduler: Scheduler) -> Iterator[list[tuple[int, int, int]]]:
    """Run to the end without a model: (first token as a name, start, count) of every segment."""
    while segments := scheduler.plan():
        yield [(s.request.prompt[0], s.start, s.count) for s in segments]
        for s in segments:
            samples = s.complete
            scheduler.ran(s.request, s.start + s.count)
            s.request.cached = s.start + s.count
            if samples:
                s.request.generated.append(0)
                if len(s.request.generated) == s.request.limit:
                    scheduler.remove(s.request)


def test_a_long_prompt_does_not_stop_the_others() -> None:
    """Every step carries the other's token, and only a short piece of the prompt beside it."""
    scheduler = scheduler_of()
    scheduler.add(asked(1, 1, limit=5))
    scheduler.add(asked(2, 150, limit=1))
    assert list(plans(scheduler)) == [
        [(1, 0, 1), (2, 0, 63)],
        [(1, 1, 1), (2, 63, 32)],
        [(1, 2, 1), (2, 95, 32)],
        [(1, 3, 1), (2, 127, 23)],
        [(1, 4, 1)],
    ]


def test_prompts_take_turns() -> None:
    scheduler = scheduler_of()
    scheduler.add(asked(1, 300, limit=1))
    scheduler.add(asked(2, 100, limit=1))
    order = [(name, count) for step in plans(scheduler) for name, _, count in step]
    assert order[:4] == [(1, 64), (2, 64), (1, 64), (2, 36)], "the short one need not wait"
    assert sum(count for name, count in order if name == 1) == 300


def test_short_prompts_share_a_step() -> None:
    scheduler = scheduler_of()
    for name in (1, 2, 3):
        scheduler.add(asked(name, 30, limit=1))
    assert list(plans(scheduler)) == [[(1, 0, 30), (2, 0, 30), (3, 0, 4)], [(3, 4, 26)]]


def test_requests_wait_for_a_place_in_order() -> None:
    scheduler = scheduler_of(max_sequences=1)
    for name, length in ((1, 2), (2, 3)):
        scheduler.add(asked(name, length, limit=2))
    assert list(plans(scheduler)) == [[(1, 0, 2)], [(1, 2, 1)], [(2, 0, 3)], [(2, 3, 1)]]


def test_when_the_cache_is_full_the_newest_gives_way_and_comes_back() -> None:
    scheduler = scheduler_of(blocks=4)
    for name in (1, 2):
        scheduler.add(asked(name, 40, limit=60))
    steps = list(plans(scheduler))
    tokens = [segment for step in steps for segment in step]
    beginnings = [s for s in tokens if s[0] == 2 and s[1] == 0]
    assert len(beginnings) == 2, "the second request began twice"
    assert all(s[1] == 40 + i for i, s in enumerate(t for t in tokens if t[0] == 1 and t[1] >= 40))
    assert scheduler.running == scheduler.waiting == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_schedules_end_and_lose_no_block(data: st.DataObject) -> None:
    """Whatever is asked, every request gets its tokens, in order, and all blocks come back."""
    pool = BlockPool(data.draw(st.integers(6, 20)))
    scheduler = Scheduler(pool, max_sequences=3, prefill_chunk=48, shared_chunk=16)
    total = pool.free
    wanted = data.draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 130)), max_size=8))
    requests = [asked(name, length, limit=40) for name, length in wanted]
    for request in requests:
        scheduler.add(request)
    for _ in plans(scheduler):
        held = {b for table in scheduler._running.values() for b in table.blocks}
        assert pool.free + len(held) == total
    assert all(len(r.generated) == 40 for r in requests)
    assert pool.free == total


# ---------------------------------------------------------------- prefixes


def test_a_known_prefix_is_not_computed_again(engine: Engine) -> None:
    """The same answer with and without; whole blocks of 32 tokens are found again."""
    system = "You are helpful. " * 6  # 102 bytes, a token each
    fresh = [engine.generate(system + q, GREEDY).tokens for q in ("one?", "two?")]
    request = engine.submit(system + "two?", GREEDY)
    while engine.busy:
        engine.step()
    assert tuple(request.generated) == fresh[1]
    assert request.reused == 96
    other = Engine(engine.model, engine.tokenizer)
    assert other.generate(system + "two?", GREEDY).tokens == fresh[1]


def test_a_conversation_goes_on_from_its_own_answer(engine: Engine) -> None:
    first = engine.submit("x" * 40, SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    while engine.busy:
        engine.step()
    longer = engine.submit([*first.prompt, *first.generated, 65, 66], GREEDY)
    engine.step()
    assert longer.reused == 64, "79 tokens were cached: two whole blocks"


def test_prefixes_that_only_look_alike_are_not_shared() -> None:
    pool = BlockPool(8)
    a, b = [1] * 32 + [2] * 32, [3] * 32 + [2] * 32
    table = pool.open(a)
    assert pool.extend(table, 64)
    pool.publish(table, 64, lambda start, count: a[start : start + count])
    pool.close(table)
    assert len(pool.open([*b, 0]).blocks) == 0
    assert len(pool.open([*a, 0]).blocks) == 2
    assert len(pool.open(a).blocks) == 1, "one token is always left to run"


def test_a_reused_block_forgets_what_it_held() -> None:
    pool = BlockPool(2)
    for name in (1, 2, 1):
        tokens = [name] * 64
        table = pool.open([*tokens, 0])
        assert not table.blocks, "two blocks hold one prefix at a time"
        assert pool.extend(table, 64)
        pool.publish(table, 64, lambda start, count, t=tokens: t[start : start + count])
        pool.close(table)
    assert len(pool.open([1] * 65).blocks) == 2


def test_answers_survive_preemption(random_model: MakeModel, byte_tokenizer: Tokenizer) -> None:
    """Four answers in a cache for two: the same tokens as with room for all."""
    model = random_model()
    params = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)
    prompts = ["a" * 30, "b" * 31, "c" * 33, "d" * 20]
    roomy = Engine(model, byte_tokenizer, context=128)
    tight = Engine(model, byte_tokenizer, context=128, cache_tokens=160)
    expected = [c.tokens for c in roomy.generate_many(prompts, params)]
    assert [c.tokens for c in tight.generate_many(prompts, params)] == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_caches_stay_close(
    random_model: MakeModel, byte_tokenizer: Tokenizer, dtype: str
) -> None:
    """Teacher-forced logits against the float32 cache: rounding, and nothing worse."""
    model = random_model()
    ids = torch.randint(256, (70,), generator=torch.Generator().manual_seed(3))
    request = Request(ids.tolist(), SamplingParams(), limit=1)
    found = []
    for kind in (torch.float32, getattr(torch, dtype)):
        cache = PagedCache(model.config, 3, kind)
        with torch.inference_mode():
            parts = [
                model(
                    ids[None, start : start + 10],
                    torch.arange(start, start + 10)[None],
                    cache.view([Segment(request, start, 10, (1, 2, 0))]),
                )
                for start in range(0, 70, 10)
            ]
        found.append(torch.cat(parts, 1))
    difference = (found[0] - found[1]).abs()
    assert 0 < difference.median() < 0.02 * found[0].std()


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

    def fails_once(logits: torch.Tensor, request: Request, *rest: Any) -> object:
        if request is requests[1]:
            raise RuntimeError("no draw")
        return choose_token(logits, request, *rest)

    monkeypatch.setattr("hunyuan.engine.engine.choose_token", fails_once)
    ended = [(r, c.finish_reason) for r, c in engine.step() if c.finish_reason]
    assert ended == [(requests[1], "cancelled")]
    while engine.busy:
        engine.step()
    with pytest.raises(RuntimeError, match="no draw"):
        requests[1].completion()
    assert [tuple(requests[i].generated) for i in (0, 2)] == [expected[0], expected[2]]


def test_threads_may_share_an_engine(engine: Engine) -> None:
    """Each gets its own answers, whoever runs the steps."""
    prompts = ["abc", "defg", "hijkl", "m" * 40]
    expected = [engine.generate(p, GREEDY).tokens for p in prompts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda p: engine.generate(p, GREEDY).tokens, prompts * 3))
    assert found == expected * 3
    assert (engine.running, engine.waiting) == (0, 0)


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
