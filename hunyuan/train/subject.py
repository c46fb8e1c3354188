"""The model a recipe names, and how its checkpoints are written."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.hf_config import FamilyName, check_expressible
from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.checkpoint.load import (
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
from hunyuan.train.lora import base_name
from hunyuan.train.lora_settings import LoraConfig
from hunyuan.train.recipe import Recipe
from hunyuan.train.saving import WriteModel

_VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model to train and what belongs to it; nothing of it is in memory yet."""

    config: ModelConfig

    dtype: torch.dtype
    """Of the matrices."""

    family: FamilyName
    """Hugging Face family it is written as."""

    tokenizer: Tokenizer | None

    base: Checkpoint | None = None
    """What it is loaded from, if it is not fresh."""

    def load(self, generator: torch.Generator) -> Transformer:
        """The model with its values; fresh ones are drawn with ``generator``."""
        if self.base is not None:
            base = replace(self.base, config=self.config)
            return load_checkpoint(base, self.dtype, routing=self.config.routing)
        model = build(self.config, self.dtype).to_empty(device="cpu")
        init_weights(model, generator)
        return model

    def values(self, generator: torch.Generator) -> "FreshWeights | StoredWeights":
        """The same values, one parameter after another."""
        if self.base is not None:
            return StoredWeights(self.base, self.config, self.dtype)
        return FreshWeights(self.config, self.dtype, generator)


def find_subject(recipe: Recipe, tokens: TokenSet | None) -> Subject:
    """What a recipe names; ``tokens`` must have its vocabulary.

    Raises `UsageError` for settings that do not go together.
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
    tokenizer = None
    if chosen.tokenizer is not None:
        tokenizer = load_tokenizer(chosen.tokenizer)
    elif tokens is not None:
        tokenizer = load_tokenizer(tokens.tokenizer_folder)
    return Subject(
        config=config,
        dtype=parse_dtype(chosen.dtype),
        family="hunyuan",
        tokenizer=_fits(tokenizer, config),
    )


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
    tokenizer = load_tokenizer(chosen.tokenizer) if chosen.tokenizer else tokenizer_of(base)
    if tokens is not None:
        _require_same(tokenizer, load_tokenizer(tokens.tokenizer_folder), tokens)
    return Subject(
        config=replace(config, routing=chosen.routing),
        dtype=parse_dtype(chosen.dtype),
        family=base.family,
        tokenizer=_fits(tokenizer, config),
        base=base,
    )


class FreshWeights(Mapping[str, Tensor]):
    """The values of a fresh model, drawn in the order of `init_weights`, each once.

    Only those of one module are in memory. What is not asked for is drawn all the same: `finish`
    leaves the generator where `init_weights` would.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, generator: torch.Generator) -> None:
        self._model = build(config, dtype)
        self._generator = generator
        self._modules = self._model.named_modules()
        self._drawn: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        while name not in self._drawn:
            if not self._draw():
                raise KeyError(name)
        return self._drawn.pop(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._model.named_parameters())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def finish(self) -> None:
        """Draw what is left."""
        while self._draw():
            pass

    def _draw(self) -> bool:
        prefix, module = next(self._modules, (None, None))
        if module is None:
            return False
        if next(module.parameters(recurse=False), None) is None:
            return True
        only = nn.ModuleList([module.to_empty(device="cpu", recurse=False)])
        only.config = self._model.config  # type: ignore[assignment]
        init_weights(cast(Transformer, only), self._generator)
        self._drawn = {
            f"{prefix}.{name}": weight.detach()
            for name, weight in module.named_parameters(recurse=False)
        }
        module.to_empty(device="meta", recurse=False)
        return True


class StoredWeights(Mapping[str, Tensor]):
    """The parameters of a checkpoint; experts of a layer are stacked when they are asked for."""

    def __init__(self, base: Checkpoint, config: ModelConfig, dtype: torch.dtype) -> None:
        self._base = base
        self._types = {name: p.dtype for name, p in build(config, dtype).named_parameters()}
        self._experts = config.experts

    def __getitem__(self, name: str) -> Tensor:
        dtype = self._types[name]
        bank, _, projection = name.rpartition(".")
        if not bank.endswith(".experts"):
            return self._base.read(name, dtype)
        parts = [f"{bank}.{e}.{projection}.weight" for e in range(self._experts)]
        return torch.stack([self._base.read(leaf, dtype) for leaf in parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def finish(self) -> None:
        """Nothing is drawn."""


class Adapted(Mapping[str, Tensor]):
    """Values of a model with adapters: its base's under the names they have in it, and theirs."""

    def __init__(self, base: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> None:
        self._base, self._adapters = base, adapters

    def __getitem__(self, name: str) -> Tensor:
        return self._adapters[name] if name in self._adapters else self._base[base_name(name)]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._base, *self._adapters])

    def __len__(self) -> int:
        return len(self._base) + len(self._adapters)


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


def require_room(recipe: Recipe, subject: Subject) -> None:
    """Raise `DoesNotFitError` if the state of training does not fit into this machine.

    Loading a frozen base asks for its own. Processes are taken to divide the state evenly.
    """
    if recipe.lora is not None:
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    masters = 0 if subject.dtype == torch.float32 else subject.dtype.itemsize
    require_memory(
        subject.config.total_parameters * (masters + 16) * here // recipe.parallel.world,
        ("the state of training", "训练状态"),
        (
            "weights, masters, gradients and moments; choose a smaller model or more machines",
            "包括权重、主副本、梯度与动量；请选择更小的模型或更多机器",
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


def model_writer(subject: Subject) -> WriteModel:
    """Writes the model, all of which is trained, as a Hugging Face folder."""
    types = {leaf: leaf_dtype(subject, leaf) for leaf in leaves(subject.config)}

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        def read(leaf: str, _: Any) -> Tensor:
            part = expert_leaf(leaf)
            if part is None:
                return weights[leaf]
            return weights[f"{part.bank}.{part.projection}"][part.expert]

        write_hf_folder(folder, subject.config, subject.family, types, read)
        if subject.tokenizer is not None:
            save_tokenizer(subject.tokenizer, folder)

    return write


def adapter_writer(subject: Subject, lora: LoraConfig) -> WriteModel:
    """The model with the adapters worked in, ready to be served, and the adapters beside it."""
    base, config = subject.base, subject.config
    assert base is not None
    types = {leaf: leaf_dtype(subject, leaf) for leaf in leaves(config)}

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


def leaf_dtype(subject: Subject, leaf: str) -> torch.dtype:
    """Norms and the router are float32 in every model."""
    small = leaf.endswith("norm.weight") or is_router(leaf)
    return torch.float32 if small else subject.dtype


def flops_per_token(recipe: Recipe, config: ModelConfig) -> int:
    """Forward once, backward twice; with adapters once, for frozen weights need no gradient."""
    return (3 if recipe.lora is None else 2) * config.flops_per_token(recipe.batch.row_tokens // 2)
