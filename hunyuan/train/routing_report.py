"""What the routers and experts of one step did, layer by layer, as figures to log.

A load is relative to an even share: 1 is balanced, 0 a dead expert, E all tokens on one. Loads are
those of the gate's choices, before any capacity.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hunyuan.model.routing import Routes
from hunyuan.model.transformer import Transformer
from hunyuan.train.ranks import ALONE, Ranks


def layer_record(layer: int, routes: Routes, similarity: float | None) -> dict[str, Any]:
    """One layer's figures; the names are documented in `hunyuan.report.metrics`."""
    return _record(layer, _sums(routes), similarity)


def _record(layer: int, sums: Tensor, similarity: float | None) -> dict[str, Any]:
    experts = (len(sums) - _REST) // 2
    counts, probabilities, rest = sums[:experts], sums[experts : 2 * experts], sums[2 * experts :]
    entropy, top, recycled, dropped, recycled_weight, tokens = (float(x) for x in rest)
    choices = float(counts.sum())
    share = counts / choices
    load = share * experts
    spread = torch.exp(-(share * share.clamp(min=1e-20).log()).sum()) / experts
    return {
        "layer": layer,
        "load": [round(float(x), 4) for x in load],
        "max_violation": float(load.max() - 1),
        "dead": int((load == 0).sum()),
        "router_entropy": entropy / tokens / math.log(max(experts, 2)),
        "load_entropy": float(spread),
        "top1_weight": top / tokens,
        "recycled": recycled / choices,
        "dropped": dropped / choices,
        "recycled_weight": recycled_weight / recycled if recycled else None,
        "balance_loss": float(experts * (probabilities / tokens * share).sum()),
        "similarity": similarity,
    }


_REST = 6  # sums that are not one per expert


def _sums(routes: Routes) -> Tensor:
    """What all figures are made of and may be added up over processes: (2 E + 6,) float64."""
    p = routes.probabilities.detach().double()
    experts = p.shape[-1]
    rest = [
        -(p * p.clamp(min=1e-20).log()).sum(),
        p.max(-1).values.sum(),
        routes.recycled.double().sum(),
        routes.dropped.double().sum(),
        (routes.weight.detach().double() * routes.recycled).sum(),
        p.new_tensor(len(p)),
    ]
    counts = routes.choice.flatten().bincount(minlength=experts).double()
    return torch.cat([counts, p.sum(0), torch.stack(rest)])


def expert_similarity(down_proj: Tensor) -> float:
    """Mean cosine between the output matrices (E, D, F) of different experts; 1: all alike."""
    flat = down_proj.detach().flatten(1)
    inner = (flat @ flat.T).float()
    norms = inner.diagonal().clamp(min=1e-20).sqrt()
    cosines = inner / norms[:, None] / norms
    experts = len(cosines)
    return float((cosines.sum() - cosines.diagonal().sum()) / (experts * (experts - 1)))


def layer_records(
    model: Transformer, routes: Sequence[Routes], ranks: Ranks = ALONE
) -> list[dict[str, Any]]:
    """All MoE layers. Of experts that many processes hold the similarity is not computed."""
    found: list[float | None] = []
    if ranks.count == 1:
        found += [
            expert_similarity(weight)
            for name, weight in model.named_parameters()
            if name.endswith(".mlp.experts.down_proj")
        ]
    own = torch.stack([_sums(one) for one in routes])
    sums = own.new_zeros(model.config.layers, own.shape[1])
    place = ranks.place.pipeline
    first = ranks.layout.stage(model.config, place).start
    sums[first : first + len(own)] = own
    # With adapters on them, experts have no weights of their own name.
    found += [None] * (len(sums) - len(found))
    summed = ranks.sum(sums)
    return [_record(i, r, s) for i, (r, s) in enumerate(zip(summed, found, strict=True))]
