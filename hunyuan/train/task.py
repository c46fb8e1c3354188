"""A recipe becomes a run: model, data, loss, optimiser, and what the loop needs besides."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hunyuan.checkpoint.load import (
    load_model,
)
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
from hunyuan.model.config import ModelConfig
from hunyuan.model.transformer import Transformer, build
from hunyuan.native.machine import matrix_peak
from hunyuan.settings import settings
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.train.batch import Batch, held, to_batch
from hunyuan.train.evaluation import HeldOut, PairLoss, TokenLoss
from hunyuan.train.loop import Evaluate, Rows, Run
from hunyuan.train.lora import TrainableGroup, apply_lora, describe_trainable
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
from hunyuan.train.outside import add_hidden_dropout, dropless, dropless_twin, recompute_blocks
from hunyuan.train.provenance import with_training_data
from hunyuan.train.ranks import ALONE, Ranks, seeded
from hunyuan.train.recipe import OnlineSettings, Recipe
from hunyuan.train.saving import Saver
from hunyuan.train.stages import Staged
from hunyuan.train.subject import (
    Adapted,
    Subject,
    adapter_writer,
    find_subject,
    flops_per_token,
    model_writer,
    require_context,
    require_room,
)


def prepare(
    recipe: Recipe,
    folder: Path,
    *,
    listeners: Sequence[Listener] = (),
    stop_after: int | None = None,
    sampler: "MakeSampler | None" = None,
    ranks: Ranks = ALONE,
) -> tuple[Run, Tally | None]:
    """Everything of a run in ``folder``, from its beginning; and what became of the files.

    ``sampler`` makes what lets a model answer, for online preferences. Of many ``ranks`` all call
    it; `hunyuan.train.launched` has checked that they can.

    Raises `UsageError` for settings that do not go together, `BadDataError` for data that cannot be
    used, `DoesNotFitError` if memory is short.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    tokens = TokenSet.open(recipe.data.tokens) if recipe.data.tokens is not None else None
    subject = find_subject(recipe, tokens)
    config = subject.config
    require_context(recipe, config)
    require_room(recipe, subject)
    model, types, parts = _model(recipe, subject, generator, ranks)
    twin = dropless_twin(model) if ranks.count == 1 else model
    forward = Forward(model, recipe.dropout, generator, ranks)
    if tokens is not None:
        data = _tokens(recipe, tokens, config)
    else:
        data = _files(recipe, subject, _online(recipe, subject, twin, folder, sampler))
    measured = Forward(twin, recipe.dropout, generator, ranks)
    # Pairs that do not exist yet need the model as it is now later on.
    initial = (
        measured if recipe.online is None else Forward(deepcopy(twin), recipe.dropout, generator)
    )
    loss = _loss(recipe, data, initial)
    optimizer = Optimizer(
        model,
        recipe.optimizer,
        expert_ratio(recipe.optimizer, _step_tokens(recipe), config.experts),
        ranks,
    )
    add_hidden_dropout(model, recipe.dropout.hidden)
    if recipe.recompute and ranks.count == 1:
        recompute_blocks(model)
    if ranks.stream:
        torch.manual_seed(seeded(recipe.seed, ranks.stream, 0))
    rows = recipe.batch.rows
    staged = None if ranks.stage is None else Staged(recipe, forward)
    evaluate: Evaluate = (
        PairLoss(measured, loss, data.pairs_heldout, rows)
        if recipe.task == "dpo"
        else TokenLoss(twin, data.heldout, ranks, rows, staged)
    )
    write_model = (
        model_writer(subject) if recipe.lora is None else adapter_writer(subject, recipe.lora)
    )
    saver = Saver(
        folder / "checkpoints",
        with_training_data(write_model, recipe, tokens),
        keep_last=recipe.saving.keep_last,
        keep_best=recipe.saving.keep_best,
        ranks=ranks,
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
            flops_per_token=flops_per_token(recipe, config),
            peak=matrix_peak(subject.dtype) * ranks.count,
            types=types,
            parts=parts,
            ranks=ranks,
            staged=staged,
            pairs=recipe.task == "dpo",
            average=Average(optimizer.masters, decay) if decay else None,
            listeners=listeners,
            stop_after=stop_after,
        ),
        data.tally,
    )


def _model(
    recipe: Recipe, subject: Subject, generator: torch.Generator, ranks: Ranks
) -> tuple[Transformer, dict[str, torch.dtype], list[TrainableGroup]]:
    """The model, with adapters if there are any; types of what is trained, and how much that is.

    On many processes nobody holds it whole: it is laid over them before it has any memory.
    """
    alone = ranks.count == 1
    model = subject.load(generator) if alone else build(subject.config, subject.dtype)
    values = None if alone else subject.values(generator)
    adapters: dict[str, Tensor] = {}
    if recipe.lora is not None:
        names = apply_lora(model, recipe.lora, generator)
        adapters = {name: model.get_parameter(name).detach() for name in names}
    types = {name: w.dtype for name, w in model.named_parameters() if w.requires_grad}
    parts = describe_trainable(model)
    if values is not None:
        if recipe.recompute:
            recompute_blocks(model)
        model = ranks.lay(model, Adapted(values, adapters))
        values.finish()
    return model, types, parts


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
        reference = _Reference(forward, recipe.batch.rows)
        half = recipe.batch.rows // 2
        for i in range(0, len(data.pairs), half):
            reference.add(to_batch(pair_rows(data.pairs[i : i + half])))
        for batch in data.pairs_heldout:
            reference.add(batch)
        forward.ranks.settle(forward.model)
        return Preferences(recipe.loss, accumulate, reference)
    return NextToken(recipe.loss, accumulate)


class _Reference:
    """Log-likelihoods of answers before training, by the tokens themselves.

    Answers that come up only later are computed then, by a model that must not have changed.
    """

    def __init__(self, forward: Forward, rows: int) -> None:
        """``rows`` are those of a full micro-batch."""
        self._forward = forward
        self._rows = rows
        self._logs: dict[bytes, float] = {}

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        """All ranks compute a part of ``batch`` and know the whole."""
        model, ranks = self._forward.model.eval(), self._forward.ranks
        own = held(batch, ranks.layout, ranks.place, self._rows, pairs=True)
        with dropless(model):
            hidden, _ = self._forward.hidden(own)
        logs = answer_logs(hidden, self._forward.head, own.targets)
        if own.part is not None:
            length = batch.ids.shape[1]
            whole = logs.new_zeros(len(batch.ids))
            if own.part.counts:
                whole[[r // length for p in own.part.pieces for r in p[::length]]] = logs
            logs = ranks.sum(whole)
        for key, log in zip(_keys(batch), logs.tolist(), strict=True):
            self._logs[key] = log

    def __call__(self, batch: Batch) -> Tensor:
        if batch.part is not None and not batch.part.counts:
            return torch.zeros(len(batch.ids))
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


def read_recipe(table: Mapping[str, Any], world: int = 1) -> Recipe:
    """A recipe from its table, for ``world`` processes; raises `UsageError`.

    What ``parallel.data`` leaves open, the number of processes decides.
    """
    recipe = settings(Recipe, table)
    if world > 1 and "data" not in table.get("parallel", {}):
        others = recipe.parallel.world
        layout = replace(recipe.parallel, data=max(1, world // others))
        recipe = replace(recipe, parallel=layout)
    return recipe
