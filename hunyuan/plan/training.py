"""Training on a cluster: memory of one device, traffic of one step, expected time.

The layout is that of `hunyuan.parallel`: weights, gradients and optimizer are sharded over all
devices of a pipeline stage (FSDP), experts are spread over ``expert`` of them. The figures of
communication assume ideal links; what hides behind computation is said, not assumed away.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from hunyuan.errors import DoesNotFitError, UsageError
from hunyuan.files import human_bytes
from hunyuan.model.config import ModelConfig
from hunyuan.parallel.layout import Layout, check
from hunyuan.plan.activations import BF16, layer_activations, layer_inputs
from hunyuan.plan.figures import Figure
from hunyuan.plan.hardware import Cluster

FP32 = 4
RESERVED = 3e9
"""Bytes taken by communication buffers, the runtime and fragmentation: an assumption."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What is to be trained, on what."""

    config: ModelConfig
    cluster: Cluster
    layout: Layout
    sequence: int
    """Tokens of a row."""

    batch: int
    """Tokens of a step."""

    rows: int = 1
    """Rows of a micro-batch on one data rank."""

    recompute: bool = True
    """Whether a layer's activations are computed again for its backward pass."""

    state_bytes: int = 16
    """Per parameter: float32 master, gradient and Adam's two moments."""

    share_of_peak: float = 0.35
    """Model operations over the peak while nothing waits for a link."""

    @property
    def micro_batches(self) -> float:
        """Micro-batches of one data rank in a step."""
        return self.batch / (self.layout.data * self.rows * self.sequence)

    @property
    def tokens(self) -> float:
        """Tokens of one micro-batch on one device."""
        return self.rows * self.sequence / self.layout.context


@dataclass(frozen=True)
class TrainingPlan:
    """What a job needs."""

    memory: tuple[Figure, ...]
    """Of the fullest device."""

    traffic: tuple[Figure, ...]
    """Seconds of one step, by kind of communication, links taken as ideal."""

    time: tuple[Figure, ...]
    fits: bool
    seconds: float
    """Of one step."""


def plan_training(job: TrainingJob) -> TrainingPlan:
    """The closed forms, for a job that `require_possible` accepts."""
    memory = tuple(_memory(job))
    traffic = tuple(_traffic(job))
    needed = sum(figure.value for figure in memory)
    config, cluster = job.config, job.cluster
    flops = 3 * job.batch * config.flops_per_token(job.sequence // 2)
    compute = flops / (cluster.count * cluster.accelerator.flops * job.share_of_peak)
    stages = job.layout.pipeline
    bubble = compute * (stages - 1) / job.micro_batches
    seconds_of = {figure.name: figure.value for figure in traffic}
    hidden = seconds_of["gather weights"] + seconds_of["reduce gradients"]
    exposed = sum(seconds_of.values()) - hidden
    seconds = max(compute, hidden) + bubble + exposed
    time = (
        Figure("share of the peak", job.share_of_peak, "1", "assumed"),
        Figure("model operations of a step", flops, "FLOP", "calculated"),
        Figure("computation", compute, "s", "calculated"),
        Figure("pipeline bubble", bubble, "s", "calculated"),
        Figure("step", seconds, "s", "calculated"),
        Figure("speed", job.batch / seconds, "tokens/s", "calculated"),
        Figure("speed of a device", job.batch / seconds / cluster.count, "tokens/s", "calculated"),
    )
    return TrainingPlan(memory, traffic, time, needed <= cluster.accelerator.memory, seconds)


def _memory(job: TrainingJob) -> Iterator[Figure]:
    config, layout = job.config, job.layout
    yield Figure("state", job.state_bytes * state_parameters(config, layout), "B", "calculated")
    layer = layer_parameters(config, layout)
    # One layer is computed while the next is gathered.
    yield Figure("gathered layers", 2 * BF16 * layer, "B", "calculated")
    yield Figure("gradients of a layer", FP32 * layer, "B", "calculated")
    layers = config.layers / layout.pipeline
    # The first stage runs ahead by as many micro-batches as there are stages.
    ahead = min(layout.pipeline, max(1.0, job.micro_batches))
    one = layer_activations(config, layout.tensor)
    kept = layer_inputs(config) if job.recompute else one
    yield Figure("activations", job.tokens * layers * kept * ahead, "B", "calculated")
    if job.recompute:
        yield Figure("recomputed layer", job.tokens * one, "B", "calculated")
    yield Figure("reserved", RESERVED, "B", "assumed")


def state_parameters(config: ModelConfig, layout: Layout) -> float:
    """Parameters whose state the fullest device holds."""
    parts = dict(config.parameters)
    ends = parts.pop("embedding") + parts.pop("head")
    devices = layout.world // layout.pipeline  # of a stage
    # The first stage has the embedding, the last the head, which is the same matrix where tied.
    return (sum(parts.values()) / layout.pipeline + ends) / devices


def layer_parameters(config: ModelConfig, layout: Layout) -> float:
    """Parameters of one layer as a device computes it: experts of its own, the rest whole."""
    experts = config.parameters["routed_experts"] / layout.expert
    return (experts + _dense(config)) / config.layers / layout.tensor


def _dense(config: ModelConfig) -> float:
    parts = config.parameters
    outside = parts["routed_experts"] + parts["embedding"] + parts["head"]
    return config.total_parameters - outside


def _traffic(job: TrainingJob) -> Iterator[Figure]:
    config, layout = job.config, job.layout
    device = job.cluster.accelerator
    layers = config.layers / layout.pipeline
    sharded = layout.data * layout.context
    dense = _dense(config) / layout.pipeline / layout.tensor
    experts = config.parameters["routed_experts"] / layout.pipeline / layout.tensor / layout.expert
    dense_rate = _rate(job, sharded, layout.tensor)
    expert_rate = _rate(job, sharded // layout.expert, layout.tensor * layout.expert)
    ring_dense = (sharded - 1) / sharded
    ring_experts = 1 - layout.expert / sharded
    per_byte = dense * ring_dense / dense_rate + experts * ring_experts / expert_rate
    passes = max(1.0, job.micro_batches)
    # Forward, and again for the backward pass.
    yield Figure("gather weights", 2 * BF16 * per_byte * passes, "s", "calculated")
    yield Figure("reduce gradients", FP32 * per_byte * passes, "s", "calculated")

    # What a forward pass exchanges is exchanged again backwards, and once more if recomputed.
    times = (3 if job.recompute else 2) * passes * layers * job.tokens
    if config.experts:
        slots = config.top_k * max(1.0, config.routing.capacity_factor)
        out = 2 * slots * config.hidden * BF16  # to the experts and back
        inside = max(1, min(layout.expert, device.node // layout.tensor))
        near = (inside - 1) / layout.expert / device.link
        far = (layout.expert - inside) / layout.expert / device.network
        yield Figure("exchange of tokens", times * out * max(near, far), "s", "calculated")
    if layout.tensor > 1:
        reduced = 2 * 2 * config.hidden * BF16 * (layout.tensor - 1) / layout.tensor
        rate = _rate(job, layout.tensor, 1)
        yield Figure("sums over tensor ranks", times * reduced / rate, "s", "calculated")
    if layout.context > 1:
        kv = 2 * config.kv_heads * config.head_dim * BF16 / config.cla_share / layout.tensor
        rate = _rate(job, layout.context, layout.tensor)
        yield Figure("keys and values", times * kv * (layout.context - 1) / rate, "s", "calculated")
    if layout.pipeline > 1:
        between = 2 * passes * job.tokens * config.hidden * BF16
        yield Figure("between stages", between / device.network, "s", "calculated")


def _rate(job: TrainingJob, members: int, inner: int) -> float:
    """Bytes per second into one member of a group whose members lie ``inner`` devices apart.

    Within a node the devices' own links; beyond it, the adapters of all members of one node
    together, as each brings a part that the others read over the links.
    """
    device = job.cluster.accelerator
    if members * inner <= device.node:
        return device.link
    return min(device.link, max(1, device.node // inner) * device.network)


def layouts(config: ModelConfig, world: int) -> Iterator[Layout]:
    """Layouts of ``world`` devices that divide the model evenly, contexts up to 16."""
    split = gcd(config.heads, config.kv_heads, config.ffn, config.vocab)
    for pipeline in _divisors(config.slots):
        for tensor in _divisors(gcd(split, 8)):
            for context in (1, 2, 4, 8, 16):
                data, rest = divmod(world, pipeline * tensor * context)
                if rest or not data:
                    continue
                for expert in _divisors(gcd(config.experts or 1, data * context)):
                    sizes = {"data": data, "expert": expert, "tensor": tensor}
                    yield Layout(**sizes, pipeline=pipeline, context=context)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def best_layout(job: TrainingJob) -> TrainingJob:
    """The job with the fastest layout and rows of a micro-batch that fit on its cluster.

    Raises `DoesNotFitError` naming the smallest number of devices on which one fits.
    """
    job_of = _fastest(job)
    if job_of is not None:
        return job_of
    device = job.cluster.accelerator
    count = job.cluster.count
    while count < 1 << 16:
        count = (count // device.node + 1) * device.node if count < 256 else 2 * count
        if _fastest(replace(job, cluster=Cluster(count, device))) is not None:
            break
    needed = job.state_bytes * job.config.total_parameters
    raise DoesNotFitError(
        f"{job.cluster.count} x {device.name}: no layout holds {human_bytes(needed)} of training "
        f"state and a row of {job.sequence} tokens; the nearest number of devices that does: "
        f"{count}",
        f"{job.cluster.count} x {device.name}：没有任何布局能容纳 {human_bytes(needed)} 的训练状态"
        f"与每行 {job.sequence} 个词元；能容纳的最近设备数：{count}",
    )


def _fastest(job: TrainingJob) -> TrainingJob | None:
    device = job.cluster.accelerator
    if job.state_bytes * job.config.total_parameters > job.cluster.count * device.memory:
        return None
    found = []
    for layout in layouts(job.config, job.cluster.count):
        for rows in (1, 2, 4, 8, 16):
            candidate = replace(job, layout=layout, rows=rows)
            # What is refused is refused with advice, which takes its time: the plain reasons first.
            if job.batch % (layout.data * rows * job.sequence):
                continue
            if candidate.micro_batches < layout.pipeline:
                continue
            plan = plan_training(candidate)
            if not plan.fits:
                continue
            try:
                require_possible(candidate)
            except UsageError:
                continue
            # Of nearly equal ones the plainest, then the one that leaves most room.
            needed = sum(figure.value for figure in plan.memory)
            rank = (layout.pipeline, layout.tensor, layout.context, needed)
            found.append((plan.seconds, rank, candidate))
    if not found:
        return None
    limit = 1.01 * min(seconds for seconds, _, _ in found)
    return min((one for one in found if one[0] <= limit), key=lambda one: one[1])[2]


def require_possible(job: TrainingJob) -> None:
    """Raise `UsageError` where training would refuse the layout or the batch."""
    share = job.layout.data * job.rows * job.sequence
    if job.batch % share:
        nearest = max(1, round(job.batch / share)) * share
        raise UsageError(
            f"--batch {job.batch}: not a multiple of {share} tokens, one micro-batch of all data "
            f"ranks; nearest that works: {nearest}",
            f"--batch {job.batch}：不是 {share} 个词元（所有数据进程的一个微批次）的整数倍；"
            f"最接近的可用值：{nearest}",
        )
    rows = job.layout.data * job.rows
    micro = job.batch // share
    check(job.config, job.layout, job.cluster.count, rows, job.sequence, micro)
