"""What can be known without the machines: the largest layout, and a step as one static graph."""

import resource
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from hunyuan.model.config import ModelConfig, Routing, preset
from hunyuan.model.routing import balance_loss, draw_slot_keys
from hunyuan.model.transformer import build, init_weights
from hunyuan.parallel.apply import parallelise
from hunyuan.parallel.layout import Layout
from hunyuan.parallel.mesh import pretended
from hunyuan.plan.training import state_parameters

LARGE = preset("large")

# Gains of 80 channels over 256 ranks: the first ranks have one of each, 128 gains in all.
UNEVEN = 2 * LARGE.layers


@pytest.mark.parametrize(("rank", "dtype"), [(0, torch.float32), (255, torch.bfloat16)])
def test_hunyuan_large_is_sharded_over_256_processes(rank, dtype):
    layout = Layout(data=256, expert=8)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pretended(layout, rank) as mesh:
        model = build(LARGE, dtype)
        parallelise(model, mesh)
        local = [weight.to_local() for weight in model.parameters()]
    assert time.monotonic() - began < 60  # 1 s on a quiet machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    planned = state_parameters(LARGE, layout)
    assert planned == LARGE.total_parameters / 256
    held = sum(weight.numel() for weight in local)
    assert abs(held - planned) <= UNEVEN
    parts = LARGE.parameters
    wide = (parts["router"] + parts["norms"]) / 256
    size = torch.finfo(dtype).bits // 8
    planned_bytes = size * (planned - wide) + 4 * wide
    held_bytes = sum(weight.numel() * weight.element_size() for weight in local)
    assert abs(held_bytes - planned_bytes) <= 4 * UNEVEN


@pytest.mark.parametrize(
    "text", ["data=32 expert=8 tensor=8", "data=16 expert=8 tensor=2 pipeline=8"]
)
def test_the_shards_of_all_processes_are_the_whole_model(text):
    """Each process by itself: those with different layers, heads, experts and shards."""
    layout = Layout.parse(text)
    total = 0
    for pipeline in range(layout.pipeline):
        rank = pipeline * (layout.world // layout.pipeline)
        with pretended(layout, rank) as mesh:
            model = build(LARGE, torch.bfloat16)
            parallelise(model, mesh)
            for name, weight in model.named_parameters():
                split = 1
                for placement, size in zip(
                    weight.placements, weight.device_mesh.shape, strict=True
                ):
                    split *= size if placement.is_shard() else 1
                # The shard of rank 0 is a full one.
                share = weight.to_local().numel() * split / weight.numel()
                assert 1 <= share < 1.01 or weight.numel() < 1000, name
                tied_head = pipeline > 0 and "embed_tokens" in name
                total += 0 if tied_head else weight.numel()
    assert total == LARGE.total_parameters


SMALL = ModelConfig(
    vocab=96,
    hidden=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn=48,
    context=64,
    experts=4,
    shared_experts=1,
    cla_share=2,
    qk_norm=True,
    qkv_bias=True,
    tied=True,
    routing=Routing(mode="capacity-recycle", capacity_group=8),
)

# What a compiler with static shapes can lower, and what waits for no device. Every operation of a
# step must be here; before one is added, see that the sizes of its results follow from shapes.
# fmt: off
STATIC = {
    "_fused_rms_norm", "_fused_rms_norm_backward", "_safe_softmax",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward", "_softmax",
    "_softmax_backward_data", "_to_copy", "_unsafe_view", "add", "addmm", "arange",
    "bitwise_and", "bitwise_not", "bmm", "cat", "clamp", "clone", "cos", "cumsum", "detach",
    "div", "embedding", "embedding_dense_backward", "empty_like", "eq", "exp", "expand",
    "floor_divide", "full", "gather", "index", "index_fill", "index_select", "logsumexp", "lt",
    "masked_fill", "mean", "mm", "mul", "neg", "new_empty", "new_zeros", "ones", "permute",
    "pow", "remainder", "rsqrt", "rsub", "scalar_tensor", "scatter", "scatter_add", "select",
    "select_backward", "select_scatter", "silu", "silu_backward", "sin", "slice",
    "slice_scatter", "sort", "split", "squeeze", "sub", "sum", "t", "topk", "transpose", "tril",
    "unsqueeze", "view", "where", "zeros_like",
}
# fmt: on


DROP = replace(SMALL, top_k=2, routing=replace(SMALL.routing, mode="capacity-drop"))


# No accelerator takes the path that suits a CPU; tensors without a device's memory take theirs.
@pytest.mark.parametrize(
    ("config", "device"),
    [(SMALL, "cpu"), (SMALL, "meta"), (DROP, "meta")],
    ids=["recycle", "recycle-accelerator", "drop-accelerator"],
)
def test_a_training_step_is_one_graph_of_static_operations(config, device):
    operations: Counter[str] = Counter()

    def record(graph, _):
        for node in graph.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload):
                operations[node.target._opname] += 1
        return make_boxed_func(graph.forward)

    model = build(config)
    generator = torch.Generator().manual_seed(0)
    if device == "cpu":
        model.to_empty(device="cpu")
        init_weights(model, generator)

    def loss(ids, targets, keys):
        hidden, routes = model.hidden(ids, None, None, keys)
        logits = model.logits(hidden)
        chosen = logits.gather(-1, targets[..., None])[..., 0]
        return (logits.logsumexp(-1) - chosen).mean() + 0.01 * sum(
            balance_loss(layer) for layer in routes
        )

    ids = torch.randint(0, config.vocab, (2, 16), generator=generator)
    keys = draw_slot_keys(config, ids.numel(), generator)
    batch = [part.to(device) for part in (ids, ids.roll(-1, 1), keys)]
    backend = aot_autograd(fw_compiler=record, bw_compiler=record)
    compiled = torch.compile(loss, fullgraph=True, dynamic=False, backend=backend)
    compiled(*batch).backward()
    # Both passes were seen: a product forward is two backward.
    assert operations["embedding"] == operations["embedding_dense_backward"] == 1
    assert operations["mm"] + operations["bmm"] > 30
    assert operations.keys() <= STATIC, operations.keys() - STATIC
    if device == "cpu":
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        model.zero_grad()
        loss(*batch).backward()
        for name, weight in model.named_parameters():
            torch.testing.assert_close(gradients[name], weight.grad, msg=name)


def test_a_model_with_recycling_is_exported():
    model = build(SMALL)
    model.to_empty(device="cpu")
    init_weights(model, torch.Generator().manual_seed(0))
    ids = torch.arange(32).view(2, 16)
    arguments = (ids, None, None, draw_slot_keys(SMALL, 32, torch.Generator().manual_seed(0)))
    program = torch.export.export(model, arguments)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*arguments), model(*arguments))
    operations = {
        node.target._opname
        for node in program.run_decompositions({}).graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    }
    assert not operations & {"nonzero", "item", "_local_scalar_dense", "_unique2", "bincount"}
