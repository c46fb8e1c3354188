"""Measuring: what is counted and reported. How fast it was is nobody's business here."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import write_random_checkpoint

from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.leaves import expert_leaf
from hunyuan.checkpoint.load import load_packed, packed_sizes
from hunyuan.engine import measure
from hunyuan.engine.engine import Engine
from hunyuan.engine.request import Completion
from hunyuan.errors import DoesNotFitError
from hunyuan.model.config import ModelConfig, preset
from hunyuan.model.transformer import Transformer
from hunyuan.native import machine
from hunyuan.native.library import unavailable
from hunyuan.tokenizer.tokenizer import Tokenizer

MakeModel = Callable[..., Transformer]
NO_KERNELS = unavailable()


@pytest.fixture
def engine(random_model: MakeModel, byte_tokenizer: Tokenizer) -> Engine:
    return Engine(random_model(vocab=300), byte_tokenizer, context=256, max_sequences=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint whose heads the kernels can compute."""
    config = replace(preset("tiny"), vocab=259, head_dim=16)
    return write_random_checkpoint(tmp_path_factory.mktemp("model"), config)


# ---------------------------------------------------------------- speeds


def test_prompts_are_known_tokens_and_never_repeat(
    engine: Engine, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    submit = engine.submit

    def spy(prompt: list[int], *rest: object) -> object:
        seen.append(list(prompt))
        requests.append(submit(prompt, *rest))
        return requests[-1]

    requests: list = []
    monkeypatch.setattr(engine, "submit", spy)
    prompts = measure.Prompts(engine)
    measure.single(engine, prompts, 100, 4, repeats=3)
    measure.batched(engine, prompts, 3, 100, 4, repeats=2)
    assert len(seen) == 3 + 3 * 2
    assert len({tuple(prompt) for prompt in seen}) == len(seen)
    assert all(len(prompt) == 100 for prompt in seen)
    assert not set(byte_tokenizer.undefined_ids(300)) & {id for prompt in seen for id in prompt}
    assert all(request.reused == 0 for request in requests)


def test_a_seed_repeats_the_prompts(engine: Engine) -> None:
    first, second = measure.Prompts(engine, 1), measure.Prompts(engine, 1)
    assert [first.take(9) for _ in range(3)] == [second.take(9) for _ in range(3)]
    assert measure.Prompts(engine, 2).take(9) != measure.Prompts(engine, 1).take(9)


def test_an_answer_has_exactly_the_tokens_asked_for(engine: Engine) -> None:
    done = measure.answer(engine, measure.Prompts(engine).take(40), 30)
    assert isinstance(done, Completion)
    assert (done.prompt_tokens, len(done.tokens), done.finish_reason) == (40, 30, "length")


def test_speeds_are_tokens_over_seconds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that counts steps, speeds are known exactly."""
    clock = [0.0]
    step = engine.step

    def slow_step() -> object:
        clock[0] += 0.5
        return step()

    monkeypatch.setattr(engine, "step", slow_step)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    prompts = measure.Prompts(engine)
    _, decode = measure.single(engine, prompts, 64, 9, repeats=3)
    assert decode.values == (2.0, 2.0, 2.0)
    batch = measure.batched(engine, prompts, 4, 64, 9, repeats=2)
    assert batch.values == (8.0, 8.0)
    assert not engine.busy


def test_a_batch_that_cannot_run_together_is_refused(engine: Engine) -> None:
    with pytest.raises(DoesNotFitError, match=r"batch=4.* 250 .* 256"):
        measure.batched(engine, measure.Prompts(engine), 4, 250, 4, repeats=1)
    assert not engine.busy


def test_spread() -> None:
    spread = measure.Spread((3.0, 1.0, 8.0))
    assert spread.report() == {"median": 3.0, "min": 1.0, "max": 8.0, "values": [3.0, 1.0, 8.0]}


# ---------------------------------------------------------------- bytes and operations


def test_bytes_read_per_step(random_model: MakeModel) -> None:
    live = random_model(vocab=259, experts=4, top_k=1, tied=True)
    config = live.config
    sizes = measure.live_bytes(live)
    routed = sum(size for leaf, size in sizes.items() if expert_leaf(leaf))
    whole = sum(sizes.values())
    assert whole == 4 * config.total_parameters
    assert measure.bytes_read(config, sizes) == pytest.approx(whole - routed * 3 / 4)
    two = measure.bytes_read(config, sizes, 2)
    assert two == pytest.approx(whole - routed * (3 / 4) ** 2)
    assert measure.bytes_read(config, sizes, 1000) == pytest.approx(whole)
    untied = random_model(vocab=259, experts=0, shared_experts=0, tied=False)
    lookup = 4 * untied.config.vocab * untied.config.hidden
    read = measure.bytes_read(untied.config, measure.live_bytes(untied), 8)
    assert read == 4 * untied.config.total_parameters - lookup


@pytest.mark.skipif(NO_KERNELS is not None, reason=str(NO_KERNELS))
def test_stored_bytes_are_what_the_kernels_hold(model: Path) -> None:
    checkpoint = open_checkpoint(model)
    assert sum(packed_sizes(checkpoint).values()) == load_packed(model).nbytes


def test_prefill_operations_leave_out_embedding_and_head() -> None:
    config = ModelConfig(
        vocab=1000, hidden=64, layers=3, heads=4, kv_heads=2, head_dim=16, ffn=128, context=64
    )
    per_layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
    assert measure.prefill_operations(config) == 2 * 3 * per_layer
    assert measure.prefill_operations(replace(config, vocab=5)) == 2 * 3 * per_layer


# ---------------------------------------------------------------- the machine


def test_the_machine_has_limits() -> None:
    assert machine.read_bandwidth(1 << 20) > 0
    assert machine.matrix_peak(torch.float32) > 0
    assert machine.processor()


def test_process_age_counts_from_the_start_of_the_process() -> None:
    program = "from hunyuan.native.machine import process_age; print(process_age())"
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    whole = time.monotonic() - begin
    age = float(done.stdout)
    # It holds the import of torch; the kernel counts in hundredths of a second.
    assert 0.1 < age < whole + 0.05


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < machine.peak_memory() < 1e12


# ---------------------------------------------------------------- the verb


def hunyuan(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "HUNYUAN"))}
    return subprocess.run(
        [sys.executable, "-m", "hunyuan", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=clean | {"HUNYUAN_LANG": "en"} | environment,
        timeout=300,
    )


SHORT = ("--answer-tokens", "3", "--repeats", "2", "--batch", "2,1")


def test_json_says_what_ran_and_what_it_reached(model: Path) -> None:
    done = hunyuan("bench", str(model), *SHORT, "--prompt-tokens", "40,8", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {
        *("hunyuan", "date", "command", "model", "processor", "kernels", "threads", "dtype"),
        *("kv_dtype", "context", "torch", "prompt_tokens", "answer_tokens", "repeats"),
        *("prefill", "decode", "batch", "first_token", "memory", "limits"),
    }
    assert result["command"].startswith(f"hunyuan bench {model} --answer-tokens 3")
    assert result["dtype"] == ("stored" if NO_KERNELS is None else "float32")
    assert [row["prompt_tokens"] for row in result["prefill"]] == [40, 8]
    assert [row["prompt_tokens"] for row in result["decode"]] == [40, 8]
    assert [row["requests"] for row in result["batch"]] == [2, 1]
    for row in (*result["prefill"], *result["decode"], *result["batch"]):
        assert len(row["tokens_per_second"]["values"]) == 2
        assert row["share_of_limit"] > 0
    first = result["first_token"]
    assert first["seconds_from_process_start"] > first["load_seconds"] > 0
    config = replace(preset("tiny"), vocab=259, head_dim=16)
    memory = result["memory"]
    assert memory["cache_per_token"] == config.kv_bytes_per_token()
    assert memory["peak"] > memory["weights"] > memory["weights_read_per_token"] > 0
    assert min(result["limits"].values()) > 0


def test_table_in_both_languages(model: Path) -> None:
    arguments = ("bench", str(model), *SHORT, "--dtype", "float32", "--context", "100")
    english, chinese = hunyuan(*arguments), hunyuan(*arguments, HUNYUAN_LANG="zh")
    assert "prompt of 97 " in english.stdout, english.stderr
    assert "prompt of 128" not in english.stdout
    assert "kernels torch, weights float32, cache float32, context 100" in english.stdout
    assert "读入 97 词元的提示" in chinese.stdout, chinese.stderr
    assert "词元/秒" in chinese.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--prompt-tokens", "8,x"], 2, ["prompt-tokens=8,x", "'x'"]),
        (["--prompt-tokens", ""], 2, ["prompt-tokens="]),
        (["--batch", "0"], 2, ["batch=0", "at least 1"]),
        (["--batch", "1,,4"], 2, ["batch=1,,4", "''"]),
        (["--answer-tokens", "1"], 2, ["answer-tokens", "1"]),
        (["--repeats", "0"], 2, ["repeats", "0"]),
        (["--dtype", "int3"], 2, ["int3", "bfloat16"]),
        (["--kv-dtype", "int3"], 2, ["int3", "bfloat16"]),
        (["--prompt-tokens", "600"], 3, ["prompt-tokens=600", "664", "512"]),
        (["--context", "64"], 3, ["answer-tokens=64", "context has 64"]),
    ],
)
def test_wrong_input_is_one_line(
    model: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    done = hunyuan("bench", str(model), *arguments)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_errors_in_chinese(model: Path) -> None:
    done = hunyuan("bench", str(model), "--batch", "none", HUNYUAN_LANG="zh")
    assert done.stderr.startswith("错误: batch=none：")
