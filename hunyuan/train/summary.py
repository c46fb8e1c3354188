"""What a run is about to do, in sentences for the person at the terminal."""

from typing import NamedTuple

from hunyuan.data.dialogue import (
    Tally,
)
from hunyuan.train.loop import Run


class Line(NamedTuple):
    """A sentence for the person at the terminal."""

    en: str
    zh: str


def describe(run: Run, tally: Tally | None) -> list[Line]:
    """What is trained, on what, before it begins."""
    config = run.forward.model.config
    trained = sum(part.trained for part in run.parts)
    lines = [
        Line(
            f"model: {config.total_parameters:,} parameters, {config.active_parameters:,} active "
            f"per token; {trained:,} are trained",
            f"模型：{config.total_parameters:,} 个参数，每词元激活 {config.active_parameters:,}；"
            f"训练其中 {trained:,} 个",
        )
    ]
    listed = [g for g in run.parts if g.trained]
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
    if run.ranks.count > 1:
        layout = run.ranks.layout
        lines.append(
            Line(f"processes: {run.ranks.count}, {layout}", f"进程：{run.ranks.count} 个，{layout}")
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
