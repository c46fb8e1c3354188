"""The compiled kernels of training, as operations with gradients.

On a CPU the matrix products of a bfloat16 training step run near the machine's peak in torch; what
lies between them does not. Here it runs in the compiled library, on torch's own OpenMP threads:
`native_ops` for the model, `cross_entropy` for the loss. Everything equals its reference in
`hunyuan.model.ops` up to the rounding of bfloat16. Tensors on the CPU in bfloat16 only; without a
compiled library, or elsewhere, the references run.

Attention goes by blocks of queries, so that memory grows with T rather than T^2, skips what is
masked, and keeps the documents of a packed row apart.
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hunyuan.model.config import ModelConfig
from hunyuan.model.ops import Ops, Rotation
from hunyuan.native.library import Heads, Scores, Workers, library, unavailable

# Queries per block of attention: their scores stay in the processor's cache.
_QUERIES = 128

# Logits per block of the cross-entropy, likewise.
_LOGITS = 4 << 20

# Rows with a target are taken in multiples of this.
_ROWS = 128

# Partial sums of a gain's gradient; fixed, so that no result depends on the number of threads.
_PARTS = 16

_STEP = 16  # widths are multiples of this

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@cache
def _workers() -> Workers:
    """torch's own threads: the function that starts them, found in the runtime torch loaded."""
    for path in _loaded_libraries():
        if "gomp" in path.name or "iomp" in path.name or "libomp" in path.name:
            try:
                start = ctypes.CDLL(str(path)).GOMP_parallel
            except (OSError, AttributeError):
                continue
            return Workers(ctypes.cast(start, ctypes.c_void_p), torch.get_num_threads())
    return Workers(None, 1)


def _loaded_libraries() -> list[Path]:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # no Linux: one thread
        return []
    return sorted({Path(line.split(None, 5)[5]) for line in lines if line.count("/") > 1})


def usable(config: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether `native_ops` can compute a model on the CPU: bfloat16, widths multiples of 16."""
    widths = (config.hidden, config.ffn, config.head_dim // 2)
    whole = all(width % _STEP == 0 for width in widths)
    return dtype == torch.bfloat16 and whole and unavailable() is None


def native_ops(first_seen: Tensor, attend: Attend | None = None) -> Ops:
    """The model's operations in compiled form; only where `usable`.

    ``first_seen`` (B, T) int32: the first key that each query may see, where its document begins.
    ``attend`` replaces the compiled attention.
    """
    return Ops(
        rms_norm=_rms_norm,
        swiglu=_swiglu,
        rotate_unit=_rotate_unit,
        attend=attend or partial(_attend, first_seen),
    )


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights * cross-entropy of each row's target, without keeping the logits.

    ``hidden`` (N, D) and ``head`` (V, D) of one type; ``targets`` (N,) int64, negative where there
    is none; ``weights`` (N,) float32. The gradients are computed on the way forward, block by
    block; that of ``head`` is summed in float32.
    """
    loss: Tensor = _CrossEntropy.apply(hidden, head, targets, weights)  # type: ignore[no-untyped-call]
    return loss


def _to_gradients(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, V) -> weighted gradients of the cross-entropy, and the latter (N,) float32."""
    if logits.dtype == torch.bfloat16 and logits.device.type == "cpu" and unavailable() is None:
        losses = torch.empty(len(logits))
        _call("hy_train_cross_entropy", *logits.shape, targets, weights, logits, losses)
        return logits, losses
    at = targets.clamp(min=0)[:, None]
    used = (targets >= 0).float()
    logs = logits.float().log_softmax(-1)
    losses = -logs.gather(1, at)[:, 0] * used
    gradients = logs.exp_().scatter_add_(1, at, -torch.ones_like(at, dtype=torch.float32))
    return gradients.mul_((weights * used)[:, None]).to(logits.dtype), losses


def _call(name: str, *arguments: Any) -> None:
    pointers = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    getattr(library(), name)(_workers(), *pointers)


def _rounded_up(count: int, step: int) -> int:
    return -(-count // step) * step


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        # Rows without a target, often most of them in fine-tuning, cost nothing. What is left is
        # filled up with them to few different sizes: torch compiles a product for every new one.
        rows = max(1, _LOGITS // len(head))
        kept = (targets < 0).argsort(stable=True)
        kept = kept[: _rounded_up(int((targets >= 0).sum()), min(rows, _ROWS))]
        used, targets, weights = hidden[kept], targets[kept], weights[kept]
        gradients = torch.empty_like(used)
        head_gradient = torch.zeros(head.shape) if head.requires_grad else None
        loss = torch.zeros(())
        for start in range(0, len(used), rows):
            at = slice(start, start + rows)
            through, losses = _to_gradients(used[at] @ head.T, targets[at], weights[at])
            torch.mm(through, head, out=gradients[at])
            if head_gradient is not None:
                head_gradient += through.T @ used[at]
            loss += (losses * weights[at]).sum()
        ctx.save_for_backward(kept, gradients, head_gradient)
        ctx.shape = hidden.shape
        ctx.head_dtype = head.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        kept, gradients, head_gradient = ctx.saved_tensors
        whole = gradients.new_zeros(ctx.shape)
        whole[kept] = gradients * grad.to(gradients.dtype)
        if head_gradient is not None:
            head_gradient = head_gradient.mul_(grad).to(ctx.head_dtype)
        return whole, head_gradient, None, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        width = x.shape[-1]
        count = x.numel() // width
        scales = torch.empty(count)
        _call("hy_train_rms_norm", count, width, x, gain, eps, out, scales)
        ctx.save_for_backward(x, gain, scales)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, scales = ctx.saved_tensors
        dx = torch.empty_like(x)
        width = x.shape[-1]
        gains = torch.zeros(_PARTS, width)
        _call(
            "hy_train_rms_norm_backward",
            len(scales),
            width,
            *(x, gain, scales, grad.contiguous(), dx),
            *(_PARTS, gains),
        )
        return dx, gains.sum(0), None


def _rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    out: Tensor = _RMSNorm.apply(x, gain, eps)  # type: ignore[no-untyped-call]
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        _call("hy_train_swiglu", gate.numel(), gate, up, out)
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        _call("hy_train_swiglu_backward", gate.numel(), gate, up, grad.contiguous(), dgate, dup)
        return dgate, dup


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    out: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


class _RotateUnit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, eps: float | None, gain: Tensor | None
    ) -> Tensor:
        x, cosine, sine = x.contiguous(), cosine.contiguous(), sine.contiguous()
        *batch, heads, width = x.shape
        tokens = math.prod(batch)
        shape = Heads(
            tokens, heads, width // 2, cosine.numel() // (width // 2), -1 if eps is None else eps
        )
        out = torch.empty_like(x)
        scales = torch.empty(tokens * heads)
        _call("hy_train_rotate_unit", shape, x, cosine, sine, gain, out, scales)
        ctx.save_for_backward(x, cosine, sine, gain, scales)
        ctx.shape = shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, Tensor | None]:
        x, cosine, sine, gain, scales = ctx.saved_tensors
        dx = torch.empty_like(x)
        gains = torch.zeros(_PARTS, x.shape[-1])
        _call(
            "hy_train_rotate_unit_backward",
            ctx.shape,
            *(x, cosine, sine, gain, scales, grad.contiguous(), dx),
            *(_PARTS, gains),
        )
        return dx, None, None, None, None if gain is None else gains.sum(0)


def _rotate_unit(x: Tensor, rotation: Rotation, eps: float | None, gain: Tensor | None) -> Tensor:
    out: Tensor = _RotateUnit.apply(x, *rotation, eps, gain)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """Scores of one key/value head: (B * K, query heads per kv head * queries, keys)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, first_seen: Tensor) -> Tensor:
        batch, tokens, heads, width = q.shape
        kv_heads = k.shape[2]
        grouped = _by_kv_head(q, kv_heads)  # (B * K, H / K, T, C)
        keys, values = _by_head(k), _by_head(v)  # (B * K, T, C)
        out = torch.empty_like(grouped)
        log_sums = []
        for block in _blocks(first_seen, kv_heads, heads // kv_heads, width):
            scores = block.queries_of(grouped) @ block.keys_of(keys).mT
            log_sum = torch.empty(scores.shape[:2])
            _call("hy_train_softmax", block.shape, scores, log_sum)
            block.put(out, scores @ block.keys_of(values))
            log_sums.append(log_sum)
        ctx.save_for_backward(grouped, keys, values, out, first_seen, *log_sums)
        ctx.sizes = (batch, tokens, heads, kv_heads, width)
        return _by_token(out, batch)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grouped, keys, values, out, first_seen, *log_sums = ctx.saved_tensors
        batch, _, heads, kv_heads, width = ctx.sizes
        grad = _by_kv_head(grad, kv_heads)
        delta = (grad.float() * out.float()).sum(-1)  # (B * K, H / K, T)
        dq = torch.empty_like(grouped)
        dk, dv = torch.zeros(keys.shape), torch.zeros(values.shape)
        blocks = _blocks(first_seen, kv_heads, heads // kv_heads, width)
        for block, log_sum in zip(blocks, log_sums, strict=True):
            q_block, grad_block = block.queries_of(grouped), block.queries_of(grad)
            k_block = block.keys_of(keys)
            scores = q_block @ k_block.mT
            dscores = grad_block @ block.keys_of(values).mT
            _call(
                "hy_train_softmax_backward",
                *(block.shape, scores, dscores, log_sum, block.queries_of(delta)),
            )
            block.keys_of(dv).add_(scores.mT @ grad_block)
            block.keys_of(dk).add_(dscores.mT @ q_block)
            block.put(dq, dscores @ k_block)
        return (
            _by_token(dq, batch),
            _by_token(dk[:, None].to(keys.dtype), batch),
            _by_token(dv[:, None].to(values.dtype), batch),
            None,
        )


def _by_kv_head(x: Tensor, kv_heads: int) -> Tensor:
    """(B, T, H, C) -> (B * K, H / K, T, C), contiguous."""
    batch, tokens, heads, width = x.shape
    grouped = x.view(batch, tokens, kv_heads, heads // kv_heads, width)
    return grouped.permute(0, 2, 3, 1, 4).flatten(0, 1).contiguous()


def _by_head(x: Tensor) -> Tensor:
    """(B, T, K, C) -> (B * K, T, C), contiguous."""
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def _by_token(x: Tensor, batch: int) -> Tensor:
    """(B * K, H / K, T, C) -> (B, T, H, C)."""
    rows, shared, tokens, width = x.shape
    return x.view(batch, rows // batch, shared, tokens, width).permute(0, 3, 1, 2, 4).flatten(2, 3)


class _Block:
    """Some queries and the keys they may see."""

    def __init__(self, shape: Scores, queries: slice, keys: slice) -> None:
        self.shape = shape
        self._queries, self._keys = queries, keys

    def queries_of(self, x: Tensor) -> Tensor:
        """(B * K, H / K, T, ...) -> (B * K, H / K * queries, ...)."""
        return x[:, :, self._queries].flatten(1, 2).contiguous()

    def keys_of(self, x: Tensor) -> Tensor:
        """(B * K, T, C) -> (B * K, keys, C), a view."""
        return x[:, self._keys]

    def put(self, x: Tensor, rows: Tensor) -> None:
        """The reverse of `queries_of`."""
        place = x[:, :, self._queries]
        place.copy_(rows.view(place.shape))


def _blocks(first_seen: Tensor, kv_heads: int, heads_per_kv: int, width: int) -> list[_Block]:
    """Blocks of queries of all rows, each with the keys that any of them sees."""
    batch, tokens = first_seen.shape
    found = []
    for start in range(0, tokens, _QUERIES):
        end = min(start + _QUERIES, tokens)
        # Whole blocks of keys, so that products come in few sizes.
        first_key = int(first_seen[:, start:end].min()) // _QUERIES * _QUERIES
        shape = Scores(
            batch * kv_heads,
            heads_per_kv * (end - start),
            end - first_key,
            kv_heads,
            tokens,
            end - start,
            start,
            first_key,
            first_seen.data_ptr(),
            1 / math.sqrt(width),
        )
        found.append(_Block(shape, slice(start, end), slice(first_key, end)))
    return found


def _attend(first_seen: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = _Attention.apply(q, k, v, first_seen)  # type: ignore[no-untyped-call]
    return out
