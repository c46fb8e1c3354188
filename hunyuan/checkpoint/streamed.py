"""Logits of a checkpoint that is never loaded whole: one block, one expert at a time.

The decoder's own forward runs; only where its parts come from changes. Memory is one block without
its experts, plus one expert, plus a slice of the embedding. Slow - every weight is read from disk
for one short sequence - and meant for verifying a conversion of a model of any size.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.checkpoint.checkpoint import Checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.model.config import Routing
from hunyuan.model.layers import RMSNorm
from hunyuan.model.moe import MoE
from hunyuan.model.transformer import Block, Decoder, build

_HEAD_ROWS = 4096


def streamed_logits(checkpoint: Checkpoint, input_ids: Tensor) -> Tensor:
    """Ids (1, T) -> logits (1, T, V) float32, computed in float32."""
    # The comparison is of weights: capacity, if the model was trained with one, plays no part.
    config = replace(checkpoint.config, routing=Routing())
    decoder: Decoder = build(config).model
    decoder.embed_tokens = _Embedding(checkpoint)  # type: ignore[assignment]
    decoder.layers = _Blocks(checkpoint, decoder.layers)  # type: ignore[assignment]
    decoder.norm = RMSNorm(config.hidden, config.norm_eps)
    with torch.inference_mode():
        decoder.norm.weight.copy_(checkpoint.read("model.norm.weight"))
        hidden, _ = decoder(input_ids)
        head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        parts = []
        for start in range(0, config.vocab, _HEAD_ROWS):
            rows = slice(start, min(start + _HEAD_ROWS, config.vocab))
            parts.append(F.linear(hidden, checkpoint.read(head, rows=rows)))
        return torch.cat(parts, dim=-1)


class _Embedding(nn.Module):
    """Reads only the rows of the tokens at hand."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def forward(self, ids: Tensor) -> Tensor:
        rows = [
            self._checkpoint.read("model.embed_tokens.weight", rows=slice(i, i + 1))
            for i in ids.flatten().tolist()
        ]
        return torch.cat(rows).view(*ids.shape, -1)


class _Blocks(nn.Module):
    """Yields each block filled from the checkpoint, and lets go of it before the next."""

    def __init__(self, checkpoint: Checkpoint, blocks: nn.ModuleList) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._blocks = blocks

    def __iter__(self) -> Iterator[Block]:
        for i, empty in enumerate(self._blocks):
            assert isinstance(empty, Block)
            prefix = f"model.layers.{i}."
            if isinstance(empty.mlp, MoE):
                empty.mlp.experts = _Experts(self._checkpoint, i)  # type: ignore[assignment]
            names = [
                leaf
                for leaf in leaves(self._checkpoint.config)
                if leaf.startswith(prefix) and expert_leaf(leaf) is None
            ]
            state = {leaf.removeprefix(prefix): self._checkpoint.read(leaf) for leaf in names}
            empty.load_state_dict(state, assign=True)
            del state
            yield empty
            empty.to("meta")


class _Experts(nn.Module):
    """An expert bank that reads an expert when it has tokens, and drops it."""

    def __init__(self, checkpoint: Checkpoint, layer: int) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._prefix = f"model.layers.{layer}.mlp.experts."

    def forward(self, x_sorted: Tensor, counts: Tensor) -> Tensor:
        outputs = []
        for expert, x in enumerate(torch.split(x_sorted, counts.tolist())):
            if len(x):
                inner = F.silu(self._project(x, expert, "gate_proj"))
                inner = inner * self._project(x, expert, "up_proj")
                outputs.append(self._project(inner, expert, "down_proj"))
        return torch.cat(outputs)

    def _project(self, x: Tensor, expert: int, projection: str) -> Tensor:
        return F.linear(x, self._checkpoint.read(f"{self._prefix}{expert}.{projection}.weight"))
