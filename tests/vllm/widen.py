"""The same model with wider heads and a wider residual stream, for kernels that want them.

The golden checkpoints are 80 wide with heads of 8; vLLM's kernels for a CPU know heads of 32 and
multiples of 32. New channels are 0 everywhere, so they change sums nowhere; what divides by a
width is made good elsewhere:

- A norm over the residual stream divides by the root of a mean over more channels: its gain is
  scaled, and its epsilon too, to keep its share of that mean.
- The norms of queries and keys have the same epsilon and a width of their own: their input is
  scaled to the epsilon, their gain to the width.
- Scores are divided by the root of a wider head: the query's gain is scaled.
- A wider head rotates by more frequencies; those of the old one are among them, at distances.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def widen(folder: Path, target: Path, *, hidden: int = 96, head: int = 32) -> None:
    """Write a checkpoint that computes what the one in ``folder`` does, to rounding."""
    old = json.loads((folder / "config.json").read_text())
    config = _config(old, hidden, head)
    tensors = load_file(folder / "model.safetensors")
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps(config))
    wide = {name: _tensor(name, value, old, hidden, head) for name, value in tensors.items()}
    save_file(wide, target / "model.safetensors")


def _config(old: dict[str, Any], hidden: int, head: int) -> dict[str, Any]:
    before = _head(old)
    theta = old["rope_theta"]
    if old.get("rope_scaling"):  # the base has to stay; its exponent depends on the head
        exponent = before / (before - 2) - head / (head - 2)
        theta *= old["rope_scaling"]["alpha"] ** exponent
    return {
        **old,
        "hidden_size": hidden,
        "head_dim": head,
        "rope_theta": theta,
        "rms_norm_eps": old["rms_norm_eps"] * old["hidden_size"] / hidden,
    }


def _head(config: dict[str, Any]) -> int:
    found: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return found


def _tensor(name: str, x: Tensor, old: dict[str, Any], hidden: int, head: int) -> Tensor:
    grown, wider = hidden / old["hidden_size"], head / _head(old)
    module = name.removesuffix(".weight").rpartition(".")[2]
    if module == "query_layernorm":  # sqrt(1 / wider), and sqrt(wider) for the scores
        return _heads(x, _head(old), head)
    if module == "key_layernorm":
        return _heads(x, _head(old), head) / math.sqrt(wider)
    if module in ("q_proj", "k_proj"):
        return _columns(_heads(x, _head(old), head), hidden) * math.sqrt(wider / grown)
    if module == "v_proj":
        return _columns(_heads(x, _head(old), head), hidden)
    if module == "o_proj":
        return _rows(_heads(x.T, _head(old), head).T, hidden)
    if module == "down_proj":
        return _rows(x, hidden)
    if x.ndim == 1:
        return _columns(x, hidden) / math.sqrt(grown)
    return _columns(x, hidden)


def _heads(x: Tensor, old: int, new: int) -> Tensor:
    """Rows of heads of ``old`` channels, each pair of channels moved to its frequency's place."""
    halves = x.unflatten(0, (-1, 2, old // 2))
    wide = halves.new_zeros(halves.shape[0], 2, old // 2, new // old, *x.shape[1:])
    wide[:, :, :, 0] = halves
    return wide.flatten(0, 3).contiguous()


def _columns(x: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[-1]))


def _rows(x: Tensor, width: int) -> Tensor:
    return _columns(x.T, width).T.contiguous()
