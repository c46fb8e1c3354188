"""The model a recipe names, and how its checkpoints are written."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.hf_config import FamilyName, check_expressible
from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.checkpoint.load import (
    leaf_of,
    load_checkpoint,
    load_tokenizer,
    parse_dtype,
    tokenizer_of,
)
from hunyuan.checkpoint.write import StoredType, write_hf_folder
from hunyuan.data.shards import TokenSet
from hunyuan.errors import UsageError
from hunyuan.memory import require_memory
from hunyuan.model.config import ModelConfig, preset
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.settings import settings
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.train.adapter import Adapter, merged_leaf, write_adapter
from hunyuan.train.lora_settings import LoraConfig
from hunyuan.train.recipe import Recipe

_VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model to train and what belongs to it."""

    model: Transformer
    family: FamilyName
    """Hugging Face family it is written as."""

    tokenizer: Tokenizer | None

    base: Checkpoint | None = None
    """What it was loaded from, if it is not fresh."""


def load_subject(recipe: Recipe, tokens: TokenSet | None, generator: torch.Generator) -> Subject:
    """A fresh model, or the base; ``tokens`` must have its vocabulary.

    Raises `UsageError` for settings that do not go together, `DoesNotFitError` if memory is short.
    """
    chosen = recipe.model
    if chosen.base is not None:
        return _from_base(recipe, open_checkpoint(locate(chosen.base)), tokens)
    if chosen.preset is not None:
        config = preset(chosen.preset)
    else:
        config = settings(ModelConfig, {"vocab": 1} | (chosen.shape or {}), "model.shape.")
    if tokens is not None and "vocab" not in chosen.change and "vocab" not in (chosen.shape or {}):
        rows = math.ceil(tokens.vocab / _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
        config = replace(config, vocab=rows)
    config = replace(_changed(config, chosen.change), routing=chosen.routing)
    check_expressible("hunyuan", config)
    dtype = parse_dtype(chosen.dtype)
    _require_memory(config, dtype)
    model = build(config, dtype).to_empty(device="cpu")
    init_weights(model, generator)
    tokenizer = None
    if chosen.tokenizer is not None:
        tokenizer = load_tokenizer(chosen.tokenizer)
    elif tokens is not None:
        tokenizer = load_tokenizer(tokens.tokenizer_folder)
    return Subject(model=model, family="hunyuan", tokenizer=_fits(tokenizer, config))


def _from_base(recipe: Recipe, base: Checkpoint, tokens: TokenSet | None) -> Subject:
    chosen = recipe.model
    config = _changed(base.config, chosen.change)
    if leaves(config) != leaves(base.config):
        raise UsageError(
            f"model.change={chosen.change}: changes the shapes of weights; only fields such as "
            "context and rope may change",
            f"model.change={chosen.change}：会改变权重形状；只能修改 context、rope 等字段",
        )
    check_expressible(base.family, config)
    if recipe.lora is None:  # else loading asks for what the frozen weights take
        _require_memory(config, parse_dtype(chosen.dtype))
    model = load_checkpoint(
        replace(base, config=config), parse_dtype(chosen.dtype), routing=chosen.routing
    )
    tokenizer = load_tokenizer(chosen.tokenizer) if chosen.tokenizer else tokenizer_of(base)
    if tokens is not None:
        _require_same(tokenizer, load_tokenizer(tokens.tokenizer_folder), tokens)
    return Subject(model=model, family=base.family, tokenizer=_fits(tokenizer, config), base=base)


def _changed(config: ModelConfig, change: Mapping[str, Any]) -> ModelConfig:
    if not change:
        return config
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    fresh = settings(
        ModelConfig,
        {k: v for k, v in values.items() if k not in ("rope", "routing")} | dict(change),
        "model.change.",
    )
    kept = {name: values[name] for name in ("rope", "routing") if name not in change}
    return replace(fresh, **kept)


def _require_memory(config: ModelConfig, dtype: torch.dtype) -> None:
    masters = 0 if dtype == torch.float32 else dtype.itemsize
    require_memory(
        config.total_parameters * (masters + 16),
        ("the state of training", "训练状态"),
        (
            "weights, masters, gradients and moments; choose a smaller model",
            "包括权重、主副本、梯度与动量；请选择更小的模型",
        ),
    )


def _fits(tokenizer: Tokenizer | None, config: ModelConfig) -> Tokenizer | None:
    if tokenizer is not None and tokenizer.vocab_size > config.vocab:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's embedding {config.vocab} "
            "rows; use the model's own tokenizer, or raise vocab",
            f"分词器有 {tokenizer.vocab_size} 个编号，而模型嵌入只有 {config.vocab} 行；"
            "请使用模型自己的分词器，或增大 vocab",
        )
    return tokenizer


def _require_same(ours: Tokenizer, theirs: Tokenizer, tokens: TokenSet) -> None:
    """The ids of a token set must mean the same to the model."""
    sample = "The 3 foxes, 3.14 — 敏捷的棕色狐狸跳过 12 只懒狗。\n\tdef f(x): return x**2"
    if ours.vocab_size != theirs.vocab_size or ours.encode(sample) != theirs.encode(sample):
        raise UsageError(
            f"{tokens.folder}: was made with another vocabulary than the model's; prepare it "
            "again with the model's tokenizer",
            f"{tokens.folder}：所用词表与模型不同；请用该模型的分词器重新生成",
        )


def require_context(recipe: Recipe, config: ModelConfig) -> None:
    """Raise `UsageError` if a row is longer than the model's context."""
    if recipe.batch.row_tokens > config.context:
        raise UsageError(
            f"batch.row_tokens={recipe.batch.row_tokens} exceeds the model's "
            f"context={config.context}; lower it, or set model.change.context",
            f"batch.row_tokens={recipe.batch.row_tokens} 超过模型的 context={config.context}；"
            "请减小它，或设置 model.change.context",
        )


def model_writer(subject: Subject) -> Callable[[Path, Mapping[str, Tensor]], None]:
    """Writes the model as a Hugging Face folder, trained weights from the copy it is given."""
    model = subject.model

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        def read(leaf: str, _: Any) -> Tensor:
            part = expert_leaf(leaf)
            name = leaf if part is None else f"{part.bank}.{part.projection}"
            if name not in weights:  # not trained
                return leaf_of(model, leaf).detach()
            return weights[name] if part is None else weights[name][part.expert]

        types = {leaf: read(leaf, None).dtype for leaf in leaves(model.config)}
        write_hf_folder(folder, model.config, subject.family, types, read)
        if subject.tokenizer is not None:
            save_tokenizer(subject.tokenizer, folder)

    return write


def adapter_writer(
    subject: Subject, lora: LoraConfig
) -> Callable[[Path, Mapping[str, Tensor]], None]:
    """The model with the adapters worked in, ready to be served, and the adapters beside it."""
    base, config = subject.base, subject.model.config
    assert base is not None
    types = {leaf: leaf_dtype(subject.model, leaf) for leaf in leaves(config)}

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        (folder / "adapter").mkdir()
        write_adapter(folder / "adapter", weights, lora, base)
        adapter = Adapter(folder / "adapter", config)

        def read(leaf: str, kind: StoredType) -> Tensor:
            assert isinstance(kind, torch.dtype)
            return merged_leaf(base, adapter, leaf, kind)

        write_hf_folder(folder, config, subject.family, types, read)
        if subject.tokenizer is not None:
            save_tokenizer(subject.tokenizer, folder)

    return write


def leaf_dtype(model: Transformer, leaf: str) -> torch.dtype:
    """Norms and the router are float32 in every model."""
    small = leaf.endswith("norm.weight") or is_router(leaf)
    return torch.float32 if small else model.dtype


def flops_per_token(recipe: Recipe, config: ModelConfig) -> int:
    """Forward once, backward twice; with adapters once, for frozen weights need no gradient."""
    return (3 if recipe.lora is None else 2) * config.flops_per_token(recipe.batch.row_tokens // 2)
