"""The compiled kernels against torch: layouts, products, attention, whole models, every
instruction set that runs here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hunyuan
from hunyuan import Engine, SamplingParams
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.load import load_packed, pack_transformer, why_not_packed
from hunyuan.engine.cache import PagedCache
from hunyuan.engine.request import Request
from hunyuan.engine.scheduler import Segment
from hunyuan.errors import UsageError
from hunyuan.formats.ggml import dequantize
from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.model.config import Llama3Scaling, Rope
from hunyuan.model.transformer import Transformer
from hunyuan.native import library
from hunyuan.native.matrix import Arena, PackedMatrix, pack, packable
from hunyuan.native.transformer import NativeTransformer
from hunyuan.tokenizer.tokenizer import Tokenizer

if isinstance(library._load(), str):
    pytest.skip(f"native kernels: {library._load()}", allow_module_level=True)

MakeModel = Callable[..., Transformer]
FLOAT_TYPES = {
    GGMLType.F32: torch.float32,
    GGMLType.F16: torch.float16,
    GGMLType.BF16: torch.bfloat16,
}
QUANTISED = [
    *(GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q5_1),
    *(GGMLType.Q8_0, GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K),
]
# Where each block type keeps its float16 scales, so that random bytes become sane weights.
HALVES = {
    **{kind: [0] for kind in (GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q8_0)},
    **{kind: [0, 2] for kind in (GGMLType.Q4_1, GGMLType.Q5_1, GGMLType.Q4_K, GGMLType.Q5_K)},
    GGMLType.Q6_K: [208],
}


def available() -> list[str]:
    """Instruction sets that run on this machine."""
    found = []
    before = os.environ.get(library.ISA_VARIABLE)
    for name in ("generic", "avx2", "avx512"):
        os.environ[library.ISA_VARIABLE] = name
        if library.library().hy_isa() is not None:
            found.append(name)
    os.environ.pop(library.ISA_VARIABLE)
    if before is not None:
        os.environ[library.ISA_VARIABLE] = before
    return found


ISAS = available()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one instruction set after the other."""
    monkeypatch.setenv(library.ISA_VARIABLE, request.param)
    assert library.isa() == request.param
    return str(request.param)


def random_blocks(kind: GGMLType, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Rows of blocks with random quants and scales around 0.01: (rows, bytes) uint8."""
    generator = torch.Generator().manual_seed(seed)
    per_block, size = BLOCK[kind]
    count = rows * columns // per_block
    blocks = torch.randint(256, (count, size), generator=generator, dtype=torch.uint8)
    for at in HALVES[kind]:
        scales = (torch.randn(count, generator=generator) * 0.01).half()
        blocks[:, at : at + 2] = scales.view(torch.uint8).view(count, 2)
    return blocks.view(rows, -1)


def float_rows(kind: GGMLType, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(rows, columns, generator=generator).to(FLOAT_TYPES[kind])
    return weights.view(torch.uint8).view(rows, -1)


# ---------------------------------------------------------------- layout


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_packing_moves_bits_and_rounds_nothing(kind: GGMLType, rows: int) -> None:
    blocks = random_blocks(kind, rows, 512)
    matrix = pack(kind, blocks, Arena())
    expected = dequantize(blocks.flatten(), kind, torch.float32).view(rows, 512)
    found = torch.stack([matrix.row(i) for i in range(rows)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", FLOAT_TYPES, ids=lambda k: k.name)
def test_floats_are_packed_as_they_are(kind: GGMLType) -> None:
    rows = float_rows(kind, 21, 50)
    matrix = pack(kind, rows, Arena())
    expected = rows.view(FLOAT_TYPES[kind]).float()
    assert torch.equal(torch.stack([matrix.row(i) for i in range(21)]), expected)


def test_float16_of_every_kind_is_read() -> None:
    """Zeros, subnormals, infinities, not-a-number: all 65,536 of them."""
    halves = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(1, -1)
    matrix = pack(GGMLType.F16, halves.view(torch.uint8), Arena())
    expected = halves.view(torch.float16)[0].float()
    found = matrix.row(0)
    assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
    assert torch.equal(found.isnan(), expected.isnan())


def test_widths_that_no_group_divides_are_not_packable() -> None:
    assert packable(GGMLType.Q8_0, 96)
    assert not packable(GGMLType.Q8_0, 100)
    assert not packable(GGMLType.Q4_K, 96)
    assert packable(GGMLType.BF16, 97)


def test_arenas_hand_out_disjoint_aligned_memory() -> None:
    arena = Arena()
    parts = [arena.take(n) for n in (1, 100, 1 << 20, 1 << 27, 64)]
    for i, part in enumerate(parts):
        assert part.data_ptr() % 64 == 0
        part.fill_(i)
    assert [int(part.max()) for part in parts] == [int(part.min()) for part in parts]


# ---------------------------------------------------------------- products


def rounded(x: torch.Tensor) -> torch.Tensor:
    """What the kernels make of activations: whole numbers from -127 to 127 in groups of 32.

    A group that holds a value above eight times its row's root mean square is rounded a second
    time, in steps 254 times as fine.
    """
    groups = x.view(len(x), -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    scale = largest / 127
    inverse = torch.where(largest > 0, 127 / largest, 0)
    whole = (groups * inverse).round() * scale
    fine = scale / 254
    left = (groups - whole) * torch.where(largest > 0, 1 / fine, 0)
    outlier = largest > 8 * x.square().mean(-1).sqrt()[:, None, None]
    return torch.where(outlier, whole + left.round() * fine, whole).view_as(x)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
def test_quantised_products_equal_the_definition(isa: str, kind: GGMLType) -> None:
    """Exactly the weights times the rounded activations: only float32 additions differ."""
    blocks = random_blocks(kind, 181, 512)
    weights = dequantize(blocks.flatten(), kind, torch.float32).view(181, 512).double()
    x = torch.randn(37, 512, generator=torch.Generator().manual_seed(2))
    x[3] = 0
    x[4, 64:96] = 0
    x[5] *= 1e4
    x[6, 200] = 60
    x[7, 511] = -25
    expected = rounded(x).double() @ weights.T
    found = pack(kind, blocks, Arena()).matmul(x, threads=2)
    scale = (rounded(x).double().abs() @ weights.abs().T).clamp(min=1e-9)
    assert float(((found - expected).abs() / scale).max()) < 1e-6
    assert torch.equal(found[3], torch.zeros(181))


@pytest.mark.parametrize("kind", FLOAT_TYPES, ids=lambda k: k.name)
@pytest.mark.parametrize("columns", [64, 97])
def test_float_products_equal_the_definition(isa: str, kind: GGMLType, columns: int) -> None:
    rows = float_rows(kind, 35, columns)
    x = torch.randn(21, columns, generator=torch.Generator().manual_seed(2))
    weights = rows.view(FLOAT_TYPES[kind]).double()
    found = pack(kind, rows, Arena()).matmul(x)
    assert float((found - x.double() @ weights.T).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", [*QUANTISED, *FLOAT_TYPES], ids=lambda k: k.name)
def test_a_token_is_computed_alike_in_any_company(isa: str, kind: GGMLType) -> None:
    """Bit for bit, for every number of tokens in a tile and over its border."""
    quantised = kind in HALVES
    rows = random_blocks(kind, 100, 256) if quantised else float_rows(kind, 100, 256)
    matrix = pack(kind, rows, Arena())
    x = torch.randn(33, 256, generator=torch.Generator().manual_seed(2))
    x[2, 7] = x[20, 100] = 90  # outliers, whose groups take a second product
    alone = torch.cat([matrix.matmul(row[None]) for row in x])
    for count in (2, 3, 5, 7, 8, 12, 15, 16, 17, 33):
        assert torch.equal(matrix.matmul(x[:count], threads=2), alone[:count])


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-20, 1e20), st.integers(0, 1000))
def test_activations_of_any_size_keep_eight_bits(size: float, seed: int) -> None:
    matrix = pack(GGMLType.Q8_0, _identity(), Arena())
    x = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed)) * size
    error = (matrix.matmul(x) - x).abs().max()
    assert float(error) <= float(x.abs().max()) / 127 * 0.51


def _identity() -> torch.Tensor:
    """32 x 32 in Q8_0: d = 1/64, q = 64 on the diagonal."""
    blocks = torch.zeros(32, 34, dtype=torch.uint8)
    blocks[:, :2] = torch.tensor([1 / 64]).half().view(torch.uint8)
    blocks[torch.arange(32), 2 + torch.arange(32)] = 64
    return blocks


# ---------------------------------------------------------------- whole models

SHAPES: dict[str, dict[str, Any]] = {
    "hunyuan-large": {},
    "no sharing": {"cla_share": 1},
    "share of four": {"cla_share": 4},
    "share that does not divide": {"layers": 5},
    "top-2 renormalised": {"top_k": 2, "norm_topk_prob": True},
    "top-3, no shared expert": {"top_k": 3, "shared_experts": 0},
    "two shared experts, 19 routed": {"shared_experts": 2, "experts": 19},
    "dense": {"experts": 0, "shared_experts": 0},
    "qwen": {
        **{"experts": 0, "shared_experts": 0, "cla_share": 1, "qk_norm": False},
        **{"qkv_bias": True, "tied": False},
    },
    "all biases, wide heads": {
        **{"qk_norm": False, "qkv_bias": True, "output_bias": True, "head_dim": 80},
    },
    "llama 3 rope, one kv head": {
        "kv_heads": 1,
        "head_dim": 32,
        "rope": Rope(
            theta=1e4,
            llama3=Llama3Scaling(
                factor=8, low_freq_factor=1, high_freq_factor=4, original_context=64
            ),
        ),
    },
    "odd widths": {"hidden": 72, "ffn": 100, "vocab": 391},
    "multi-head": {"kv_heads": 10},
}


@pytest.fixture
def model(random_model: MakeModel, request: pytest.FixtureRequest) -> Transformer:
    return random_model(**({"head_dim": 16} | SHAPES[request.param]))


def run_native(
    model: NativeTransformer,
    ids: torch.Tensor,
    sizes: list[int],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Logits of one sequence run in pieces of the given sizes, through scattered blocks."""
    count = -(-len(ids) // 32)
    blocks = torch.randperm(count + 2, generator=torch.Generator().manual_seed(5))[:count]
    cache = PagedCache(model.config, count + 2, dtype)
    # What a block held before must not matter.
    for part in (cache.k, cache.v):
        part.fill_(float("nan") if dtype.is_floating_point else 99)
    request = Request(ids.tolist(), SamplingParams(), limit=1)
    parts, start = [], 0
    for size in sizes:
        view = cache.view([Segment(request, start, size, blocks.tolist())])
        positions = torch.arange(start, start + size)
        wanted = torch.arange(size, dtype=torch.int32)
        piece = ids[start : start + size].contiguous()
        parts.append(model.step_logits(piece, positions, view, wanted))
        start += size
    assert start == len(ids)
    return torch.cat(parts)


def some_ids(model: Transformer, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab, (count,), generator=generator)


@pytest.mark.parametrize("model", SHAPES, indirect=True)
def test_float_models_equal_torch(isa: str, model: Transformer) -> None:
    ids = some_ids(model, 90)
    with torch.no_grad():
        expected = model(ids[None])[0]
    found = run_native(pack_transformer(model), ids, [90])
    assert float((found - expected).abs().max()) < 1e-4


@pytest.mark.parametrize(
    "model", ["hunyuan-large", "qwen", "all biases, wide heads"], indirect=True
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_pieces_give_the_whole_bit_for_bit(
    isa: str, model: Transformer, dtype: torch.dtype
) -> None:
    native = pack_transformer(model)
    ids = some_ids(model, 90)
    whole = run_native(native, ids, [90], dtype)
    for sizes in ([1] * 90, [40, 50], [33, 1, 1, 31, 24]):
        assert torch.equal(run_native(native, ids, sizes, dtype), whole)


def test_long_sequences_are_split_among_threads_alike(random_model: MakeModel, isa: str) -> None:
    """More than one span of 512 keys: decoding splits spans, a prompt runs through them."""
    native = pack_transformer(random_model(head_dim=16, layers=2, context=2048))
    ids = some_ids(random_model(), 1100)
    whole = run_native(native, ids, [1100])
    assert torch.equal(run_native(native, ids, [1040] + [1] * 60), whole)
    assert torch.equal(run_native(native, ids, [500, 530, 20, 50]), whole)


def test_sequences_in_one_step_do_not_see_each_other(random_model: MakeModel, isa: str) -> None:
    model = random_model(head_dim=16, top_k=2)
    native = pack_transformer(model)
    ids = [some_ids(model, n, seed=n) for n in (1, 40, 70)]
    alone = [run_native(native, row, [len(row)]) for row in ids]
    cache = PagedCache(model.config, 6, torch.float32)
    requests = [Request(row.tolist(), SamplingParams(), limit=1) for row in ids]
    blocks = [(5,), (0, 2), (4, 1, 3)]
    segments = [Segment(r, 0, len(row), b) for r, row, b in zip(requests, ids, blocks, strict=True)]
    flat = torch.cat(ids)
    positions = torch.cat([torch.arange(len(row)) for row in ids])
    wanted = torch.arange(len(flat), dtype=torch.int32)
    together = native.step_logits(flat, positions, cache.view(segments), wanted)
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_narrow_caches_hold_what_torch_writes(
    random_model: MakeModel, isa: str, dtype: torch.dtype
) -> None:
    model = random_model(head_dim=16)
    ids = some_ids(model, 40)
    request = Request(ids.tolist(), SamplingParams(), limit=1)
    positions = torch.arange(40)
    caches = [PagedCache(model.config, 2, dtype) for _ in range(2)]
    views = [cache.view([Segment(request, 0, 40, (1, 0))]) for cache in caches]
    with torch.no_grad():
        expected = model.logits(model.model(ids[None], positions[None], views[0])[0])[0]
    wanted = torch.arange(40, dtype=torch.int32)
    found = pack_transformer(model).step_logits(ids, positions, views[1], wanted)
    assert float((found - expected).abs().median()) < 0.02 * float(expected.std())
    # The first layer sees the same inputs, so it must store the same numbers, but for the last
    # bit of sums that were added in another order.
    ours, theirs = caches[1].v[0].float(), caches[0].v[0].float()
    assert float((ours[1] != theirs[1]).float().mean()) < 0.02


def test_logits_of_wanted_tokens_only(random_model: MakeModel) -> None:
    model = random_model(head_dim=16)
    native = pack_transformer(model)
    ids = some_ids(model, 20)
    whole = run_native(native, ids, [20])
    cache = PagedCache(model.config, 1, torch.float32)
    view = cache.view([Segment(Request([0], SamplingParams(), limit=1), 0, 20, (0,))])
    bias = torch.randn(model.config.vocab)
    wanted = torch.tensor([19, 3, 3], dtype=torch.int32)
    found = native.step_logits(ids, torch.arange(20), view, wanted, bias=bias)
    assert torch.equal(found, whole[[19, 3, 3]] + bias)
    with torch.no_grad():
        hidden, _ = model.model(ids[None])
    found = native.step_hidden(ids, torch.arange(20), view)
    assert float((found - hidden[0]).abs().max()) < 1e-4


def quantised_twin(
    model: Transformer, kind: GGMLType, seed: int = 0
) -> tuple[NativeTransformer, Transformer]:
    """A model of random blocks for the kernels, and the same weights as floats for torch."""
    from hunyuan.checkpoint.leaves import leaves
    from hunyuan.checkpoint.load import leaf_of

    arena, weights = Arena(), {}
    for i, (leaf, shape) in enumerate(leaves(model.config).items()):
        place = leaf_of(model, leaf)
        if len(shape) == 1:
            weights[leaf] = place.detach()
            continue
        exact = leaf.endswith(".gate.wg.weight")
        if exact:
            blocks = place.detach().contiguous().view(torch.uint8)
        else:
            blocks = random_blocks(kind, *shape, seed=seed + i)
            with torch.no_grad():
                place.copy_(dequantize(blocks.flatten(), kind, torch.float32).view(shape))
        weights[leaf] = pack(GGMLType.F32 if exact else kind, blocks, arena)
    return NativeTransformer(model.config, weights), model


@pytest.mark.parametrize("kind", [GGMLType.Q8_0, GGMLType.Q4_1, GGMLType.Q6_K], ids=str)
@pytest.mark.parametrize("experts", [0, 16])
def test_quantised_models_stay_close_to_their_weights(
    random_model: MakeModel, isa: str, kind: GGMLType, experts: int
) -> None:
    """Only activations are rounded, to eight bits: most of the distribution survives."""
    sizes = {"hidden": 256, "ffn": 256, "heads": 4, "head_dim": 64, "vocab": 512}
    shape = random_model(**sizes, experts=experts, shared_experts=int(experts > 0))
    native, model = quantised_twin(shape, kind)
    ids = some_ids(model, 50)
    with torch.no_grad():
        expected = model(ids[None])[0]
    found = run_native(native, ids, [50])
    assert torch.equal(run_native(native, ids, [7, 1, 1, 41]), found)
    relative = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(relative.median()) < 0.05


# ---------------------------------------------------------------- real files and the engine


def folders() -> list[Path]:
    golden = Path(__file__).parents[2] / "shared" / "golden"
    if golden.exists():
        return sorted(p for p in golden.iterdir() if (p / "config.json").exists())
    return []


@pytest.mark.parametrize("folder", folders(), ids=lambda p: p.name)
def test_golden_checkpoints(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    if reason := why_not_packed(checkpoint):
        with pytest.raises(UsageError, match="choose dtype float32"):
            load_packed(folder)
        pytest.skip(reason)
    model = hunyuan.load_model(folder)
    native = load_packed(folder)
    ids = some_ids(model, 48)
    with torch.no_grad():
        expected = model(ids[None])[0]
    assert float((run_native(native, ids, [48]) - expected).abs().max()) < 2e-4


@pytest.mark.weights
def test_a_real_model_keeps_its_distribution() -> None:
    """SmolLM2 in its stored 4 bits against the same weights in float32."""
    from hunyuan.catalogue.store import locate
    from hunyuan.errors import HunyuanError

    try:
        path = locate("smollm2-135m-instruct")
    except HunyuanError as error:
        pytest.skip(str(error))
    native, model = load_packed(path), hunyuan.load_model(path)
    text = "The capital of France is Paris, and the capital of Italy is Rome. " * 3
    ids = torch.tensor(hunyuan.load_tokenizer(path).encode(text))
    with torch.no_grad():
        expected = model(ids[None])[0].log_softmax(-1)
    found = run_native(native, ids, [len(ids)]).log_softmax(-1)
    divergence = (expected.exp() * (expected - found)).sum(-1)
    assert float(divergence.mean()) < 0.02
    at = ids[1:, None]
    assert abs(float((expected[:-1].gather(1, at) - found[:-1].gather(1, at)).mean())) < 0.02


def test_the_engine_answers_alike_on_both(
    random_model: MakeModel, byte_tokenizer: Tokenizer
) -> None:
    model = random_model(head_dim=16)
    native = pack_transformer(model)
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    prompts = ["Hello", "海水为什么是咸的？", "z" * 70]
    answers = [
        [
            c.tokens
            for c in Engine(m, byte_tokenizer, kv_dtype="float32").generate_many(prompts, params)
        ]
        for m in (model, native)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
def test_native_answers_do_not_depend_on_company_prefix_or_preemption(
    random_model: MakeModel, byte_tokenizer: Tokenizer, kv_dtype: str
) -> None:
    """Bit for bit the same computation, so also with temperature."""
    native = pack_transformer(random_model(head_dim=16))
    params = SamplingParams(temperature=1, top_p=1, top_k=0, seed=3, max_tokens=50)
    prompts = ["You are helpful. " * 4 + end for end in ("one", "two", "three", "four")]

    def engine(**options: Any) -> Engine:
        return Engine(native, byte_tokenizer, context=160, kv_dtype=kv_dtype, **options)

    alone = [engine().generate(p, params).tokens for p in prompts]
    shared = engine()
    assert [shared.generate(p, params).tokens for p in prompts] == alone
    assert [c.tokens for c in engine().generate_many(prompts, params)] == alone
    tight = engine(cache_tokens=192, shared_chunk=7, prefill_chunk=19)
    assert [c.tokens for c in tight.generate_many(prompts, params)] == alone


def test_an_instruction_set_that_cannot_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA_VARIABLE, "mmx")
    with pytest.raises(UsageError, match="HUNYUAN_ISA=mmx: this processor or this build"):
        library.unavailable()


def test_without_the_library_torch_does_the_work(tmp_path: Path) -> None:
    """A package whose kernels were not compiled says so, and computes."""
    script = """
import hunyuan.native.library as library
library.EXTENSION_SUFFIXES = [".nowhere"]
from click.testing import CliRunner
from hunyuan.cli.doctor import doctor
result = CliRunner().invoke(doctor)
print(result.output)
raise SystemExit(result.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "none, torch computes everything (not compiled: install a C++ compiler" in done.stdout


def test_packed_models_report_their_size(random_model: MakeModel) -> None:
    model = random_model(head_dim=16)
    native = pack_transformer(model)
    numbers = sum(p.numel() for p in model.parameters())
    # Query and key gains are one vector; rows are padded to sixteen.
    assert 3.9 * numbers <= native.nbytes <= 4.8 * numbers
    held = [m for m in native._held if isinstance(m, PackedMatrix)]
    assert len({m.data.data_ptr() for m in held}) == len(held) - 1, "tied: one matrix, two roles"
