"""A recipe becomes a run: model, data, loss, optimiser, and what the loop needs besides."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.hf_config import FamilyName, check_expressible
from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.checkpoint.load import (
    leaf_of,
    load_checkpoint,
    load_model,
    load_tokenizer,
    parse_dtype,
    tokenizer_of,
)
from hunyuan.checkpoint.write import StoredType, write_hf_folder
from hunyuan.data.dialogue import (
    Epochs,
    PairRows,
    Tally,
    pair_rows,
    read_examples,
    read_pairs,
)
from hunyuan.data.mixture import Mixture, Part
from hunyuan.data.shards import Source, TokenSet
from hunyuan.errors import BadDataError, UsageError
from hunyuan.memory import require_memory
from hunyuan.model.config import ModelConfig, preset
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.native.machine import matrix_peak
from hunyuan.settings import settings
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.train.adapter import Adapter, merged_leaf, write_adapter
from hunyuan.train.batch import Batch, to_batch
from hunyuan.train.evaluation import HeldOut, PairLoss, TokenLoss
from hunyuan.train.loop import Evaluate, Rows, Run
from hunyuan.train.lora import apply_lora, describe_trainable
from hunyuan.train.lora_settings import LoraConfig
from hunyuan.train.losses import (
    Distillation,
    Forward,
    Loss,
    NextToken,
    Preferences,
    answer_logs,
)
from hunyuan.train.metrics import Listener
from hunyuan.train.online import OnlinePairs, Sample, make_reward
from hunyuan.train.optimizer import Average, Optimizer, expert_ratio
from hunyuan.train.outside import add_hidden_dropout, dropless_twin, recompute_blocks
from hunyuan.train.recipe import OnlineSettings, Recipe
from hunyuan.train.saving import Saver

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


def prepare(
    recipe: Recipe,
    folder: Path,
    *,
    listeners: Sequence[Listener] = (),
    stop_after: int | None = None,
    sampler: "MakeSampler | None" = None,
) -> tuple[Run, Tally | None]:
    """Everything of a run in ``folder``, from its beginning; and what became of the files.

    ``sampler`` makes what lets a model answer, for online preferences.

    Raises `UsageError` for settings that do not go together, `BadDataError` for data that cannot be
    used, `DoesNotFitError` if memory is short.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    tokens = TokenSet.open(recipe.data.tokens) if recipe.data.tokens is not None else None
    subject = _subject(recipe, tokens, generator)
    model, config = subject.model, subject.model.config
    _require_context(recipe, config)
    if recipe.lora is not None:
        apply_lora(model, recipe.lora, generator)
    twin = dropless_twin(model)
    forward = Forward(model, recipe.dropout, generator)
    if tokens is not None:
        data = _tokens(recipe, tokens, config)
    else:
        data = _files(recipe, subject, _online(recipe, subject, twin, folder, sampler))
    measured = Forward(twin, recipe.dropout, generator)
    # Pairs that do not exist yet need the model as it is now later on.
    initial = (
        measured if recipe.online is None else Forward(deepcopy(twin), recipe.dropout, generator)
    )
    loss = _loss(recipe, data, initial)
    optimizer = Optimizer(
        model,
        recipe.optimizer,
        expert_ratio(recipe.optimizer, _step_tokens(recipe), config.experts),
    )
    add_hidden_dropout(model, recipe.dropout.hidden)
    if recipe.recompute:
        recompute_blocks(model)
    evaluate: Evaluate = (
        PairLoss(measured, loss, data.pairs_heldout)
        if recipe.task == "dpo"
        else TokenLoss(twin, data.heldout)
    )
    saver = Saver(
        folder / "checkpoints",
        _writer(subject) if recipe.lora is None else _adapter_writer(subject, recipe.lora),
        keep_last=recipe.saving.keep_last,
        keep_best=recipe.saving.keep_best,
    )
    decay = recipe.saving.ema
    return (
        Run(
            recipe=recipe,
            forward=forward,
            loss=loss,
            optimizer=optimizer,
            rows=data.rows,
            total=data.total,
            saver=saver,
            evaluate=evaluate,
            generator=generator,
            flops_per_token=_flops_per_token(recipe, config),
            peak=matrix_peak(model.dtype),
            pairs=recipe.task == "dpo",
            average=Average(optimizer.masters, decay) if decay else None,
            listeners=listeners,
            stop_after=stop_after,
        ),
        data.tally,
    )


# ------------------------------------------------------------------ the model


def _subject(recipe: Recipe, tokens: TokenSet | None, generator: torch.Generator) -> Subject:
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


def _require_context(recipe: Recipe, config: ModelConfig) -> None:
    if recipe.batch.row_tokens > config.context:
        raise UsageError(
            f"batch.row_tokens={recipe.batch.row_tokens} exceeds the model's "
            f"context={config.context}; lower it, or set model.change.context",
            f"batch.row_tokens={recipe.batch.row_tokens} 超过模型的 context={config.context}；"
            "请减小它，或设置 model.change.context",
        )


def _writer(subject: Subject) -> Callable[[Path, Mapping[str, Tensor]], None]:
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


def _adapter_writer(
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


def _flops_per_token(recipe: Recipe, config: ModelConfig) -> int:
    """Forward once, backward twice; with adapters once, for frozen weights need no gradient."""
    return (3 if recipe.lora is None else 2) * config.flops_per_token(recipe.batch.row_tokens // 2)


# ------------------------------------------------------------------ the data


@dataclass(frozen=True, kw_only=True)
class _Data:
    rows: Rows
    total: int
    heldout: Sequence[HeldOut] = ()
    pairs_heldout: Sequence[Batch] = ()
    pairs: Sequence[Any] = ()
    tally: Tally | None = None


def _step_tokens(recipe: Recipe) -> int:
    return recipe.batch.rows * recipe.batch.row_tokens * recipe.batch.accumulate


def _tokens(recipe: Recipe, tokens: TokenSet, config: ModelConfig) -> _Data:
    if tokens.vocab > config.vocab:
        raise UsageError(
            f"{tokens.folder}: has a vocabulary of {tokens.vocab}, the model {config.vocab} rows; "
            "prepare it again with the model's tokenizer",
            f"{tokens.folder}：词表大小为 {tokens.vocab}，而模型只有 {config.vocab} 行；"
            "请用该模型的分词器重新生成",
        )
    sources = tokens.sources("train")
    parts = [
        Part(
            name=mix.source if mix.min_tokens == 1 else f"{mix.source} >= {mix.min_tokens}",
            documents=_source(sources, mix.source, tokens),
            weight=sources[mix.source].tokens if mix.weight is None else mix.weight,
            min_tokens=mix.min_tokens,
        )
        for mix in recipe.data.mixture
    ] or [Part(name=s.name, documents=s, weight=s.tokens) for s in sources.values()]
    if not parts:
        raise BadDataError(f"{tokens.folder}: is empty", f"{tokens.folder}：数据集为空")
    names = {mix.source for mix in recipe.data.mixture} or sources.keys()
    heldout = [
        _held_out(source, recipe)
        for source in tokens.sources("heldout").values()
        if source.name in names
    ]
    assert recipe.schedule.tokens is not None
    return _Data(
        rows=Mixture(parts, recipe.batch.row_tokens, recipe.seed),
        total=recipe.schedule.tokens,
        heldout=heldout,
    )


def _source(sources: Mapping[str, Source], name: str, tokens: TokenSet) -> Source:
    if name not in sources:
        raise UsageError(
            f"data.mixture: {name!r} is no source of {tokens.folder}; it has {', '.join(sources)}",
            f"data.mixture：{tokens.folder} 中没有数据源 {name!r}；可用：{'、'.join(sources)}",
        )
    return sources[name]


def _held_out(source: Source, recipe: Recipe) -> HeldOut:
    rows = Mixture([Part(name=source.name, documents=source, weight=1)], recipe.batch.row_tokens, 0)
    count = min(recipe.evaluation.rows, max(1, source.tokens // recipe.batch.row_tokens))
    return HeldOut(
        source.name,
        _batches(list(islice(rows, count)), recipe.batch.rows),
        source.utf8_bytes / source.tokens,
    )


def _batches(rows: Sequence[Any], per_batch: int) -> list[Batch]:
    return [to_batch(rows[i : i + per_batch]) for i in range(0, len(rows), per_batch)]


MakeSampler = Callable[[Transformer, Tokenizer, OnlineSettings], Sample]


def _online(
    recipe: Recipe,
    subject: Subject,
    twin: Transformer,
    folder: Path,
    sampler: MakeSampler | None,
) -> OnlinePairs | None:
    if recipe.online is None or subject.tokenizer is None:
        return None
    assert sampler is not None, "online preferences need a sampler"
    return OnlinePairs(
        recipe.online,
        sampler(twin, subject.tokenizer, recipe.online),
        make_reward(recipe.online, recipe.model.dtype),
        subject.tokenizer,
        folder=folder / "online",
        longest=recipe.batch.row_tokens,
        seed=recipe.seed,
    )


def _files(recipe: Recipe, subject: Subject, online: OnlinePairs | None) -> _Data:
    if subject.tokenizer is None:
        raise UsageError(
            f"task={recipe.task}: the model has no tokenizer; set model.tokenizer",
            f"task={recipe.task}：模型没有分词器；请设置 model.tokenizer",
        )
    if recipe.task == "dpo":
        return _pairs(recipe, subject.tokenizer, online)
    return _dialogues(recipe, subject.tokenizer)


def _dialogues(recipe: Recipe, tokenizer: Tokenizer) -> _Data:
    data, row_tokens = recipe.data, recipe.batch.row_tokens

    def read(paths: Sequence[Path]) -> Any:
        return read_examples(
            paths,
            tokenizer,
            longest=row_tokens,
            too_long=data.too_long,
            learn_prompt_end=data.learn_prompt_end,
            malformed_share=data.malformed_share,
        )

    examples, tally = read(data.files)
    examples, held = _split(examples, recipe, lambda: read(data.heldout)[0])
    assert recipe.schedule.epochs is not None
    rows = Epochs(examples, row_tokens, recipe.schedule.epochs, recipe.seed)
    evaluation = list(Epochs(held, row_tokens, 1, 0)) if held else []
    return _Data(
        rows=rows,
        total=rows.rows(),
        heldout=[HeldOut("answers", _batches(evaluation, recipe.batch.rows), None)],
        tally=tally,
    )


def _pairs(recipe: Recipe, tokenizer: Tokenizer, online: OnlinePairs | None) -> _Data:
    data = recipe.data
    if recipe.batch.rows % 2:
        raise UsageError(
            f"batch.rows={recipe.batch.rows}: must be even for dpo, two rows a pair",
            f"batch.rows={recipe.batch.rows}：dpo 每对占两行，必须是偶数",
        )

    def read(paths: Sequence[Path]) -> Any:
        return read_pairs(
            paths,
            tokenizer,
            longest=recipe.batch.row_tokens,
            malformed_share=data.malformed_share,
        )

    pairs, tally = read(data.files)
    pairs, held = _split(pairs, recipe, lambda: read(data.heldout)[0])
    assert recipe.schedule.epochs is not None
    half = recipe.batch.rows // 2
    epochs = recipe.schedule.epochs
    rows = PairRows(pairs, half, epochs, recipe.seed, online)
    batches = [to_batch(pair_rows(held[i : i + half])) for i in range(0, len(held), half)]
    total = rows.rows() + (2 * recipe.online.pairs * epochs if recipe.online else 0)
    return _Data(rows=rows, total=total, pairs_heldout=batches, pairs=pairs, tally=tally)


def _split(
    items: Sequence[Any], recipe: Recipe, read_heldout: Callable[[], Sequence[Any]]
) -> tuple[list[Any], list[Any]]:
    """The items to train on, and those to evaluate on, at random."""
    order = np.random.default_rng((recipe.seed, 1)).permutation(len(items))
    shuffled = [items[i] for i in order]
    if recipe.data.heldout:
        held = list(read_heldout())
    else:
        count = round(len(shuffled) * recipe.data.heldout_share)
        held, shuffled = shuffled[:count], shuffled[count:]
    shuffled = shuffled[: recipe.data.limit]
    if not shuffled:
        raise BadDataError(
            "nothing is left to train on; lower data.heldout_share or give more files",
            "没有可用于训练的样本；请降低 data.heldout_share 或提供更多文件",
        )
    return shuffled, held


# ------------------------------------------------------------------ the loss


def _loss(recipe: Recipe, data: _Data, forward: Forward) -> Loss:
    """``forward`` runs the model as evaluation does."""
    accumulate = recipe.batch.accumulate
    if recipe.task == "distil":
        assert recipe.loss.teacher is not None
        teacher = load_model(recipe.loss.teacher, recipe.model.dtype)
        if teacher.config.vocab != forward.model.config.vocab:
            raise UsageError(
                f"loss.teacher={recipe.loss.teacher}: has {teacher.config.vocab} rows of "
                f"vocabulary, the model {forward.model.config.vocab}; they must be the same",
                f"loss.teacher={recipe.loss.teacher}：词表为 {teacher.config.vocab} 行，模型为 "
                f"{forward.model.config.vocab} 行；二者必须相同",
            )
        return Distillation(recipe.loss, accumulate, teacher)
    if recipe.task == "dpo":
        reference = _Reference(forward)
        half = recipe.batch.rows // 2
        for i in range(0, len(data.pairs), half):
            reference.add(to_batch(pair_rows(data.pairs[i : i + half])))
        for batch in data.pairs_heldout:
            reference.add(batch)
        return Preferences(recipe.loss, accumulate, reference)
    return NextToken(recipe.loss, accumulate)


class _Reference:
    """Log-likelihoods of answers before training, by the tokens themselves.

    Answers that come up only later are computed then, by a model that must not have changed.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._logs: dict[bytes, float] = {}

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        self._forward.model.eval()
        hidden, _ = self._forward.hidden(batch)
        logs = answer_logs(hidden, self._forward.head, batch.targets)
        for key, log in zip(_keys(batch), logs.tolist(), strict=True):
            self._logs[key] = log

    def __call__(self, batch: Batch) -> Tensor:
        keys = _keys(batch)
        if not self._logs.keys() >= set(keys):
            self.add(batch)
        return torch.tensor([self._logs[key] for key in keys])


def _keys(batch: Batch) -> list[bytes]:
    """Rows without their padding: a batch of other lengths has the same answers."""
    keys = []
    for ids, targets, positions in zip(batch.ids, batch.targets, batch.positions, strict=True):
        length = int(positions.argmax()) + 1
        keys.append(torch.stack([ids[:length], targets[:length]]).numpy().tobytes())
    return keys


class Line(NamedTuple):
    """A sentence for the person at the terminal."""

    en: str
    zh: str


def describe(run: Run, tally: Tally | None) -> list[Line]:
    """What is trained, on what, before it begins."""
    config = run.forward.model.config
    trained = sum(one.weight.numel() for one in run.optimizer.trained)
    lines = [
        Line(
            f"model: {config.total_parameters:,} parameters, {config.active_parameters:,} active "
            f"per token; {trained:,} are trained",
            f"模型：{config.total_parameters:,} 个参数，每词元激活 {config.active_parameters:,}；"
            f"训练其中 {trained:,} 个",
        )
    ]
    listed = [g for g in describe_trainable(run.forward.model) if g.trained]
    lines.append(
        Line(
            "trained: " + ", ".join(f"{g.group} {g.trained:,} in {g.tensors}" for g in listed),
            "训练部分："
            + "，".join(f"{g.group} {g.trained:,}（{g.tensors} 个张量）" for g in listed),
        )
    )
    if config.experts:
        routing = config.routing
        lines.append(
            Line(
                f"routing: {routing.mode}, capacity factor {routing.capacity_factor} over groups "
                f"of {routing.capacity_group} tokens; evaluation is dropless",
                f"路由：{routing.mode}，容量系数 {routing.capacity_factor}，每组 "
                f"{routing.capacity_group} 个词元；评测时不丢弃",
            )
        )
        # In a capacity mode with less room than tokens, recycling cannot place all of them.
        if routing.mode == "capacity-recycle" and routing.capacity_factor < 1:
            lines.append(
                Line(
                    f"warning: capacity_factor={routing.capacity_factor} is below 1: recycling "
                    "cannot place every token, the rest is dropped and counted",
                    f"警告：capacity_factor={routing.capacity_factor} 小于 1："
                    "随机补偿路由无法安置所有词元，其余将被丢弃并计数",
                )
            )
    if tally is not None:
        lines.append(
            Line(
                f"data: {tally.used} conversations, {tally.truncated} truncated, {tally.dropped} "
                f"left out as too long, {len(tally.malformed)} unusable lines",
                f"数据：{tally.used} 条对话，截断 {tally.truncated} 条，"
                f"因过长舍弃 {tally.dropped} 条，无法使用 {len(tally.malformed)} 行",
            )
        )
        lines += [Line(f"  {line}", f"  {line}") for line in tally.malformed[:5]]
    return lines


def read_recipe(table: Mapping[str, Any]) -> Recipe:
    """A recipe from its table; raises `UsageError`."""
    return settings(Recipe, table)
