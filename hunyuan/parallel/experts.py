"""Experts divided over ranks: tokens travel to them and their results travel back.

With capacity every expert has equally many slots on every rank, so the exchange is one all-to-all
of equal parts: shapes are static, nothing is counted, no process waits for its device, and the step
compiles into one graph. Dropless groups are ragged; their sizes are exchanged first.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from hunyuan.model.config import ModelConfig
from hunyuan.model.moe import ExpertBank, MoE
from hunyuan.model.ops import Ops
from hunyuan.model.transformer import Block, Transformer
from hunyuan.parallel import unstable
from hunyuan.parallel.mesh import Mesh
from hunyuan.parallel.tensor import enter, leave


class ParallelBank(ExpertBank):
    """An `ExpertBank` that holds E / expert of the experts, and F / tensor of each one's channels.

    Its parameters are DTensors over the 2-D mesh of expert and tensor, without memory at first.
    """

    def __init__(self, config: ModelConfig, mesh: Mesh, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self._mesh = mesh
        layout = mesh.layout
        e, d, f = config.experts // layout.expert, config.hidden, config.ffn // layout.tensor
        parts = {
            "gate_proj": ((e, f, d), 1),
            "up_proj": ((e, f, d), 1),
            "down_proj": ((e, d, f), 2),
        }
        for name, (shape, axis) in parts.items():
            local = torch.empty(shape, dtype=dtype, device="meta")
            placements = [Shard(0), Shard(axis)]
            weight = DTensor.from_local(local, mesh.expert_tensor, placements, run_check=False)
            setattr(self, name, nn.Parameter(weight))

    def forward(self, x_sorted: Tensor, counts: Tensor, ops: Ops) -> Tensor:
        """As `ExpertBank.forward`: rows in the order of all experts, ``counts`` (E,).

        Waits for the device twice, to learn how many rows come and go.
        """
        ranks = self._mesh.layout.expert
        group = self._mesh.expert.get_group()
        arriving = unstable.all_to_all(counts, group).view(ranks, -1)  # (rank, its rows per expert)
        sent = counts.view(ranks, -1).sum(1).tolist()
        received = arriving.sum(1).tolist()
        x = unstable.all_to_all(self._enter(x_sorted), group, received, sent)
        expert = torch.arange(arriving.numel(), device=x.device) % arriving.shape[1]
        order = expert.repeat_interleave(arriving.flatten()).argsort(stable=True)
        y = self._run(x[order], arriving.sum(0).tolist(), ops)
        y = torch.empty_like(y).index_copy(0, order, y)
        return self._leave(unstable.all_to_all(y, group, sent, received))

    def forward_slots(self, x_slots: Tensor, ops: Ops) -> Tensor:
        """As `ExpertBank.forward_slots`: (E, capacity, D) of this rank's tokens, static shapes."""
        ranks = self._mesh.layout.expert
        group = self._mesh.expert.get_group()
        experts, room, width = x_slots.shape
        x = unstable.all_to_all(self._enter(x_slots), group)
        x = x.view(ranks, experts // ranks, room, width).transpose(0, 1).flatten(1, 2)
        y = super().forward_slots(x, ops)
        y = y.view(experts // ranks, ranks, room, width).transpose(0, 1).flatten(0, 1)
        return self._leave(unstable.all_to_all(y, group))

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        gate, up, down = super()._weights()
        return _local(gate), _local(up), _local(down)

    def _enter(self, x: Tensor) -> Tensor:
        tensor = self._mesh.tensor
        return enter(x, tensor.get_group()) if tensor.size() > 1 else x

    def _leave(self, x: Tensor) -> Tensor:
        tensor = self._mesh.tensor
        return leave(x, tensor.get_group()) if tensor.size() > 1 else x


def _local(weight: Tensor) -> Tensor:
    assert isinstance(weight, DTensor)
    return weight.to_local()


def divide(model: Transformer, mesh: Mesh) -> None:
    """Give every MoE layer a `ParallelBank`."""
    for block in model.model.layers:
        assert isinstance(block, Block)
        if isinstance(block.mlp, MoE):
            block.mlp.experts = ParallelBank(model.config, mesh, model.dtype)
