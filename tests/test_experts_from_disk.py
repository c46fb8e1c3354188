"""Experts run from disk: the same bits as in memory, and never a wrong token."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import write_random_checkpoint
from serving import http, listening
from test_native import ISAS

from hunyuan import Engine, SamplingParams
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.load import load_model, load_packed, load_tokenizer, pack_checkpoint
from hunyuan.cli.main import cli
from hunyuan.engine.budget import plan_memory
from hunyuan.engine.cache import PagedCache
from hunyuan.engine.request import Request
from hunyuan.engine.scheduler import Segment
from hunyuan.errors import BadDataError, DoesNotFitError, UsageError
from hunyuan.memory import parse_memory
from hunyuan.model.config import ModelConfig, preset
from hunyuan.native.library import ISA_VARIABLE, unavailable
from hunyuan.native.transformer import NativeTransformer
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost

pytestmark = pytest.mark.skipif(bool(unavailable()), reason="the kernels are not compiled")

SIZES: dict[str, Any] = {"hidden": 256, "head_dim": 32, "heads": 4, "kv_heads": 2, "ffn": 96}
TINY = replace(preset("tiny"), **SIZES)
MODELS: dict[str, ModelConfig] = {
    # As Hunyuan-Large: one of 16 experts and a shared one for each token, layers in pairs.
    "top-1": replace(TINY, layers=4, experts=16, top_k=1, shared_experts=1, cla_share=2),
    "top-2": replace(TINY, layers=3, experts=8, top_k=2, shared_experts=1, cla_share=1),
    "no shared": replace(TINY, layers=2, experts=4, top_k=2, shared_experts=0, cla_share=1),
}
SCHEMES = {"top-1": "q4", "top-2": "q8", "no shared": "q4"}


class Pair:
    """A model twice: quantised in memory, and with its experts on disk."""

    def __init__(self, folder: Path, config: ModelConfig, scheme: Any) -> None:
        source = write_random_checkpoint(folder / "model", config)
        self.whole, self.disk = folder / "whole", folder / "disk"
        convert(source, self.whole, quantize=scheme)
        convert(source, self.disk, quantize=scheme, experts_on_disk=True)

    def from_disk(self, slots: int, **options: Any) -> NativeTransformer:
        return pack_checkpoint(open_checkpoint(self.disk), slots=slots, **options)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    made: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in made:
            made[name] = Pair(tmp_path_factory.mktemp("pair"), MODELS[name], SCHEMES[name])
        return made[name]

    return pair


@pytest.fixture
def copy(pairs: Callable[[str], Pair], tmp_path: Path) -> Path:
    """A folder with experts on disk that may be damaged."""
    return Path(shutil.copytree(pairs("top-1").disk, tmp_path / "copy"))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def steps_logits(model: NativeTransformer, sequences: int, chunk: int = 40) -> torch.Tensor:
    """Logits of every token of some sequences that run together, prompts then single tokens."""
    ids = [random_ids(60, seed) for seed in range(sequences)]
    requests = [Request(one, SamplingParams(), limit=1) for one in ids]
    cache = PagedCache(model.config, 3 * sequences, torch.bfloat16)
    parts, start = [], 0
    while start < 60:
        count = chunk if start < chunk else 1
        segments = [
            Segment(request, start, count, range(3 * i, 3 * i + 3))
            for i, request in enumerate(requests)
        ]
        flat = [token for one in ids for token in one[start : start + count]]
        positions = torch.arange(start, start + count).repeat(sequences)
        wanted = torch.arange(len(flat), dtype=torch.int32)
        view = cache.view(segments)
        parts.append(model.step_logits(torch.tensor(flat), positions, view, wanted))
        start += count
    return torch.cat(parts)


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_as_in_memory(
    pairs: Callable[[str], Pair],
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    isa: str,
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, isa)
    config, pair = MODELS[name], pairs(name)
    every = config.layers * config.experts
    for sequences in (1, 3):
        wanted = steps_logits(load_packed(pair.whole), sequences)
        for count, slots in ((1, 2), (2, 3), (3, config.experts + 1), (2, every)):
            threads(count)
            model = pair.from_disk(slots)
            found = steps_logits(model, sequences)
            assert torch.equal(found, wanted), (sequences, count, slots)
            assert model.experts is not None
            stats = model.experts.stats()
            assert stats.resident <= stats.slots == slots
            assert stats.tokens == 60 * sequences
            if slots == every:  # each is read once
                assert stats.bytes_read == stats.resident * stats.extent_bytes


def test_a_chunk_visits_each_expert_once(pairs: Callable[[str], Pair]) -> None:
    """With two slots for 16 experts, a prompt that needs all of them reads each one time."""
    model = pairs("top-1").from_disk(2)
    steps_logits(model, 8, chunk=60)
    assert model.experts is not None
    stats, visited = model.experts.stats(), int((model.expert_tokens() > 0).sum())
    assert stats.demanded == visited
    assert visited == 4 * 16
    in_vain = stats.ahead - stats.ahead_used
    assert stats.bytes_read <= (visited + in_vain) * stats.extent_bytes


def test_what_is_used_often_stays(pairs: Callable[[str], Pair]) -> None:
    """The same token again and again: after the first step nothing is read any more."""
    model = pairs("top-1").from_disk(MODELS["top-1"].layers * 2)
    cache = PagedCache(model.config, 4, torch.bfloat16)
    request = Request([5] * 64, SamplingParams(), limit=1)
    read = []
    for start in range(0, 64):
        view = cache.view([Segment(request, 0, 1, range(1))])
        wanted = torch.zeros(1, dtype=torch.int32)
        model.step_logits(torch.tensor([5]), torch.tensor([0]), view, wanted)
        assert model.experts is not None
        read.append(model.experts.stats().bytes_read)
        assert start < 8 or read[-1] == read[7]


def test_two_engines_share_one_file(pairs: Callable[[str], Pair]) -> None:
    tokenizer, pair = load_tokenizer(pairs("top-1").disk), pairs("top-1")
    params = SamplingParams(temperature=1, seed=3, max_tokens=24, ignore_eos=True)
    prompts = ["one and two", "three", "four and some more"]
    whole = Engine(load_packed(pair.whole), tokenizer, context=128)
    wanted = [c.tokens for c in whole.generate_many(prompts, params)]
    first, second = (Engine(pair.from_disk(slots), tokenizer, context=128) for slots in (2, 9))
    streams = [[engine.submit(p, params) for p in prompts] for engine in (first, second)]
    while first.busy or second.busy:
        first.step()
        second.step()
    for requests in streams:
        assert [tuple(request.generated) for request in requests] == wanted


def test_torch_reads_the_same_weights(pairs: Callable[[str], Pair]) -> None:
    """The oracle's way: every expert unpacked from the file equals the folder's in memory."""
    pair = pairs("top-2")
    found, wanted = load_model(pair.disk).state_dict(), load_model(pair.whole).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# ---------------------------------------------------------------- damage


def index_of(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "experts.json").read_text())
    return index


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("slots", [2, 64])
def test_an_altered_extent_is_named_and_gives_no_token(copy: Path, slots: int) -> None:
    """Every expert of layer 2 has one bit changed."""
    extents = index_of(copy)["extents"][2]
    for entry in extents:
        flip(copy / "experts.bin", entry["offset"] + 1000)
    model = pack_checkpoint(open_checkpoint(copy), slots=slots)
    engine = Engine(model, load_tokenizer(copy), context=64)
    for _ in range(2):  # and not only the first time
        with pytest.raises(BadDataError, match="layer 2 expert") as caught:
            engine.generate("hello", max_tokens=4)
        assert any(entry["hash"] in str(caught.value) for entry in extents)
        assert "experts.bin" in str(caught.value)
    for entry in extents:  # mended, the same engine goes on
        flip(copy / "experts.bin", entry["offset"] + 1000)
    assert engine.generate("hello", max_tokens=4, ignore_eos=True).finish_reason == "length"


def test_a_later_change_is_found_if_every_read_is_checked(copy: Path) -> None:
    tokenizer = load_tokenizer(copy)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    models = (
        pack_checkpoint(open_checkpoint(copy), slots=2, check_always=c) for c in (False, True)
    )
    once, always = (Engine(model, tokenizer, context=64) for model in models)
    answers = [engine.generate("hello", params).tokens for engine in (once, always)]
    for layer in index_of(copy)["extents"]:
        for entry in layer:  # in the zeros at the end, which nobody computes with
            flip(copy / "experts.bin", entry["offset"] + entry["length"] - 1)
    assert once.generate("hello", params).tokens == answers[0] == answers[1]
    with pytest.raises(BadDataError, match="was altered"):
        always.generate("hello", params)


def test_truncated_after_opening_is_named(copy: Path) -> None:
    model = pack_checkpoint(open_checkpoint(copy), slots=2)
    with (copy / "experts.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(BadDataError, match=r"ends within layer 0 expert \d+ \(hash [0-9a-f]{16}\)"):
        Engine(model, load_tokenizer(copy), context=64).generate("hello", max_tokens=4)


def test_the_command_ends_with_it(copy: Path) -> None:
    for layer in index_of(copy)["extents"]:
        for entry in layer:
            flip(copy / "experts.bin", entry["offset"] + 1000)
    run = CliRunner().invoke(cli, ["generate", str(copy), "hello", "--context", "64"])
    assert isinstance(run.exception, BadDataError)
    assert "was altered" in run.exception.en
    assert "文件已被改动" in run.exception.zh
    assert "\n" not in run.exception.en + run.exception.zh


def test_a_server_survives_an_unreadable_expert_and_counts_its_reads(copy: Path) -> None:
    """A request that needs it gets an error that says so; the next, after mending, an answer."""
    entries = [entry for layer in index_of(copy)["extents"] for entry in layer]
    engine = Engine(
        pack_checkpoint(open_checkpoint(copy), slots=2), load_tokenizer(copy), context=128
    )
    asked = {"model": "tiny", "prompt": "hello", "max_tokens": 4, "temperature": 0}
    for entry in entries:
        flip(copy / "experts.bin", entry["offset"] + 1000)
    with listening(create_app(ModelHost.of_engine(engine, "tiny"))) as address:
        client = http(address)
        failed = client.post("/v1/completions", json=asked)
        assert failed.status_code == 500
        assert "was altered" in failed.json()["error"]["message"]
        for entry in entries:
            flip(copy / "experts.bin", entry["offset"] + 1000)
        answered = client.post("/v1/completions", json=asked)
        assert answered.status_code == 200
        assert answered.json()["usage"]["completion_tokens"] > 0
        counters = {
            line.split("{")[0]: float(line.split()[-1])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("hunyuan:")
        }
    stats = engine.stats().disk
    assert stats is not None
    assert counters["hunyuan:disk_read_bytes_total"] == stats.bytes_read > 0
    assert counters["hunyuan:expert_visits_total"] == stats.demanded > 0
    assert counters["hunyuan:expert_hits_total"] == stats.hits


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "experts.bin").unlink(), "experts.bin: is missing"),
        (lambda f: (f / "experts.json").unlink(), "without experts.json"),
        (lambda f: (f / "experts.json").write_text("{}"), "format None None is not"),
        (lambda f: (f / "experts.json").write_text("{"), "not a whole index"),
        (lambda f: (f / "experts.bin").write_bytes(b"x" * 5000), "is 5000 bytes long"),
        (lambda f: change(f, packing=9), "packed in layout 9, the kernels read layout 1"),
        (lambda f: change(f, ffn=192), "ffn are"),
        (lambda f: change(f, experts=1 << 40), "out of range"),
    ],
)
def test_damaged_files_are_refused_when_loading(
    copy: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(copy)
    with pytest.raises(BadDataError) as caught:
        load_packed(copy)
    assert words in str(caught.value)


def change(folder: Path, **changes: Any) -> None:
    (folder / "experts.json").write_text(json.dumps(index_of(folder) | changes))


# ---------------------------------------------------------------- memory


def test_sizes_are_read_as_people_write_them() -> None:
    known = {"20G": 20 * 10**9, "20GB": 20 * 10**9, "1.5gib": 3 << 29, "800 M": 8 * 10**8}
    assert {text: parse_memory(text) for text in known} == known
    for bad in ("", "G", "-1G", "0", "20 X", "1iB"):
        with pytest.raises(UsageError, match="must be a size such as 20G"):
            parse_memory(bad)


def test_a_limit_is_divided_before_anything_is_taken(pairs: Callable[[str], Pair]) -> None:
    checkpoint = open_checkpoint(pairs("top-1").disk)
    assert checkpoint.experts is not None
    options: dict[str, Any] = {"context": 256, "max_sequences": 2, "kv_dtype": torch.bfloat16}
    ample = plan_memory(checkpoint, 1 << 40, **options)
    assert ample.slots == checkpoint.experts.layout.extents
    with pytest.raises(DoesNotFitError, match=r"at least [\d.]+ [MG]B are needed") as caught:
        plan_memory(checkpoint, 10_000_000, **options)
    least = parse_memory(str(caught.value).split("at least ")[1].split(" are needed")[0])
    tight = plan_memory(checkpoint, least + 20_000_000, **options)
    assert tight.total <= tight.limit == least + 20_000_000
    assert tight.context == 256
    assert 2 <= tight.slots <= ample.slots


def test_a_limit_below_the_minimum_is_refused_by_the_command(
    pairs: Callable[[str], Pair],
) -> None:
    for folder in (pairs("top-1").disk, pairs("top-1").whole):
        run = CliRunner().invoke(cli, ["generate", str(folder), "hi", "--memory", "50M"])
        assert isinstance(run.exception, DoesNotFitError)
        assert "50.0 MB of memory are too little, at least" in run.exception.en
        assert "50.0 MB 内存不足，至少需要" in run.exception.zh


def test_an_answer_within_a_limit_reports_what_it_read(pairs: Callable[[str], Pair]) -> None:
    command = ["generate", str(pairs("top-1").disk), "hello", "--memory", "4G", "--max-tokens", "5"]
    run = CliRunner().invoke(cli, command)
    assert run.exit_code == 0, run.output
    assert "experts from disk:" in run.stderr
