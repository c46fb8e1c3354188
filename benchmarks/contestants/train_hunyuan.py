"""This project's training, on random tokens: the loop's own forward, loss and masters."""

from typing import Any

import torch
from protocol import run

import hunyuan
from hunyuan.model.config import ModelConfig, Rope, Routing
from hunyuan.model.transformer import build, init_weights
from hunyuan.train.batch import Batch
from hunyuan.train.losses import Forward, NextToken
from hunyuan.train.optimizer import Optimizer
from hunyuan.train.outside import keep_freed_memory
from hunyuan.train.recipe import DropoutSettings, LossSettings, OptimizerSettings


class Hunyuan:
    """bfloat16 weights with float32 masters, as `hunyuan train` has them."""

    def load(self, kind: str, threads: int, shape: dict[str, int]) -> dict[str, Any]:
        """Build a fresh model: ``dense``, or a routing mode with its capacity factor."""
        keep_freed_memory()
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        names = ("vocab", "hidden", "layers", "heads", "kv_heads", "head_dim")
        common = {name: shape[name] for name in names}
        rope = Rope(theta=10000.0, alpha=1000.0)
        rest = {"context": 2048, "tied": True, "qk_norm": True, "rope": rope}
        if kind == "dense":
            config = ModelConfig(**common, **rest, ffn=2 * shape["ffn"])
        else:
            mode, _, factor = kind.partition(" ")
            routing = Routing(
                mode=mode,
                capacity_factor=float(factor or 1),
                capacity_group=shape["rows"] * shape["tokens"],
            )
            experts = {"experts": 16, "shared_experts": 1, "routing": routing}
            config = ModelConfig(**common, **rest, **experts, ffn=shape["ffn"])
        model = build(config, torch.bfloat16).to_empty(device="cpu")
        init_weights(model)
        self._optimizer = Optimizer(model.train(), OptimizerSettings(learning_rate=1e-4), 1.0)
        self._forward = Forward(model, DropoutSettings(), torch.Generator())
        self._loss = NextToken(LossSettings(), 1)
        rows, tokens = shape["rows"], shape["tokens"]
        ids = torch.randint(shape["vocab"], (rows, tokens))
        self._batch = Batch(
            ids,
            torch.cat([ids[:, 1:], torch.full((rows, 1), -1)], 1),
            torch.arange(tokens).repeat(rows, 1),
            torch.zeros(rows, tokens, dtype=torch.int32),
        )
        return {
            "hunyuan": hunyuan.__version__,
            "torch": torch.__version__,
            "parameters": config.total_parameters,
            "flops_per_token": 3 * config.flops_per_token(tokens // 2),
        }

    def step(self) -> float:
        """Forward and backward."""
        parts = self._loss(self._forward, self._batch, 1 / self._batch.learned)
        parts.total.backward()
        for master in self._optimizer.masters:
            master.grad = None
        return float(parts.total)

    def update(self) -> None:
        """Forward, backward, and AdamW."""
        parts = self._loss(self._forward, self._batch, 1 / self._batch.learned)
        parts.total.backward()
        self._optimizer.step(1.0)


if __name__ == "__main__":
    run(Hunyuan())
