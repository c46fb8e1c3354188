"""Low-rank adapters: train a few numbers beside frozen weights, experts included.

A frozen matrix W gets two thin ones beside it, in its number type; the optimiser's masters of them
are float32 (`hunyuan.train.optimizer`), so that small steps are not lost:

    y = W x + alpha / rank * B (A x)        A (rank, in) random, B (out, rank) zero at first

so that an adapted model starts as its base, exactly. `apply_lora` replaces linear layers by
`LoraLinear` and expert banks by `LoraExpertBank`; both keep what they replace as ``base``, and
`base_name` gives a parameter's name back. The model's own files know nothing of it. What looks for
a weight under its own name fails, rather than computing without the adapter.

Experts are stacked tensors and no linear layers, which is how adapters elsewhere come to skip them
in silence. Here each expert of each matrix has its own pair, and `describe_trainable` shows what
is trained and what is not.

Cost: rank * (in + out) numbers a matrix; a step still runs through W both ways. On disk:
`hunyuan.train.adapter`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.errors import UsageError, language
from hunyuan.model.grouped import grouped_linear
from hunyuan.model.moe import ExpertBank
from hunyuan.model.ops import Ops
from hunyuan.model.transformer import Transformer
from hunyuan.train.lora_settings import LoraConfig

# ---------------------------------------------------------------- modules


class LoraLinear(nn.Module):
    """A frozen linear layer and its adapter."""

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        scale: float,
        dropout: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.dropout = dropout
        rows, columns = base.weight.shape
        self.lora_A = nn.Parameter(_random(base.weight, (rank, columns), generator))
        self.lora_B = nn.Parameter(_zeros(base.weight, (rows, rank)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of ``x``."""
        y: Tensor = self.base(x)
        dropped = F.dropout(x, self.dropout, self.training)
        low = F.linear(F.linear(dropped, self.lora_A), self.lora_B) * self.scale
        return y + low


class LoraExpertBank(nn.Module):
    """A frozen bank of experts with an adapter for every expert of the adapted matrices."""

    def __init__(
        self,
        base: ExpertBank,
        projections: Iterable[str],
        rank: int,
        scale: float,
        dropout: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.dropout = dropout
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        for name in projections:
            weight = base.get_parameter(name)
            experts, rows, columns = weight.shape
            self.lora_A[name] = nn.Parameter(_random(weight, (experts, rank, columns), generator))
            self.lora_B[name] = nn.Parameter(_zeros(weight, (experts, rows, rank)))

    def forward(self, x_sorted: Tensor, counts: Tensor, ops: Ops) -> Tensor:
        """Ragged groups: rows (M, D) in expert order, ``counts`` (E,) rows each -> (M, D)."""
        return self._run(x_sorted, counts.tolist(), ops)

    def forward_slots(self, x_slots: Tensor, ops: Ops) -> Tensor:
        """Equal groups: (E, capacity, D) -> (E, capacity, D), static shapes."""
        experts, room, _ = x_slots.shape
        return self._run(x_slots.flatten(0, 1), [room] * experts, ops).view_as(x_slots)

    def _run(self, x: Tensor, counts: list[int], ops: Ops) -> Tensor:
        gate, up = (self._project(x, name, counts) for name in ("gate_proj", "up_proj"))
        return self._project(ops.swiglu(gate, up), "down_proj", counts)

    def _project(self, x: Tensor, name: str, counts: list[int]) -> Tensor:
        y = grouped_linear(x, self.base.get_parameter(name), counts)
        if name not in self.lora_A:
            return y
        a, b = self.lora_A[name], self.lora_B[name]
        dropped = F.dropout(x, self.dropout, self.training)
        low = grouped_linear(grouped_linear(dropped, a, counts), b, counts) * self.scale
        return y + low


def _random(like: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Uniform within 1 / sqrt(columns), PEFT's choice."""
    bound = shape[-1] ** -0.5
    drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return drawn.to(_device(like), like.dtype)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=like.dtype, device=_device(like))


def _device(like: Tensor) -> torch.device:
    """Adapters beside weights that have no memory yet have some: only theirs are new values."""
    return torch.device("cpu") if like.is_meta else like.device


# ---------------------------------------------------------------- applying


def apply_lora(
    model: Transformer, config: LoraConfig, generator: torch.Generator | None = None
) -> list[str]:
    """Freeze ``model`` and put adapters beside its matrices; returns the trained tensors' names.

    Raises `UsageError` if ``config`` matches nothing in this model.
    """
    chosen = [leaf for leaf in leaves(model.config) if wanted(leaf, config)]
    if not chosen:
        raise UsageError(
            f"lora: where={', '.join(config.where)} and targets={', '.join(config.targets)} match "
            "nothing in this model; a dense model has attention and mlp, a mixture of experts "
            "attention, shared and experts",
            f"lora：where={'、'.join(config.where)} 与 targets={'、'.join(config.targets)} "
            "在该模型中没有匹配；稠密模型有 attention 和 mlp，混合专家模型有 attention、shared 和 "
            "experts",
        )
    adapt(model, chosen, config.rank, config.alpha / config.rank, config.dropout, generator)
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def wanted(leaf: str, config: LoraConfig) -> bool:
    """Whether ``config`` adapts a leaf."""
    if is_router(leaf):
        return config.router
    module, _, kind = leaf.rpartition(".")
    projection = module.rpartition(".")[2]
    return kind == "weight" and projection in config.targets and group_of(leaf) in config.where


def adapt(
    model: Transformer,
    chosen: Iterable[str],
    rank: int,
    scale: float,
    dropout: float,
    generator: torch.Generator | None,
) -> None:
    """Replace the modules of the leaves ``chosen``, in the order of a forward pass."""
    model.requires_grad_(False)
    banks: dict[str, list[str]] = {}
    for leaf in chosen:
        if part := expert_leaf(leaf):
            projections = banks.setdefault(part.bank, [])
            if part.projection not in projections:
                projections.append(part.projection)
    done: set[str] = set()
    for leaf in chosen:
        part = expert_leaf(leaf)
        name = part.bank if part else leaf.removesuffix(".weight")
        if name in done:
            continue
        done.add(name)
        base = model.get_submodule(name)
        new: nn.Module
        if part:
            assert isinstance(base, ExpertBank), f"{name} is adapted already"
            new = LoraExpertBank(base, banks[name], rank, scale, dropout, generator)
        else:
            assert isinstance(base, nn.Linear), f"{name} is adapted already"
            new = LoraLinear(base, rank, scale, dropout, generator)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, new.train(base.training))


def base_name(name: str) -> str:
    """A parameter's name in an adapted model -> its name in the base."""
    return name.replace(".base.", ".")


# ---------------------------------------------------------------- what is trained

GROUPS = ("embedding", "attention", "mlp", "shared", "experts", "router", "norms", "head")
"""Parts of a model, in the order they are listed."""


class TrainableGroup(NamedTuple):
    """How much of one part of a model is trained."""

    group: str
    """One of `GROUPS`."""

    tensors: int
    """Trained tensors."""

    trained: int
    """Numbers in them."""

    frozen: int
    """Numbers that are not trained."""


def group_of(name: str) -> str:
    """The part of a model, one of `GROUPS`, that a parameter or leaf belongs to."""
    for mark, group in (
        ("norm.", "norms"),
        (".self_attn.", "attention"),
        (".mlp.gate.", "router"),
        (".mlp.experts.", "experts"),
        (".shared_mlp.", "shared"),
        (".mlp.", "mlp"),
        ("embed_tokens.", "embedding"),
    ):
        if mark in name:
            return group
    return "head"


def describe_trainable(model: nn.Module) -> list[TrainableGroup]:
    """What is trained, adapters or whole weights, by part of the model."""
    counts = {group: [0, 0, 0] for group in GROUPS}
    for name, weight in model.named_parameters():
        count = counts[group_of(name)]
        if weight.requires_grad:
            count[0] += 1
            count[1] += weight.numel()
        else:
            count[2] += weight.numel()
    return [TrainableGroup(group, *count) for group, count in counts.items() if any(count)]


def trainable_table(groups: Iterable[TrainableGroup]) -> str:
    """The records as lines of text, with a sum."""
    rows = list(groups)
    total = TrainableGroup(
        "total",
        *(sum(row[i] for row in rows) for i in (1, 2, 3)),  # type: ignore[misc]
    )
    header = (
        ("部分", "张量", "训练参数", "冻结参数") if language() == "zh" else TrainableGroup._fields
    )
    lines = [f"{header[0]:<10} {header[1]:>8} {header[2]:>14} {header[3]:>16}"]
    for row in (*rows, total):
        lines.append(f"{row.group:<10} {row.tensors:>8} {row.trained:>14,} {row.frozen:>16,}")
    return "\n".join(lines)
