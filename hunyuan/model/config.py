"""What varies between models, and what a model of that shape costs.

A `ModelConfig` is frozen and validated. It counts its own parameters, FLOPs and cache bytes, so
that plans, memory checks and reports all quote the same numbers. No torch here.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from importlib.resources import files
from typing import Any, Literal, get_args

from hunyuan.errors import UsageError

RoutingMode = Literal["dropless", "capacity-drop", "capacity-recycle"]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How tokens find routed experts (specification, section 8.5)."""

    mode: RoutingMode = "dropless"
    """``dropless``: every token reaches its own experts. ``capacity-drop``: a full expert leaves
    the token with the shared expert alone. ``capacity-recycle``: overflow goes to random free
    slots of other experts, the paper's random compensation."""

    capacity_factor: float = 1.0
    """Slots per expert as a multiple of an even share; read by the two capacity modes."""

    capacity_group: int = 4096
    """Tokens that compete for slots together, so that neither micro-batch nor parallel degree
    changes the model; read by the two capacity modes."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(RoutingMode):
            raise UsageError(
                f"routing mode {self.mode!r} is unknown; use {', '.join(get_args(RoutingMode))}",
                f"未知的路由模式 {self.mode!r}；请使用 {'、'.join(get_args(RoutingMode))}",
            )
        _require_positive("capacity_factor", self.capacity_factor)
        _require_positive("capacity_group", self.capacity_group)
        assert self.exact_factor  # known from here on, so that a traced step finds plain numbers

    @cached_property
    def exact_factor(self) -> tuple[int, int]:
        """``capacity_factor`` as written, a numerator and a denominator.

        In floating point 1.1 * 100 / 10 is a little above 11, and would round up to 12.
        """
        return Fraction(str(self.capacity_factor)).as_integer_ratio()


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding: base frequency and the scalings whose formulas are known exactly."""

    theta: float = 10_000.0
    """Base of the inverse frequencies."""

    alpha: float | None = None
    """NTK scaling of Hunyuan: base = theta * alpha ** (C / (C - 2)), whatever the length."""

    linear_factor: float | None = None
    """Position interpolation: every frequency divided by this factor."""

    llama3: "Llama3Scaling | None" = None
    """Frequency-dependent scaling of Llama 3.1."""

    def __post_init__(self) -> None:
        _require_positive("rope.theta", self.theta)
        for name in ("alpha", "linear_factor"):
            if getattr(self, name) is not None:
                _require_positive(f"rope.{name}", getattr(self, name))
        if sum(x is not None for x in (self.alpha, self.linear_factor, self.llama3)) > 1:
            raise UsageError(
                "rope: alpha, linear_factor and llama3 exclude each other; set one",
                "rope：alpha、linear_factor 与 llama3 互斥；只能设置一个",
            )

    def base(self, head_dim: int) -> float:
        """Effective base for heads of width ``head_dim`` (specification, section 3.2)."""
        if self.alpha is None:
            return self.theta
        return float(self.theta * self.alpha ** (head_dim / (head_dim - 2)))


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """The four numbers of Llama 3.1's ``rope_type: llama3``."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_context"):
            _require_positive(f"rope.llama3.{name}", getattr(self, name))
        if self.high_freq_factor <= self.low_freq_factor:
            raise UsageError(
                f"rope.llama3: high_freq_factor={self.high_freq_factor} must exceed "
                f"low_freq_factor={self.low_freq_factor}",
                f"rope.llama3：high_freq_factor={self.high_freq_factor} 必须大于 "
                f"low_freq_factor={self.low_freq_factor}",
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one decoder. Widths and counts are plain integers in full words."""

    vocab: int
    """Rows of the embedding, padding rows included."""

    hidden: int
    """Width of the residual stream."""

    layers: int
    """Decoder blocks."""

    heads: int
    """Query heads per layer."""

    kv_heads: int
    """Key/value heads per layer; each serves heads / kv_heads query heads."""

    head_dim: int
    """Width of one head; need not be hidden / heads."""

    ffn: int
    """Inner width of the dense MLP, of each routed expert and of each shared expert."""

    context: int
    """Longest sequence in tokens the model was made for; a longer one is refused."""

    experts: int = 0
    """Routed experts per layer; 0 is a dense model."""

    top_k: int = 1
    """Routed experts that each token visits."""

    shared_experts: int = 0
    """Experts that every token visits; stored as one MLP of width ffn * shared_experts."""

    norm_topk_prob: bool = False
    """Whether the weights of the chosen experts are divided by their sum. Hunyuan-Large: no."""

    cla_share: int = 1
    """Consecutive layers that share one K and V (cross-layer attention); 1 is none."""

    qk_norm: bool = False
    """Per-head RMSNorm of queries and keys after RoPE."""

    qkv_bias: bool = False
    """Biases on the query, key and value projections."""

    output_bias: bool = False
    """Bias on the attention output projection."""

    tied: bool = False
    """Whether the output head is the embedding matrix."""

    norm_eps: float = 1e-5
    """Epsilon of every RMSNorm."""

    init_std: float = 0.02
    """Standard deviation of freshly initialised weights."""

    rope: Rope = field(default_factory=Rope)
    """Rotary embedding."""

    routing: Routing = field(default_factory=Routing)
    """How tokens find routed experts."""

    def __post_init__(self) -> None:
        for name in ("vocab", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn"):
            _require_positive(name, getattr(self, name))
        for name in ("context", "top_k", "cla_share", "norm_eps"):
            _require_positive(name, getattr(self, name))
        if self.heads % self.kv_heads:
            raise UsageError(
                f"heads={self.heads} must be a multiple of kv_heads={self.kv_heads}",
                f"heads={self.heads} 必须是 kv_heads={self.kv_heads} 的整数倍",
            )
        if self.head_dim % 2 or self.head_dim < 4:
            raise UsageError(
                f"head_dim={self.head_dim} must be even and at least 4: RoPE rotates pairs",
                f"head_dim={self.head_dim} 必须是不小于 4 的偶数：RoPE 按通道对旋转",
            )
        if self.experts and self.top_k > self.experts:
            raise UsageError(
                f"top_k={self.top_k} exceeds experts={self.experts}",
                f"top_k={self.top_k} 超过 experts={self.experts}",
            )
        if self.experts < 0 or self.shared_experts < 0:
            raise UsageError(
                f"experts={self.experts}, shared_experts={self.shared_experts}: "
                "must not be below 0",
                f"experts={self.experts}、shared_experts={self.shared_experts}：不能小于 0",
            )
        if self.experts == 0 and self.shared_experts:
            raise UsageError(
                f"shared_experts={self.shared_experts} needs experts > 0",
                f"shared_experts={self.shared_experts} 需要 experts > 0",
            )
        if self.routing.mode == "capacity-recycle" and self.top_k > 1:
            raise UsageError(
                f"capacity-recycle is defined for top_k=1, not top_k={self.top_k}: a recycled "
                "choice could repeat an expert the token already has; use capacity-drop",
                f"capacity-recycle 仅对 top_k=1 有定义（当前 top_k={self.top_k}）：重新分配可能"
                "重复该词元已有的专家；请使用 capacity-drop",
            )

    @property
    def slots(self) -> int:
        """Cache slots U: one per group of layers that share K and V."""
        return -(-self.layers // self.cla_share)

    def owns_kv(self, layer: int) -> bool:
        """Whether a layer projects K and V itself instead of reusing its group's."""
        return layer % self.cla_share == 0

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Parameters by part; the parts sum to the whole model."""
        d, c = self.hidden, self.head_dim
        q_width, kv_width = self.heads * c, self.kv_heads * c
        mlp = 3 * d * self.ffn
        biases = self.qkv_bias * (q_width * self.layers + 2 * kv_width * self.slots)
        return {
            "embedding": self.vocab * d,
            "head": 0 if self.tied else self.vocab * d,
            "query_output": 2 * d * q_width * self.layers,
            "key_value": 2 * d * kv_width * self.slots,
            "attention_bias": biases + self.output_bias * d * self.layers,
            "dense_mlp": 0 if self.experts else mlp * self.layers,
            "routed_experts": mlp * self.experts * self.layers,
            "shared_expert": mlp * self.shared_experts * self.layers,
            "router": d * self.experts * self.layers,
            "norms": (2 * d + 2 * c * self.qk_norm) * self.layers + d,
        }

    @property
    def total_parameters(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    @property
    def active_parameters(self) -> int:
        """Parameters one token meets, as the paper counts: embedding and head both (52.1 B)."""
        parts = dict(self.parameters)
        if self.experts:
            parts["routed_experts"] = parts["routed_experts"] * self.top_k // self.experts
        parts["head"] = self.vocab * self.hidden
        return sum(parts.values())

    def flops_per_token(self, attended: int) -> int:
        """Forward FLOPs of one token that attends to ``attended`` keys: 2 per multiply-add."""
        lookup = self.vocab * self.hidden
        matrices = self.active_parameters - lookup - self.parameters["norms"]
        attention = 2 * self.heads * self.head_dim * attended * self.layers
        return 2 * (matrices - self.parameters["attention_bias"]) + 2 * attention

    def kv_bytes_per_token(self, bytes_per_number: float = 2) -> int:
        """Cache bytes of one token: one K and one V per slot (paper, Table 2: 2 n_g d_h l)."""
        return int(2 * bytes_per_number * self.kv_heads * self.head_dim * self.slots)

    def mha_kv_bytes_per_token(self, bytes_per_number: float = 2) -> int:
        """What plain multi-head attention of the same shape would cache (paper: 4 n_h d_h l)."""
        return int(2 * bytes_per_number * self.heads * self.head_dim * self.layers)


def preset(name: str) -> ModelConfig:
    """A configuration by its name in ``presets.toml``."""
    known = presets()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = (f"; did you mean {near[0]}?", f"；是否想用 {near[0]}？") if near else ("", "")
        raise UsageError(
            f"preset {name!r} is unknown{hint[0]} Known: {', '.join(known)}",
            f"未知的预设 {name!r}{hint[1]} 可用：{'、'.join(known)}",
        )
    return known[name]


def presets() -> dict[str, ModelConfig]:
    """All configurations of ``presets.toml``, in its order."""
    text = files("hunyuan.model").joinpath("presets.toml").read_text(encoding="utf-8")
    return {name: config_from_dict(table) for name, table in tomllib.loads(text).items()}


def config_from_dict(table: Mapping[str, Any]) -> ModelConfig:
    """Build a configuration from plain data; an unknown key is an error naming the nearest."""
    values = dict(table)
    nested = {"rope": Rope, "routing": Routing}
    for key, kind in nested.items():
        if key in values:
            _refuse_unknown(values[key], kind, f"{key}.")
            values[key] = kind(**values[key])
    _refuse_unknown(values, ModelConfig, "")
    return ModelConfig(**values)


def _refuse_unknown(values: Mapping[str, Any], kind: type, prefix: str) -> None:
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise UsageError(
                f"config key {prefix}{key} is unknown"
                + (f"; did you mean {prefix}{near[0]}?" if near else "; remove it"),
                f"未知的配置项 {prefix}{key}"
                + (f"；是否想用 {prefix}{near[0]}？" if near else "；请删除"),
            )


def _require_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UsageError(
            f"{name}={value} must be above 0 and finite", f"{name}={value} 必须大于 0 且有限"
        )
