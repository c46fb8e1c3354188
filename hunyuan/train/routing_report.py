"""What the routers and experts of one step did, layer by layer, as figures to log.

A load is relative to an even share: 1 is balanced, 0 a dead expert, E all tokens on one. Loads are
those of the gate's choices, before any capacity.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hunyuan.model.routing import Routes, balance_loss
from hunyuan.model.transformer import Transformer


def layer_record(layer: int, routes: Routes, similarity: float | None) -> dict[str, Any]:
    """One layer's figures; the names are documented in `hunyuan.report.metrics`."""
    p = routes.probabilities.detach()
    experts = p.shape[-1]
    load = routes.choice.flatten().bincount(minlength=experts).float()
    load = load * experts / load.sum()
    entropy = -(p * p.clamp(min=1e-20).log()).sum(-1).mean() / math.log(max(experts, 2))
    share = load / experts
    spread = torch.exp(-(share * share.clamp(min=1e-20).log()).sum()) / experts
    recycled = routes.recycled
    return {
        "layer": layer,
        "load": [round(float(x), 4) for x in load],
        "max_violation": float(load.max() - 1),
        "dead": int((load == 0).sum()),
        "router_entropy": float(entropy),
        "load_entropy": float(spread),
        "top1_weight": float(p.max(-1).values.mean()),
        "recycled": float(recycled.float().mean()),
        "dropped": float(routes.dropped.float().mean()),
        "recycled_weight": float(routes.weight.detach()[recycled].mean())
        if bool(recycled.any())
        else None,
        "balance_loss": float(balance_loss(routes).detach()),
        "similarity": similarity,
    }


def expert_similarity(down_proj: Tensor) -> float:
    """Mean cosine between the output matrices (E, D, F) of different experts; 1: all alike."""
    flat = down_proj.detach().flatten(1)
    inner = (flat @ flat.T).float()
    norms = inner.diagonal().clamp(min=1e-20).sqrt()
    cosines = inner / norms[:, None] / norms
    experts = len(cosines)
    return float((cosines.sum() - cosines.diagonal().sum()) / (experts * (experts - 1)))


def layer_records(model: Transformer, routes: Sequence[Routes]) -> list[dict[str, Any]]:
    """All MoE layers."""
    similarities = [
        expert_similarity(weight)
        for name, weight in model.named_parameters()
        if name.endswith(".mlp.experts.down_proj")
    ]
    found: list[float | None] = [*similarities]
    # With adapters on them, experts have no weights of their own name.
    found += [None] * (len(routes) - len(found))
    return [layer_record(i, r, s) for i, (r, s) in enumerate(zip(routes, found, strict=True))]
