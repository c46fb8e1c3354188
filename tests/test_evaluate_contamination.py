"""From documents to a score: what the data were searched for follows a model to its evaluation."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_evaluate import small_folder

from hunyuan.cli.main import run
from hunyuan.evaluate.contamination import contamination
from hunyuan.evaluate.page import page_data
from hunyuan.evaluate.run_folder import EvaluationRun
from hunyuan.evaluate.suites import benchmarks
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.train import train_tokenizer
from hunyuan.tour.text import conversations, documents
from hunyuan.train.provenance import TRAINING_DATA, stages

pytest.importorskip("lm_eval")
pytest.importorskip("datatrove")

PREPARE = """
tokenizer = "tokenizer"
heldout = 0.1
[[source]]
name = "web"
path = "web.jsonl"
license = "Apache-2.0"
category = "web"
language = "en"
[filter]
min_words = 1
repetition = false
languages = ["zh", "en", "code", "other"]
[duplicates]
near = false
[decontamination]
words = 3
[decontamination.benchmarks]
{searched}
[run]
workers = 1
tasks = 1
"""

PRETRAIN = """
task = "pretrain"
[model]
dtype = "float32"
[model.shape]
hidden = 32
layers = 2
heads = 2
kv_heads = 1
head_dim = 32
ffn = 32
context = 256
experts = 2
shared_experts = 1
[data]
tokens = "set"
[batch]
rows = 2
row_tokens = 64
[optimizer]
learning_rate = 1e-3
[schedule]
tokens = 256
"""

TUNE = """
task = "sft"
[model]
base = "run"
dtype = "float32"
[data]
files = ["openai_gsm8k-train.jsonl"]
[batch]
rows = 2
row_tokens = 96
[optimizer]
learning_rate = 1e-3
[schedule]
epochs = 1
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    monkeypatch.setattr("hunyuan.train.task.matrix_peak", lambda dtype: 1e12)
    monkeypatch.setattr("hunyuan.train.outside.keep_freed_memory", lambda: None)
    texts = [text for language, text in itertools.islice(documents(0), 120) if language == "en"]
    tokenizer = train_tokenizer(texts, 300)
    (tmp_path / "tokenizer").mkdir()
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    questions = ["amber beetles climb quietly toward dawn", "seven violet lanterns drift over ice"]
    (tmp_path / "questions").mkdir()
    lines = "".join(json.dumps({"goal": question}) + "\n" for question in questions)
    (tmp_path / "questions" / "piqa.jsonl").write_text(lines)
    copied = [f"{texts[i]} And then, as the story has it, {questions[i]}." for i in range(2)]
    rows = [{"text": text} for text in [*texts, *copied]]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    talk = list(itertools.islice(conversations(1, 20), 20))
    lines = "".join(json.dumps(row) + "\n" for row in talk)
    (tmp_path / "openai_gsm8k-train.jsonl").write_text(lines)
    small_folder(tmp_path / "data", questions=30)
    return tmp_path


def evaluate(model: str, out: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    capsys.readouterr()
    command = ["eval", model, "piqa", "gsm8k", "--data", "data", "--sample", "2", "--shots", "0"]
    assert run([*command, "-o", out]) == 0
    described = EvaluationRun(Path(out)).described()
    assert described is not None
    return capsys.readouterr().err, described["contamination"]


def test_what_the_data_were_searched_for_reaches_the_score(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        recipe = PREPARE.format(searched='"Physical" = "questions/piqa.jsonl"')
        (world / "prepare.toml").write_text(recipe)
        assert run(["data", "prepare", "prepare.toml", "set"]) == 0
        (world / "pretrain.toml").write_text(PRETRAIN)
        assert run(["train", "pretrain.toml", "--run", "run"]) == 0
        (stage,) = stages(max(world.glob("run/checkpoints/step-*")))
        assert stage["decontamination"]["Physical"]["removed"] == 2
        told, kept = evaluate("run", "eval-base", capsys)
        assert "PIQA: 2 documents with its questions were found" in told
        assert "GSM8K: the model's training data (pretrain: set) were not searched" in told
        assert set(kept["warnings"]) == {"piqa", "gsm8k"}

        # Tuned on a file that is named after a benchmark: the earlier stage is still told.
        (world / "tune.toml").write_text(TUNE)
        assert run(["train", "tune.toml", "--run", "tuned"]) == 0
        assert len(stages(max(world.glob("tuned/checkpoints/step-*")))) == 2
        monkeypatch.setenv("HUNYUAN_LANG", "zh")
        told, kept = evaluate("tuned", "eval-tuned", capsys)
        assert "警告：GSM8K：模型的训练数据包含以其命名的 openai_gsm8k-train.jsonl" in told
        assert "PIQA：模型的训练数据（sft: openai_gsm8k-train.jsonl）未检查" in told
        shown = page_data([EvaluationRun(world / "eval-tuned")])["runs"][0]
        assert set(shown["results"]["gsm8k"]["warning"]) == {"en", "zh"}
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def stage(sources: list[str], **searched: int) -> dict[str, Any]:
    found = {name: {"place": f"bench/{name}", "removed": n} for name, n in searched.items()}
    return {"task": "t", "data": "d", "sources": sources, "decontamination": found or None}


@pytest.mark.parametrize(
    ("source", "benchmark", "named"),
    [
        ("gsm8k-train.jsonl", "gsm8k", True),
        ("openai--gsm8k", "gsm8k", True),
        ("hendrycks_math", "math", True),
        ("math", "math", True),
        ("aftermath", "math", False),
        ("ARC-C.jsonl", "arc_c", True),
        ("research", "arc_c", False),
        ("cmmlu", "mmlu", False),
        ("mmlu_pro", "mmlu", True),
        ("web", "c3", False),
    ],
)
def test_sources_named_after_a_benchmark_are_seen(source: str, benchmark: str, named: bool) -> None:
    found = contamination([stage([source], **{benchmark: 0})], [benchmarks()[benchmark]])
    assert bool(found) is named


def test_a_clean_model_and_made_up_tasks_need_no_warning() -> None:
    clean = [stage(["web"], mmlu=0), stage(["books"], **{"cais--mmlu": 0})]
    assert contamination(clean, [benchmarks()["mmlu"], benchmarks()["long"]]) == {}
    unsearched = [*clean, stage(["talk.jsonl"])]
    assert "not searched" in contamination(unsearched, [benchmarks()["mmlu"]])["mmlu"]["en"]


def test_what_is_no_list_of_stages_is_none(tmp_path: Path) -> None:
    assert stages(tmp_path) == []
    (tmp_path / TRAINING_DATA).write_text('{"a": ')
    assert stages(tmp_path) == []
