"""``hunyuan plan``: what a run needs, before it is started."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hunyuan.cli.columns import columns
from hunyuan.errors import DoesNotFitError, UsageError, language
from hunyuan.files import human_bytes
from hunyuan.model.config import ModelConfig, Routing, RoutingMode, presets
from hunyuan.plan.figures import Figure
from hunyuan.plan.hardware import parse_cluster
from hunyuan.plan.serving import CACHE_BYTES, WEIGHT_BYTES

if TYPE_CHECKING:
    from hunyuan.plan.serving import ServingJob
    from hunyuan.plan.training import TrainingJob

_ZH = {
    "state": "训练状态（主权重、梯度、优化器）",
    "gathered layers": "汇集的两层权重",
    "gradients of a layer": "一层的梯度",
    "activations": "激活",
    "recomputed layer": "重算的一层",
    "reserved": "预留（通信缓冲、运行时）",
    "gather weights": "汇集权重",
    "reduce gradients": "归约梯度",
    "exchange of tokens": "专家间交换词元",
    "sums over tensor ranks": "张量并行求和",
    "keys and values": "上下文并行交换 K、V",
    "between stages": "流水线阶段之间",
    "share of the peak": "占峰值算力的比例",
    "share of the bandwidth": "占内存带宽的比例",
    "model operations of a step": "每步模型运算量",
    "computation": "计算",
    "pipeline bubble": "流水线气泡",
    "step": "每步",
    "speed": "速度",
    "speed of a device": "单设备速度",
    "weights": "权重",
    "cache": "KV 缓存",
    "prompt": "读入一条提示",
    "always-used weights": "常驻权重",
    "routed experts": "路由专家",
    "working memory": "工作内存",
    "bandwidth of memory": "内存带宽",
    "token": "每词元",
    "speed of the disk": "磁盘速度",
    "share of experts in memory": "内存中专家的比例",
    "read from disk per token": "每词元读盘",
}
_BASIS_ZH = {
    "measured": "实测",
    "calculated": "计算",
    "assumed": "假设",
    "published": "公开资料",
}


class _Count(click.ParamType[int]):
    """``4096``, ``32k`` (1024s) or ``4M`` (1024 * 1024)."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+)([kKmM]?)", str(value))
        if not found or int(found[1]) < 1:
            self.fail(f"{value!r}: must be a number of tokens such as 4096, 32k or 4M", param, ctx)
        return int(found[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[found[2].lower()]


class _Bytes(click.ParamType[int]):
    """``20G`` or ``900M`` (decimal, as disks and memory limits are given)."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)B?", str(value))
        if not found or float(found[1]) <= 0:
            self.fail(f"{value!r}: must be a size such as 900M or 20G", param, ctx)
        power = ("", "k", "m", "g", "t").index(found[2].lower())
        return int(float(found[1]) * 1000**power)


@click.command()
@click.argument("model")
@click.option("--gpus", metavar="NxNAME", help="A cluster, such as 256xH100-80G.")
@click.option("--here", is_flag=True, help="This machine, its memory and disk measured.")
@click.option("--serve", "serving", is_flag=True, help="Serve on the cluster instead of training.")
@click.option(
    "--sequence",
    "--seq",
    type=_Count(),
    default="4k",
    show_default=True,
    help="Tokens of a row, or of a conversation with --serve.",
)
@click.option("--batch", type=_Count(), default="4M", show_default=True, help="Tokens of a step.")
@click.option(
    "--rows", type=click.IntRange(1), default=1, help="With --layout: rows of a rank's micro-batch."
)
@click.option("--layout", metavar="NAME=N,...", help="As in a recipe's [parallel]. Default: best.")
@click.option("--recompute/--no-recompute", default=True, help="Recompute activations.")
@click.option("--state-bytes", type=click.IntRange(4), default=16, help="Per parameter.")
@click.option("--capacity", type=click.FloatRange(1.0), help="Capacity factor, with recycling.")
@click.option("--share", type=click.FloatRange(0.01, 1.0), help="Of the peak, assumed.")
@click.option(
    "--weights",
    type=click.Choice(list(WEIGHT_BYTES)),
    help="With --serve or --here. Default: bf16 on a cluster, q4 here.",
)
@click.option(
    "--cache",
    type=click.Choice(list(CACHE_BYTES)),
    default="bf16",
    show_default=True,
    help="Number type of keys and values, with --serve.",
)
@click.option("--streams", type=click.IntRange(1), default=16, help="With --serve.")
@click.option("--memory", type=_Bytes(), help="With --here: how much may be used.")
@click.option("--disk", type=_Bytes(), help="With --here: bytes per second of the disk.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    model: str,
    gpus: str | None,
    here: bool,
    serving: bool,
    sequence: int,
    batch: int,
    rows: int,
    layout: str | None,
    recompute: bool,
    state_bytes: int,
    capacity: float | None,
    share: float | None,
    weights: str | None,
    cache: str,
    streams: int,
    memory: int | None,
    disk: int | None,
    as_json: bool,
) -> None:
    """What training or serving MODEL needs: memory, communication, time.

    MODEL is a preset (large, a13b, ...), a folder, a .gguf file or a pulled model's name. Nothing
    is loaded; every figure says whether it was measured, calculated or assumed.
    """
    if here == (gpus is not None):
        raise UsageError(
            "hunyuan plan: give either --gpus, such as 256xH100-80G, or --here",
            "hunyuan plan：请给出 --gpus（例如 256xH100-80G）或 --here 之一",
        )
    config = _config(model)
    if sequence > config.context:
        raise UsageError(
            f"--sequence {sequence}: {model} has a context of {config.context} tokens",
            f"--sequence {sequence}：{model} 的上下文长度为 {config.context} 个词元",
        )
    if gpus is None:
        _plan_here(config, weights or "q4", cache, sequence, memory, disk, as_json)
    elif serving:
        from hunyuan.plan.serving import ServingJob

        served = ServingJob(
            config=config,
            cluster=parse_cluster(gpus),
            weights=weights or "bf16",
            cache=cache,
            sequence=sequence,
            streams=streams,
            share_of_peak=share or ServingJob.share_of_peak,
        )
        _plan_serving(served, as_json)
    else:
        from hunyuan.parallel.layout import Layout
        from hunyuan.plan.training import TrainingJob

        cluster = parse_cluster(gpus)
        trained = TrainingJob(
            config=_with_capacity(config, capacity, sequence),
            cluster=cluster,
            layout=Layout.parse(layout) if layout else Layout(data=cluster.count),
            sequence=sequence,
            batch=batch,
            rows=rows,
            recompute=recompute,
            state_bytes=state_bytes,
            share_of_peak=share or TrainingJob.share_of_peak,
        )
        _plan_training(trained, layout is None, as_json)


def _with_capacity(config: ModelConfig, capacity: float | None, sequence: int) -> ModelConfig:
    if capacity is None:
        return config
    mode: RoutingMode = "capacity-recycle" if config.top_k == 1 else "capacity-drop"
    # A group per row keeps routing independent of the layout.
    routing = Routing(mode=mode, capacity_factor=capacity, capacity_group=sequence)
    return replace(config, routing=routing)


def _config(model: str) -> ModelConfig:
    if not Path(model).exists() and model in presets():
        return presets()[model]
    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.checkpoint import open_checkpoint

    return open_checkpoint(locate(model)).config


def _plan_training(job: "TrainingJob", choose: bool, as_json: bool) -> None:
    from hunyuan.plan.training import best_layout, plan_training, require_possible

    if choose:
        job = best_layout(job)
    else:
        require_possible(job)
    cluster = job.cluster
    found = plan_training(job)
    nearest = None
    if not found.fits:
        try:
            nearest = str(best_layout(job).layout)
        except DoesNotFitError as error:
            nearest = error.zh if language() == "zh" else error.en
    if as_json:
        print(
            json.dumps(
                {
                    "cluster": asdict(cluster),
                    "layout": job.layout.sizes,
                    "rows": job.rows,
                    "micro_batches": job.micro_batches,
                    **_groups(memory=found.memory, traffic=found.traffic, time=found.time),
                    "fits": found.fits,
                    "nearest": nearest,
                }
            )
        )
        return
    zh = language() == "zh"
    what = (
        f"每个微批次 {job.rows} 行 x {job.sequence} 词元，每步 {job.micro_batches:.0f} 个"
        if zh
        else f"micro-batches of {job.rows} x {job.sequence} tokens, {job.micro_batches:.0f} a step"
    )
    print(f"{cluster.count} x {cluster.accelerator.name}, {job.layout}; {what}")
    _table("单个设备的内存" if zh else "Memory of a device", found.memory, total="B")
    limit = human_bytes(cluster.accelerator.memory)
    if found.fits:
        print(f"  放得下（每个 {limit}）" if zh else f"  fits ({limit} each)")
    else:
        print(
            f"  放不下（每个 {limit}）；最接近的可行方案：{nearest}"
            if zh
            else f"  does not fit ({limit} each); nearest that does: {nearest}"
        )
    _table("每步通信（理想链路）" if zh else "Communication of a step, ideal links", found.traffic)
    _table("时间" if zh else "Time", found.time)


def _plan_serving(job: "ServingJob", as_json: bool) -> None:
    from hunyuan.plan.serving import plan_serving

    cluster, weights, sequence = job.cluster, job.weights, job.sequence
    found = plan_serving(job)
    if as_json:
        groups = _groups(memory=found.memory, speed=found.speed)
        facts = {"fits": found.fits, "streams": found.streams}
        parts = {"weights": weights, "cache": job.cache, "sequence": sequence}
        print(json.dumps({"cluster": asdict(cluster), **parts, **groups, **facts}))
        return
    zh = language() == "zh"
    print(f"{cluster.count} x {cluster.accelerator.name}, {weights}")
    _table("单个设备的内存" if zh else "Memory of a device", found.memory, total="B")
    limit = human_bytes(cluster.accelerator.memory)
    print(
        f"  {'放得下' if found.fits else '放不下'}（每个 {limit}）；"
        f"{sequence} 词元的对话最多 {found.streams} 路"
        if zh
        else f"  {'fits' if found.fits else 'does not fit'} ({limit} each); room for "
        f"{found.streams} conversations of {sequence} tokens"
    )
    _table("速度" if zh else "Speed", found.speed)


def _plan_here(
    config: ModelConfig,
    weights: str,
    cache: str,
    sequence: int,
    memory: int | None,
    disk: int | None,
    as_json: bool,
) -> None:
    from hunyuan.memory import available_memory
    from hunyuan.native.machine import read_bandwidth
    from hunyuan.plan.machine import MachineJob, plan_machine

    job = MachineJob(
        config=config,
        weights=weights,
        cache=cache,
        sequence=sequence,
        memory=memory or available_memory(),
        bandwidth=read_bandwidth(),
        disk=disk,
    )
    found = plan_machine(job)
    if as_json:
        groups = _groups(memory=found.memory, speed=found.speed)
        facts = {"fits": found.fits, "fits_from_disk": found.fits_from_disk}
        print(json.dumps({"memory_limit": job.memory, **groups, **facts}))
        return
    zh = language() == "zh"
    _table("内存" if zh else "Memory", found.memory, total="B")
    limit = human_bytes(job.memory)
    if found.fits:
        print(f"  放得下（可用 {limit}）" if zh else f"  fits ({limit} may be used)")
    elif found.fits_from_disk:
        print(
            f"  内存放不下（可用 {limit}），专家从磁盘读取"
            if zh
            else f"  does not fit in memory ({limit} may be used); the experts are read from disk"
        )
    else:
        print(f"  放不下（可用 {limit}）" if zh else f"  does not fit ({limit} may be used)")
    _table("速度" if zh else "Speed", found.speed)


def _groups(**groups: Sequence[Figure]) -> dict[str, Any]:
    return {name: [asdict(figure) for figure in figures] for name, figures in groups.items()}


def _table(title: str, figures: Sequence[Figure], total: str | None = None) -> None:
    zh = language() == "zh"
    rows = [(_label(f.name, zh), _value(f), _BASIS_ZH[f.basis] if zh else f.basis) for f in figures]
    if total is not None:
        whole = Figure("", sum(f.value for f in figures), total, "calculated")
        rows.append(("合计" if zh else "together", _value(whole), ""))
    width = max(columns(label) for label, _, _ in rows)
    print(f"\n{title}")
    for label, value, basis in rows:
        print(f"  {label}{' ' * (width - columns(label))}  {value:>16}  {basis}".rstrip())


def _label(name: str, zh: bool) -> str:
    if not zh:
        return name
    if name in _ZH:
        return _ZH[name]
    kind, _, streams = name.rpartition(" of ")  # "step of 16"
    return f"{streams} 路时{_ZH[kind]}"


def _value(figure: Figure) -> str:
    value = figure.value
    if figure.unit in ("B", "B/s"):
        return human_bytes(value) + figure.unit[1:]
    if figure.unit == "1":
        return f"{value:.0%}"
    if figure.unit == "s":
        return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.2f} ms"
    if figure.unit == "FLOP":
        return f"{value:.3g} FLOP"
    return f"{value:,.0f} {figure.unit}" if value >= 10 else f"{value:.2f} {figure.unit}"
