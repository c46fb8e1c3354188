"""How many processes do what, and whether a model can be laid out so. No torch here.

Processes are numbered with tensor innermost: rank = ((p * data + d) * context + c) * tensor + t.
Experts are spread over the ranks that hold different tokens: every ``expert`` neighbours among the
data * context ranks of one tensor coordinate hold all experts of a layer together, once.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import gcd
from typing import NamedTuple

from hunyuan.errors import UsageError
from hunyuan.model.config import ModelConfig


class Place(NamedTuple):
    """Where one process stands; each counts from 0."""

    data: int
    """Which rows it holds."""

    context: int
    """Which part of every row."""

    tensor: int
    """Which heads, channels and vocabulary rows."""

    pipeline: int
    """Which layers."""

    expert: int
    """Which experts."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of the mesh of processes."""

    data: int = 1
    """Ways the rows of a micro-batch are divided."""

    expert: int = 1
    """Ways the experts of a layer are divided; divides data * context."""

    tensor: int = 1
    """Ways heads, MLP channels and vocabulary are divided."""

    pipeline: int = 1
    """Ways the layers are divided."""

    context: int = 1
    """Ways every row is divided."""

    def __post_init__(self) -> None:
        for name, value in self.sizes.items():
            if not isinstance(value, int) or value < 1:
                raise UsageError(
                    f"parallel.{name}={value!r} must be a whole number of at least 1",
                    f"parallel.{name}={value!r} 必须是不小于 1 的整数",
                )

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """``data=4,expert=2`` or ``data=4 expert=2``; what is not named is 1."""
        sizes = {}
        known = [field.name for field in fields(cls)]
        for part in text.replace(",", " ").split():
            name, equals, value = part.partition("=")
            if name not in known or not equals or not value.isdigit():
                raise UsageError(
                    f"layout {part!r} is not understood; write NAME=NUMBER with a name of "
                    f"{', '.join(known)}",
                    f"无法理解布局 {part!r}；请写成 名称=数字，名称为 {'、'.join(known)} 之一",
                )
            sizes[name] = int(value)
        return cls(**sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """The five sizes by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.pipeline * self.data * self.context * self.tensor

    @property
    def shards(self) -> int:
        """Ranks that divide each weight outside the experts: those with different tokens."""
        return self.data * self.context

    @property
    def expert_shards(self) -> int:
        """Ranks that divide each expert's weights."""
        return self.shards // self.expert

    def place(self, rank: int) -> Place:
        """Where process ``rank`` stands."""
        rest, tensor = divmod(rank, self.tensor)
        rest, context = divmod(rest, self.context)
        pipeline, data = divmod(rest, self.data)
        expert = (data * self.context + context) % self.expert
        return Place(data, context, tensor, pipeline, expert)

    def stage(self, config: ModelConfig, pipeline: int) -> range:
        """Layers of one stage; cuts lie between groups that share K and V."""
        layers = config.layers // self.pipeline
        return range(pipeline * layers, (pipeline + 1) * layers)

    def __str__(self) -> str:
        shown = [f"{name}={size}" for name, size in self.sizes.items() if size > 1]
        return " ".join(shown) or "data=1"


def check(
    config: ModelConfig, layout: Layout, world: int, rows: int, row_tokens: int, micro: int = 1
) -> None:
    """Raise `UsageError` unless a model trains in this layout on ``world`` processes.

    ``rows`` of ``row_tokens`` tokens are one micro-batch of all processes together, ``micro`` the
    micro-batches of a step. Every message names the nearest number that works.
    """
    _check_shape(config, layout)
    _check_batch(config, layout, rows, row_tokens, micro)
    _check_world(layout, world)


def _check_world(layout: Layout, world: int) -> None:
    if layout.world == world:
        return
    others = layout.world // layout.data
    data = world // others
    remedy = (
        (f"; with {world} use parallel.data={data}", f"；{world} 个进程时请设 parallel.data={data}")
        if data and data * others == world and data * layout.context % layout.expert == 0
        else ("", "")
    )
    raise UsageError(
        f"parallel: {layout} needs {layout.world} processes, {world} were started; start "
        f"{layout.world}{remedy[0]}",
        f"parallel：{layout} 需要 {layout.world} 个进程，实际启动了 {world} 个；请启动 "
        f"{layout.world} 个{remedy[1]}",
    )


def _check_shape(config: ModelConfig, layout: Layout) -> None:
    tensor = {
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "ffn": config.ffn,
        "vocab": config.vocab,
    }
    whole = gcd(*tensor.values())
    for name, size in tensor.items():
        _divides("tensor", layout.tensor, f"{name}={size}", size, lambda n: whole % n == 0)
    if layout.expert > 1:
        if not config.experts:
            raise UsageError(
                f"parallel.expert={layout.expert}: the model has no experts; set it to 1",
                f"parallel.expert={layout.expert}：模型没有专家；请设为 1",
            )
        both = gcd(config.experts, layout.shards)
        what = f"experts={config.experts}"
        _divides("expert", layout.expert, what, config.experts, lambda n: both % n == 0)
        what = f"parallel.data * parallel.context = {layout.shards}"
        _divides("expert", layout.expert, what, layout.shards, lambda n: both % n == 0)
    _check_width(config, layout)
    _check_stages(config, layout)


def _check_width(config: ModelConfig, layout: Layout) -> None:
    """Weights that experts or tensor parallelism already divide are sharded along D, evenly."""

    def shards(other: Layout) -> int:
        if other.tensor > 1:
            return other.shards
        return other.expert_shards if config.experts else 1

    def works(name: str, size: int) -> bool:
        other = replace(layout, **{name: size})
        return other.shards % other.expert == 0 and config.hidden % shards(other) == 0

    if works("data", layout.data):
        return
    name = "data" if any(works("data", n) for n in range(1, 2 * layout.data)) else "context"
    size = layout.sizes[name]
    near = _nearest(size, lambda n: works(name, n))
    raise UsageError(
        f"parallel.{name}={size}: hidden={config.hidden} is not a multiple of the "
        f"{shards(layout)} ranks that share a weight; nearest that works: {_or(near, 'or')}",
        f"parallel.{name}={size}：hidden={config.hidden} 不是共享一个权重的 {shards(layout)} 个进程"
        f"的整数倍；最接近的可用值：{_or(near, '或')}",
    )


def _check_stages(config: ModelConfig, layout: Layout) -> None:
    stages, share = layout.pipeline, config.cla_share

    def works(n: int) -> bool:
        return config.layers % n == 0 and (n == 1 or config.layers // n % share == 0)

    if works(stages):
        return
    near = _nearest(stages, works, config.layers)
    groups = (
        (
            f" in whole groups of {share} that share K and V",
            f"，且每组 {share} 层共享 K、V 不可拆开",
        )
        if share > 1
        else ("", "")
    )
    raise UsageError(
        f"parallel.pipeline={stages} cannot cut {config.layers} layers into equal stages"
        f"{groups[0]}; nearest that works: {_or(near, 'or')}",
        f"parallel.pipeline={stages} 无法将 {config.layers} 层切成等长的阶段{groups[1]}；"
        f"最接近的可用值：{_or(near, '或')}",
    )


def _check_batch(
    config: ModelConfig, layout: Layout, rows: int, row_tokens: int, micro: int
) -> None:
    what = f"batch.rows={rows}"
    _divides("data", layout.data, what, rows, lambda n: rows % n == 0)
    if micro < layout.pipeline:
        raise UsageError(
            f"batch.accumulate={micro} micro-batches cannot fill parallel.pipeline="
            f"{layout.pipeline} stages; use at least {layout.pipeline}",
            f"batch.accumulate={micro} 个微批次不足以填满 parallel.pipeline={layout.pipeline} 个"
            f"阶段；请至少设为 {layout.pipeline}",
        )
    parts = 2 * layout.context
    if layout.context > 1 and row_tokens % parts:
        near = _nearest(row_tokens, lambda n: n % parts == 0, 2 * row_tokens + parts)
        raise UsageError(
            f"batch.row_tokens={row_tokens} is not a multiple of {parts}: every one of "
            f"parallel.context={layout.context} ranks holds two equal pieces of a row; nearest "
            f"that works: {_or(near, 'or')}",
            f"batch.row_tokens={row_tokens} 不是 {parts} 的整数倍：parallel.context="
            f"{layout.context} 的每个进程持有每行的两个等长片段；最接近的可用值：{_or(near, '或')}",
        )
    if config.experts and config.routing.mode != "dropless" and layout.shards > 1:
        _check_groups(config, layout, rows, row_tokens)


def _check_groups(config: ModelConfig, layout: Layout, rows: int, row_tokens: int) -> None:
    group = config.routing.capacity_group

    def piece(data: int) -> int:
        """Consecutive tokens of the micro-batch that one rank holds."""
        if layout.context > 1:
            return row_tokens // (2 * layout.context)
        return rows // data * row_tokens

    def works(data: int) -> bool:
        whole = data * layout.context == 1
        return rows % data == 0 and (whole or piece(data) % group == 0)

    if works(layout.data):
        return
    tokens = piece(layout.data)
    groups = [n for n in range(1, tokens + 1) if tokens % n == 0]
    nearest = min(groups, key=lambda n: abs(n - group))
    data = _nearest(layout.data, works, rows) if layout.context == 1 else []
    other = (
        (f", or parallel.data={_or(data, 'or')}", f"，或 parallel.data={_or(data, '或')}")
        if data
        else ("", "")
    )
    raise UsageError(
        f"routing.capacity_group={group}: a rank's {tokens} consecutive tokens are not whole "
        f"groups, so routing would depend on the layout; nearest that works: "
        f"routing.capacity_group={nearest}{other[0]}",
        f"routing.capacity_group={group}：每个进程连续持有的 {tokens} 个词元不是整数个容量组，"
        f"路由将取决于布局；最接近的可用值：routing.capacity_group={nearest}{other[1]}",
    )


def _divides(name: str, value: int, what: str, size: int, works: Callable[[int], bool]) -> None:
    if size % value == 0:
        return
    near = _nearest(value, works, size)
    raise UsageError(
        f"parallel.{name}={value} does not divide {what}; nearest that works: {_or(near, 'or')}",
        f"parallel.{name}={value} 不能整除 {what}；最接近的可用值：{_or(near, '或')}",
    )


def _nearest(value: int, works: Callable[[int], bool], limit: int | None = None) -> list[int]:
    """The next smaller and the next larger number that works, where there are any."""
    limit = 2 * value if limit is None else limit
    below = next((n for n in range(min(value, limit), 0, -1) if works(n)), None)
    above = next((n for n in range(value + 1, limit + 1) if works(n)), None)
    return [n for n in (below, above) if n is not None]


def _or(numbers: list[int], word: str) -> str:
    return f" {word} ".join(str(n) for n in numbers)
