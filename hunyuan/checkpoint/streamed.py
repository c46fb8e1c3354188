"""A checkpoint that is never loaded whole: one block, one expert at a time.

The decoder's own forward runs; only where its parts come from changes. Memory is one block without
its experts, plus one expert, plus a slice of the embedding. Slow - every weight is read from disk
for one batch of tokens - and meant for verifying a conversion of a model of any size, and for
seeing what its matrices are multiplied by (`hunyuan.checkpoint.calibrate`).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.checkpoint.checkpoint import Checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.model.config import Routing
from hunyuan.model.layers import RMSNorm
from hunyuan.model.moe import MoE
from hunyuan.model.ops import Ops
from hunyuan.model.transformer import Block, Decoder, build

Listener = Callable[[str, Tensor], None]
"""Told, for every matrix but embedding and head, its leaf and its input (tokens..., columns)."""

_SLICE_ROWS = 4096


def streamed_hidden(
    checkpoint: Checkpoint, input_ids: Tensor, listener: Listener | None = None
) -> Tensor:
    """Ids (B, T) -> normed hidden states (B, T, D) float32, computed in float32."""
    # It is about weights: capacity, if the model was trained with one, plays no part.
    config = replace(checkpoint.config, routing=Routing())
    decoder: Decoder = build(config).model
    decoder.embed_tokens = _Embedding(checkpoint)  # type: ignore[assignment]
    decoder.layers = _Blocks(checkpoint, decoder.layers, listener)  # type: ignore[assignment]
    decoder.norm = RMSNorm(config.hidden, config.norm_eps)
    with torch.inference_mode():
        decoder.norm.weight.copy_(checkpoint.read("model.norm.weight"))
        hidden: Tensor = decoder(input_ids)[0]
    return hidden


def streamed_logits(checkpoint: Checkpoint, input_ids: Tensor) -> Tensor:
    """Ids (1, T) -> logits (1, T, V) float32, computed in float32."""
    config = checkpoint.config
    hidden = streamed_hidden(checkpoint, input_ids)
    head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
    with torch.inference_mode():
        parts = [
            F.linear(hidden, checkpoint.read(head, rows=rows)) for rows in _slices(config.vocab)
        ]
        return torch.cat(parts, dim=-1)


def _slices(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _SLICE_ROWS):
        yield slice(start, min(start + _SLICE_ROWS, rows))


class _Embedding(nn.Module):
    """Reads the slices that hold the tokens at hand, and keeps those rows."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def forward(self, ids: Tensor) -> Tensor:
        config = self._checkpoint.config
        out = torch.empty(*ids.shape, config.hidden)
        for rows in _slices(config.vocab):
            inside = (ids >= rows.start) & (ids < rows.stop)
            if bool(inside.any()):
                part = self._checkpoint.read("model.embed_tokens.weight", rows=rows)
                out[inside] = part[ids[inside] - rows.start]
        return out


class _Blocks(nn.Module):
    """Yields each block filled from the checkpoint, and lets go of it before the next."""

    def __init__(
        self, checkpoint: Checkpoint, blocks: nn.ModuleList, listener: Listener | None
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._blocks = blocks
        self._listener = listener

    def __iter__(self) -> Iterator[Block]:
        for i, empty in enumerate(self._blocks):
            assert isinstance(empty, Block)
            prefix = f"model.layers.{i}."
            if isinstance(empty.mlp, MoE):
                experts = _Experts(self._checkpoint, f"{prefix}mlp.experts.", self._listener)
                empty.mlp.experts = experts  # type: ignore[assignment]
            names = [
                leaf
                for leaf in leaves(self._checkpoint.config)
                if leaf.startswith(prefix) and expert_leaf(leaf) is None
            ]
            state = {leaf.removeprefix(prefix): self._checkpoint.read(leaf) for leaf in names}
            empty.load_state_dict(state, assign=True)
            del state
            if self._listener is not None:
                for name, module in empty.named_modules():
                    if isinstance(module, nn.Linear):
                        hook = partial(self._hear, f"{prefix}{name}.weight")
                        module.register_forward_pre_hook(hook)
            yield empty
            empty.to("meta")

    def _hear(self, leaf: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert self._listener is not None
        self._listener(leaf, inputs[0])


class _Experts(nn.Module):
    """An expert bank that reads an expert when it has tokens, and drops it."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, listener: Listener | None) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._listener = listener

    def forward(self, x_sorted: Tensor, counts: Tensor, ops: Ops) -> Tensor:
        outputs = []
        for expert, x in enumerate(torch.split(x_sorted, counts.tolist())):
            if len(x):
                gate, up = (self._project(x, expert, name) for name in ("gate_proj", "up_proj"))
                inner = ops.swiglu(gate, up)
                outputs.append(self._project(inner, expert, "down_proj"))
        return torch.cat(outputs)

    def _project(self, x: Tensor, expert: int, projection: str) -> Tensor:
        leaf = f"{self._prefix}{expert}.{projection}.weight"
        if self._listener is not None:
            self._listener(leaf, x)
        return F.linear(x, self._checkpoint.read(leaf))
