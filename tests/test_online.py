"""Preferences between the policy's own answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hunyuan.cli.main import run as hunyuan
from hunyuan.data.dialogue import PairRows, encode_answer
from hunyuan.errors import BadDataError
from hunyuan.model.config import ModelConfig
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.tokenizer.train import train_tokenizer
from hunyuan.tour.text import conversations
from hunyuan.train.online import Judge, OnlinePairs, Reward, read_prompts
from hunyuan.train.recipe import OnlineSettings


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [m["content"] for c in conversations(0, 300) for m in c["messages"]]
    return train_tokenizer(texts, vocab=320)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps(record) for record in conversations(1, 6)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


class Echo:
    """Answers with numbers, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, prompts: Sequence[Any], count: int, seed: int) -> list[list[str]]:
        self.asked += 1
        assert all(messages[-1]["role"] == "user" for messages in prompts)
        return [[str(i * (1 + k % 2)) for i in range(count)] for k in range(len(prompts))]


def online(prompts: Path, tokenizer: Tokenizer, sample: Any, **changes: Any) -> OnlinePairs:
    settings = OnlineSettings(prompts=(prompts,), reward="unused", **changes)
    return OnlinePairs(
        settings,
        sample,
        lambda messages, answer: float(answer),
        tokenizer,
        folder=prompts.parent / "online",
        longest=100,
        seed=0,
    )


def test_best_and_worst_answer_become_the_pair(prompts: Path, tokenizer: Tokenizer) -> None:
    pairs = online(prompts, tokenizer, Echo(), pairs=4, samples=3)(0)
    answers = {
        tuple(tokenizer.decode([t for t in example.targets if t >= 0]) for example in pair)
        for pair in pairs
    }
    assert len(pairs) == 4
    assert answers == {("2", "0"), ("4", "0")}


def test_an_epoch_keeps_its_pairs_over_a_restart(prompts: Path, tokenizer: Tokenizer) -> None:
    first, again = Echo(), Echo()
    made = online(prompts, tokenizer, first, pairs=4)(3)
    read = online(prompts, tokenizer, again, pairs=4)(3)
    assert (first.asked, again.asked) == (1, 0)
    assert [p.chosen.ids.tolist() for p in made] == [p.chosen.ids.tolist() for p in read]
    online(prompts, tokenizer, again, pairs=4)(4)
    assert again.asked == 1


def test_a_policy_of_one_mind_gives_no_pair(prompts: Path, tokenizer: Tokenizer) -> None:
    same = online(prompts, tokenizer, lambda p, n, s: [["7"] * n for _ in p])
    assert same(0) == []


def test_rows_take_the_pairs_of_each_epoch(prompts: Path, tokenizer: Tokenizer) -> None:
    base = online(prompts, tokenizer, Echo(), pairs=2)(9)
    extra = online(prompts, tokenizer, Echo(), pairs=4)(1)
    asked: list[int] = []

    def more(epoch: int) -> list[Any]:
        asked.append(epoch)
        return extra if epoch == 1 else []

    rows = PairRows(base, 2, 2, 0, more)
    whole = [row.ids.tolist() for row in rows]
    assert asked == [0, 1]
    assert len(whole) == 2 * (2 * len(base) + len(extra))
    later = PairRows(base, 2, 2, 0, more)
    for _ in range(4):
        next(later)
    resumed = PairRows(base, 2, 2, 0, more)
    resumed.restore(later.state())
    assert [row.ids.tolist() for row in resumed] == whole[4:]


def test_prompts_end_before_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"messages": [{"role": "assistant", "content": "x"}]}\n{"other": 1}\n')
    with pytest.raises(BadDataError, match=r"online.prompts: no conversation was found"):
        read_prompts([path])
    path.write_text('{"messages": \n')
    with pytest.raises(BadDataError, match=r"p\.jsonl:1: "):
        read_prompts([path])


def test_a_run_with_online_pairs_and_its_reward(
    tmp_path: Path, prompts: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end through the engine: a policy, a judge, offline and online pairs mixed."""
    monkeypatch.chdir(tmp_path)
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": c["messages"][0]["content"], "chosen": "yes", "rejected": f"no {i}"}
        for i, c in enumerate(conversations(4, 6))
    ]
    pairs.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    dialogues = tmp_path / "dialogues.jsonl"
    dialogues.write_text("\n".join(json.dumps(c) for c in conversations(5, 40)), encoding="utf-8")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    save_tokenizer(tokenizer, folder)
    shape = (
        "{hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=32, context=128, "
        "vocab=320, qk_norm=true, tied=true}"
    )
    common = """
[batch]
rows = 4
row_tokens = 96
[optimizer]
learning_rate = 1e-3
[evaluation]
every = 1.0
"""
    (tmp_path / "sft.toml").write_text(
        f"""task = "sft"
[model]
shape = {shape}
tokenizer = "tokenizer"
dtype = "float32"
[data]
files = ["dialogues.jsonl"]
[schedule]
epochs = 1
{common}"""
    )
    (tmp_path / "dpo.toml").write_text(
        f"""task = "dpo"
[model]
base = "runs/sft"
dtype = "float32"
[data]
files = ["pairs.jsonl"]
heldout_share = 0.2
[schedule]
epochs = 2
[online]
prompts = ["prompts.jsonl"]
reward = "runs/sft"
reward_reference = "runs/sft"
pairs = 2
samples = 3
max_tokens = 6
{common}"""
    )
    assert hunyuan(["train", "sft.toml"]) == 0
    assert hunyuan(["train", "dpo.toml"]) == 0
    kept = sorted((tmp_path / "runs/dpo/online").iterdir())
    assert [path.name for path in kept] == ["epoch-0000.jsonl", "epoch-0001.jsonl"]
    records = [json.loads(line) for path in kept for line in path.read_text("utf-8").splitlines()]
    assert records
    assert all(record["chosen"] != record["rejected"] for record in records)
    metrics = (tmp_path / "runs/dpo/metrics.jsonl").read_text("utf-8").splitlines()
    steps = [json.loads(line) for line in metrics]
    assert any(r["kind"] == "eval" and "accuracy" in r for r in steps)


def test_the_reward_is_the_log_ratio(tokenizer: Tokenizer) -> None:
    config = ModelConfig(
        **{"vocab": 320, "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16},
        **{"ffn": 32, "context": 128, "tied": True},
    )

    def fresh(seed: int) -> Transformer:
        model = build(config).to_empty(device="cpu")
        init_weights(model, torch.Generator().manual_seed(seed))
        return model.eval()

    judge, reference = (Judge(fresh(seed), tokenizer) for seed in (1, 2))
    messages = [{"role": "user", "content": "What is 1 plus 2?"}]
    example = encode_answer(messages, "3", tokenizer)

    def literal(model: Transformer) -> float:
        with torch.no_grad():
            logs = model(torch.from_numpy(example.ids)[None]).log_softmax(-1)[0]
        used = [(i, t) for i, t in enumerate(example.targets.tolist()) if t >= 0]
        return float(sum(logs[i, t] for i, t in used))

    expected = literal(judge.model) - literal(reference.model)
    assert Reward(judge, reference)(messages, "3") == pytest.approx(expected, abs=1e-4)
    count = int((example.targets >= 0).sum())
    alone = Reward(judge, None)(messages, "3")
    assert alone == pytest.approx(literal(judge.model) / count, abs=1e-4)
