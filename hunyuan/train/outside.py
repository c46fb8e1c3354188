"""What training puts on the model from outside; its own files know nothing of it.

All of it is in effect only while ``model.training`` is true.
"""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hunyuan.model.config import ModelConfig, Routing
from hunyuan.model.moe import MoE
from hunyuan.model.transformer import Block, Transformer


def add_hidden_dropout(model: Transformer, rate: float) -> None:
    """Dropout of what every attention and MLP adds to the residual stream (paper, section 3.1)."""
    if not rate:
        return

    def after_attention(module: nn.Module, _: Any, output: Any) -> Any:
        return (F.dropout(output[0], rate, module.training), *output[1:])

    def after_mlp(module: nn.Module, _: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # a MoE layer's routes come along
            return (F.dropout(output[0], rate, module.training), *output[1:])
        return F.dropout(output, rate, module.training)

    for block in model.model.layers:
        assert isinstance(block, Block)
        block.self_attn.register_forward_hook(after_attention)
        block.mlp.register_forward_hook(after_mlp)


def recompute_blocks(model: Transformer) -> None:
    """Keep only each block's inputs; the backward pass computes the rest again, bit for bit.

    Recycle's random keys are an input and dropout's generator is restored, so both replay.
    """
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.forward = _recomputed(block)  # type: ignore[method-assign]


def _recomputed(block: Block) -> Any:
    plain = block.forward

    def forward(*arguments: Any) -> Any:
        if block.training:
            return checkpoint(plain, *arguments, use_reentrant=False)
        return plain(*arguments)

    return forward


def dropless_twin(model: Transformer) -> Transformer:
    """The same weights, in the same memory, routed as evaluation and serving do.

    Made before anything else of this module is put on ``model``.
    """
    shared = {id(p): p for p in (*model.parameters(), *model.buffers())}
    twin = deepcopy(model, shared)
    layers = [module for module in twin.modules() if isinstance(module, MoE)]
    _configure(twin, layers, _dropless(model.config))
    return twin.eval()


@contextmanager
def dropless(model: Transformer) -> Iterator[None]:
    """``model`` routes as evaluation and serving do, for as long as the block lasts."""
    layers = [module for module in model.modules() if isinstance(module, MoE)]
    before = model.config
    _configure(model, layers, _dropless(before))
    try:
        yield
    finally:
        _configure(model, layers, before)


def _dropless(config: ModelConfig) -> ModelConfig:
    """The balance loss counts within the same groups in every mode."""
    return replace(config, routing=Routing(capacity_group=config.routing.capacity_group))


def _configure(model: Transformer, layers: Iterable[MoE], config: ModelConfig) -> None:
    model.config = model.model.config = config
    for layer in layers:
        layer.config = config


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step instead of returning it.

    A step frees and takes gigabytes; every page that comes back from the system is cleared by it,
    which took a fifth of the step. Only where the library is GNU's.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, map_threshold, map_limit = -1, -3, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(map_threshold, 2**31 - 1)
    mallopt(map_limit, 0)
