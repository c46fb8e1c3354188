"""``hunyuan tour``: every stage once, tiny, on this machine, without a network."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from itertools import islice
from pathlib import Path
from typing import Any

import click

from hunyuan.errors import HunyuanError, UsageError, language
from hunyuan.files import atomic_file

_DOCUMENTS = 24_000
_CONVERSATIONS = 4_000
_VOCABULARY = 1_024
_SHAPE = {
    **{"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 32, "ffn": 256},
    **{"context": 512, "experts": 8, "shared_experts": 1, "cla_share": 2},
    **{"qk_norm": True, "tied": True},
}
_QUESTIONS = {
    "en": ("What is the capital of France?", "What is 3 plus 4?", "What does the panda like?"),
    "zh": ("中国的首都是哪里？", "3 加 4 等于多少？", "“热”的反义词是什么？"),
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="tour")
def tour(folder: Path) -> None:
    """Train a tiny mixture of experts, fine-tune it, serve it and ask it questions.

    Takes minutes on two processors, no network. Everything stays in FOLDER (by default ./tour); the
    same command goes on after an interruption.
    """
    from hunyuan.cli.train import run_recipe

    began = time.monotonic()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is no folder", f"{folder}：不是目录")
    _stage(
        1,
        "text of a tiny world and a tokenizer learned from it",
        "一个微型世界的文本，以及从中学得的分词器",
    )
    _make_data(folder)
    _stage(
        2,
        "pretraining: next-token prediction, recycle routing",
        "预训练：预测下一个词元，随机补偿路由",
    )
    run_recipe(_pretraining(folder), folder / "pretrained")
    _stage(3, "fine-tuning on questions and answers", "在问答上微调")
    run_recipe(_fine_tuning(folder), folder / "assistant")
    _stage(4, "a report of the training", "训练报告")
    _report(folder)
    _stage(5, "serving it and asking", "部署并提问")
    _ask(folder / "assistant", _QUESTIONS[language()])
    _explain(folder, time.monotonic() - began)


def _stage(number: int, english: str, chinese: str) -> None:
    text = chinese if language() == "zh" else english
    print(f"\n[{number}/5] {text}", flush=True)


def _make_data(folder: Path) -> None:
    from hunyuan.data.shards import MANIFEST, write_token_set
    from hunyuan.tokenizer.train import train_tokenizer
    from hunyuan.tour.text import conversations, documents

    if (folder / "data" / MANIFEST).is_file():
        return
    made = list(islice(documents(seed=0), _DOCUMENTS))
    held = list(islice(documents(seed=1), _DOCUMENTS // 100))
    tokenizer = train_tokenizer([text for _, text in made[:4000]], vocab=_VOCABULARY)
    write_token_set(
        folder / "data",
        tokenizer,
        {
            "train": _by_language(made),
            "heldout": _by_language(held),
        },
        language="mixed",
        license="Apache-2.0",
    )
    with atomic_file(folder / "questions.jsonl") as file:
        for record in conversations(seed=2, count=_CONVERSATIONS):
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _by_language(made: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {name: [text for lang, text in made if lang == name] for name in ("en", "zh")}


def _pretraining(folder: Path) -> dict[str, Any]:
    return {
        "task": "pretrain",
        "model": {
            "shape": _SHAPE,
            "routing": {"mode": "capacity-recycle", "capacity_group": 1024},
        },
        "data": {"tokens": str(folder / "data")},
        "batch": {"rows": 8, "row_tokens": 256},
        "optimizer": {"learning_rate": 4e-3},
        "schedule": {"tokens": 1_200_000},
        "evaluation": {"every": 0.25, "rows": 8},
        "log": {"every": 25, "experts_every": 25},
    }


def _fine_tuning(folder: Path) -> dict[str, Any]:
    return {
        "task": "sft",
        "model": {"base": str(folder / "pretrained")},
        "data": {"files": [str(folder / "questions.jsonl")]},
        "batch": {"rows": 8, "row_tokens": 256},
        "optimizer": {"learning_rate": 2e-3},
        "schedule": {"epochs": 3},
        "evaluation": {"every": 0.5},
        "log": {"every": 25, "experts_every": 25},
    }


def _report(folder: Path) -> None:
    from hunyuan.cli.report import report

    target = folder / "report.html"
    report.main(
        [str(folder / "pretrained"), str(folder / "assistant"), "-o", str(target)],
        standalone_mode=False,
    )


def _ask(model: Path, questions: tuple[str, ...]) -> None:
    """Serve the model in a process of its own and put the questions over HTTP."""
    command = [sys.executable, "-m", "hunyuan", "serve", str(model), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = _address(server)
        with urllib.request.urlopen(f"{address}/v1/models", timeout=60) as response:
            name = json.load(response)["data"][0]["id"]
        for question in questions:
            print(f"  > {question}\n    {_answer(address, name, question)}", flush=True)
    finally:
        server.terminate()
        server.wait(10)


def _address(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    said = []
    for line in server.stdout:
        said.append(line.strip())
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise HunyuanError(
        f"the server did not start: {said[-1] if said else 'it said nothing'}",
        f"服务未能启动：{said[-1] if said else '没有任何输出'}",
    )


def _answer(address: str, model: str, question: str) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 40,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def _explain(folder: Path, seconds: float) -> None:
    pieces = (
        ("data/", "text as token ids, and the tokenizer", "词元化的文本与分词器"),
        ("questions.jsonl", "questions and answers for fine-tuning", "用于微调的问答"),
        ("pretrained/", "the pretraining run", "预训练的运行目录"),
        ("assistant/", "the fine-tuning run", "微调的运行目录"),
        (
            "*/recipe.toml, metrics.jsonl",
            "what was asked for, and every figure",
            "训练配方与全部指标",
        ),
        (
            "*/checkpoints/step-*",
            "Hugging Face folders, served as they are",
            "可直接部署的 Hugging Face 目录",
        ),
        ("report.html", "loss curves and expert heat-maps", "损失曲线与专家热力图"),
    )
    chinese = language() == "zh"
    print()
    print(
        f"用时 {seconds:.0f} 秒。{folder} 中有：" if chinese else f"{seconds:.0f} s. In {folder}:"
    )
    for name, english, zh in pieces:
        print(f"  {name:<30} {zh if chinese else english}")
    print(
        f"继续：hunyuan chat {folder}/assistant"
        if chinese
        else f"go on: hunyuan chat {folder}/assistant"
    )
