"""Make a mixture of experts of a dense checkpoint, leaf by leaf, without changing what it computes.

The shared expert is the dense MLP. A routed expert gets some of the dense gate and up neurons, a
little noise, and a down projection of zeros; the router is small and random:

    dense    down . (silu(gate x) * up x)
    shared   the same three matrices
    expert   gate, up: rows of the dense ones, plus noise     down: 0

So every routed output is zero, and the logits are those of the dense model to the bit, whatever
the router says. Yet nothing is stuck. At the first step the down projections have a gradient,
weight * (what the neurons say) x (gradient of the output), and only they: zeros hide gate, up and
the router from the loss (a balance loss moves the router all the same). From the second step on the
outputs differ from zero, and with them the gradients of gate, up and, through the experts' weights
in the sum, of the router. Experts part because each sees other tokens and has other neurons: in
groups of ``shared_experts`` they divide all neurons among them, by another permutation each group.
Where an expert is as wide as the dense MLP, it has all neurons, and noise and tokens part them.

Scaling down a copy of the dense down projection instead would need a correction in the shared
expert that holds for one router only; with zeros there is nothing to correct.

Written in the family ``hunyuan``, whose keys can say all of it: no query and key norms, biases,
any RoPE. The class of that name is not part of the transformers library, and the later MoE class
that is always normalises queries and keys. The family has one switch for biases, so that a model
with biases on query, key and value alone gets a zero bias on the output. With ``cla_share`` above 1
layers share keys and values as well, which does change the function: `hunyuan.checkpoint.share_kv`.

Cost: a pass over the dense weights for every routed expert; memory of about two tensors (with
``cla_share``, of one attention layer).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.convert import (
    Comparison,
    compare_logits,
    has_tokenizer,
    keep_token_ids,
    require_equal,
    require_new,
    write_tokenizer,
)
from hunyuan.checkpoint.hf_config import check_expressible
from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.checkpoint.load import tokenizer_of
from hunyuan.checkpoint.share_kv import Fold, fold, folds_of_text, folds_of_weights
from hunyuan.checkpoint.streamed import streamed_logits
from hunyuan.checkpoint.write import StoredType, write_hf_folder
from hunyuan.errors import UsageError
from hunyuan.files import atomic_folder, require_free_space
from hunyuan.formats.gguf import GGMLType
from hunyuan.model.config import ModelConfig, Routing

SENTENCES = (
    "The old lighthouse keeper climbed the stairs every evening to light the lamp. From the top he "
    "could see the harbour, the fishing boats coming home, and the long grey line of the sea. He "
    "had done so for thirty years, and in all that time the light had never failed.\n"
    "水在零摄氏度结冰，在一百摄氏度沸腾。人们很早就利用这一点来划分温度计的刻度。\n"
    "To sort a list of numbers, compare each pair of neighbours and swap them if they are in the "
    "wrong order; repeat until nothing changes.\n"
)
"""What loss and logits are compared on where no text is given."""

# Relative to the root mean square of the matrix. It costs nothing at first, being multiplied by 0.
_NOISE = 0.1

_ROUTER_STD = 0.02

WINDOW = 256
"""Tokens that see each other where a text is read."""

_FIT_WINDOWS = 16
_HELD_OUT_WINDOWS = 2


@dataclass(frozen=True, kw_only=True)
class Upcycling:
    """What becomes of a dense model."""

    experts: int
    """Routed experts per layer, 2 or more."""

    top_k: int = 1
    """Routed experts that each token visits."""

    shared_experts: int | None = None
    """Shared experts; together as wide as the dense MLP. None: what ``expert_ffn`` leaves, or 1."""

    expert_ffn: int | None = None
    """Width of each expert, a divisor of the dense width. None: dense width / shared experts."""

    cla_share: int = 1
    """Consecutive layers that share K and V; above 1 the function changes."""

    routing: Routing = field(default_factory=Routing)
    """What the written configuration asks of training; a loaded model is dropless by default."""

    seed: int = 0
    """Of permutations, noise and router."""

    def __post_init__(self) -> None:
        if self.experts < 2:
            raise UsageError(
                f"experts={self.experts}: a mixture needs 2 or more",
                f"experts={self.experts}：混合专家模型至少需要 2 个专家",
            )
        for name in ("top_k", "shared_experts", "expert_ffn", "cla_share"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(
                    f"{name}={value}: must be 1 or more", f"{name}={value}：必须不小于 1"
                )

    def config_of(self, dense: ModelConfig) -> ModelConfig:
        """The shape of the result; `UsageError` if ``dense`` cannot become it."""
        if dense.experts:
            raise UsageError(
                f"experts={dense.experts}: the model is a mixture of experts already; "
                "choose a dense one",
                f"experts={dense.experts}：该模型已是混合专家模型；请选择稠密模型",
            )
        shared, width = self._divided(dense.ffn)
        if dense.cla_share > 1:
            raise UsageError(
                f"cla_share={dense.cla_share}: the layers of this model share K and V already; "
                "choose one whose layers do not",
                f"cla_share={dense.cla_share}：该模型各层已共享 K 与 V；请选择未共享的模型",
            )
        if self.cla_share > 1:
            self._check_sharing(dense)
        biases = dense.qkv_bias or dense.output_bias
        return replace(
            dense,
            ffn=width,
            experts=self.experts,
            top_k=self.top_k,
            shared_experts=shared,
            cla_share=self.cla_share,
            qkv_bias=biases,
            output_bias=biases,
            routing=self.routing,
        )

    def _divided(self, ffn: int) -> tuple[int, int]:
        """Shared experts and the width of one, whose product is the dense width."""
        shared = self.shared_experts
        if shared is None:
            shared = 1 if self.expert_ffn is None else max(1, ffn // self.expert_ffn)
        width = self.expert_ffn or ffn // shared
        if shared * width != ffn:
            divisors = [n for n in range(1, ffn + 1) if ffn % n == 0]
            near = min(divisors, key=lambda n: abs(n - width))
            raise UsageError(
                f"shared_experts={shared} of expert_ffn={width} are {shared * width} wide, the "
                f"dense MLP is {ffn}; give --expert-ffn {near} or another divisor of {ffn}, and no "
                "--shared",
                f"shared_experts={shared} 个宽 expert_ffn={width} 的专家总宽 {shared * width}，"
                f"而稠密 MLP 宽 {ffn}；请使用 --expert-ffn {near} 或 {ffn} 的其他约数，"
                "且不指定 --shared",
            )
        return shared, width

    def _check_sharing(self, dense: ModelConfig) -> None:
        if dense.layers % self.cla_share:
            raise UsageError(
                f"cla_share={self.cla_share}: {dense.layers} layers are no multiple of it; "
                "choose a divisor",
                f"cla_share={self.cla_share}：层数 {dense.layers} 不是其整数倍；请选择约数",
            )
        if dense.qk_norm:
            raise UsageError(
                f"cla_share={self.cla_share}: this model normalises queries and keys, and keys "
                "that are normalised cannot be aligned; leave cla_share at 1",
                f"cla_share={self.cla_share}：该模型对查询与键做归一化，归一化的键无法对齐；"
                "请保持 cla_share 为 1",
            )


@dataclass(frozen=True)
class Upcycled:
    """What was written, and how far it is from the dense model."""

    config: ModelConfig
    comparison: Comparison | None
    """Of the logits: on the text if there is one, with ``verify`` on random tokens."""

    loss_before: float | None
    """Mean loss of the dense model on the text, nats a token, if there is one or K, V are shared.
    Of a text that the sharing was fitted to, a part that it was not fitted to."""

    loss_after: float | None
    """The same of the result, before any training."""


def upcycle(
    source: Path,
    target: Path,
    plan: Upcycling,
    *,
    dtype: torch.dtype | None = None,
    text: Path | None = None,
    verify: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Upcycled:
    """Write the mixture of experts that ``plan`` makes of ``source`` as a Hugging Face folder.

    ``dtype`` None keeps the stored float types and turns quantised tensors into bfloat16. ``text``
    is what losses are computed on; with shared K and V its first part is what their alignment is
    fitted to, and without a text `SENTENCES` take its place for the figures. ``verify`` compares
    logits, and a result that differs is not kept; where K and V are shared it always differs.

    Raises `UsageError` (target exists, plan does not fit the model, text unreadable),
    `DoesNotFitError` (disk), `BadDataError` (source damaged).
    """
    require_new(target)
    dense = open_checkpoint(source)
    config = plan.config_of(dense.config)
    check_expressible("hunyuan", config)
    shapes = leaves(config)
    types = {leaf: _type_of(dense, leaf, dtype) for leaf in shapes}
    require_free_space(target, sum(prod(shapes[leaf]) * t.itemsize for leaf, t in types.items()))
    shares = plan.cla_share > 1
    fit_ids, held_out = _texts(dense, text, shares)
    folds: Mapping[int, Fold] = {}
    if shares:
        folds = (
            folds_of_weights(dense, plan.cla_share)
            if fit_ids is None
            else folds_of_text(dense, plan.cla_share, fit_ids)
        )
    make = _Leaves(dense, config, plan.seed, folds)
    total, done = config.total_parameters, 0

    def read(leaf: str, kind: StoredType) -> Tensor:
        nonlocal done
        assert not isinstance(kind, GGMLType)
        tensor = make(leaf, kind)
        done += prod(shapes[leaf])
        if progress is not None:
            progress(done, total)
        return tensor

    with atomic_folder(target) as folder:
        stored: dict[str, StoredType] = {**types}
        write_hf_folder(folder, config, "hunyuan", stored, read)
        write_tokenizer(dense, folder)
        keep_token_ids(dense, folder / "config.json")
        written = open_checkpoint(folder)
        comparison = before = after = None
        if held_out is not None:
            comparison, before, after = compare_on_text(dense, written, held_out)
        if shares:
            # Equality is not to be had; without a tokenizer there are random tokens to compare on.
            comparison = comparison or compare_logits(dense, written, False)
        elif verify:
            comparison = compare_logits(dense, written, _lossless(dense, types))
            require_equal(comparison)
    return Upcycled(config, comparison, before, after)


def compare_on_text(
    source: Checkpoint, target: Checkpoint, windows: list[Tensor]
) -> tuple[Comparison, float, float]:
    """Logits and mean losses (nats a token) of both on windows (1, T), streamed in float32."""
    expected, found = (
        torch.cat([streamed_logits(checkpoint, ids)[0, :-1] for ids in windows])
        for checkpoint in (source, target)
    )
    following = torch.cat([ids[0, 1:] for ids in windows])
    difference = (expected - found).abs()
    comparison = Comparison(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        spread=float(expected.std()),
        same_argmax=float((expected.argmax(-1) == found.argmax(-1)).float().mean()),
        lossless=False,
    )
    before, after = (float(F.cross_entropy(x, following)) for x in (expected, found))
    return comparison, before, after


def neurons_of(seed: int, layer: int, expert: int, ffn: int, width: int) -> Tensor:
    """Which of ``ffn`` dense neurons an expert of ``width`` gets, (width,) int64.

    ``ffn / width`` experts in a row divide one permutation of all neurons among them.
    """
    group, part = divmod(expert, ffn // width)
    order = torch.randperm(ffn, generator=_generator(seed, f"neurons {layer} {group}"))
    return order[part * width : (part + 1) * width]


class _Leaves:
    """Computes the leaves of the result from those of the dense model, one at a time."""

    def __init__(
        self, dense: Checkpoint, config: ModelConfig, seed: int, folds: Mapping[int, Fold]
    ) -> None:
        self._dense = dense
        self._config = config
        self._seed = seed
        self._folds = folds
        self._matrix = lru_cache(maxsize=2)(dense.read)  # gate and up, asked for in turns

    def __call__(self, leaf: str, dtype: torch.dtype) -> Tensor:
        if is_router(leaf):
            shape = self._config.experts, self._config.hidden
            generator = _generator(self._seed, leaf)
            return (_ROUTER_STD * torch.randn(shape, generator=generator)).to(dtype)
        if part := expert_leaf(leaf):
            return self._expert(leaf, part.expert, part.projection).to(dtype)
        origin = _origin(leaf)
        if origin not in self._dense.pieces:  # an output bias the dense model does not have
            return torch.zeros(leaves(self._config)[leaf], dtype=dtype)
        if how := self._fold_for(origin):
            return fold(origin, self._dense.read(origin), how, self._config).to(dtype)
        return self._dense.read(origin, dtype)

    def _expert(self, leaf: str, expert: int, projection: str) -> Tensor:
        config = self._config
        if projection == "down_proj":
            return torch.zeros(config.hidden, config.ffn)
        whole = self._matrix(_origin(leaf))
        chosen = neurons_of(self._seed, _layer(leaf), expert, len(whole), config.ffn)
        noise = torch.randn(config.ffn, config.hidden, generator=_generator(self._seed, leaf))
        return whole[chosen] + _NOISE * whole.square().mean().sqrt() * noise

    def _fold_for(self, leaf: str) -> Fold | None:
        return self._folds.get(_layer(leaf)) if ".self_attn." in leaf else None


def _origin(leaf: str) -> str:
    """The dense leaf that a leaf of the result is, or is made of."""
    if part := expert_leaf(leaf):
        return f"{part.bank.removesuffix('.experts')}.{part.projection}.weight"
    return leaf.replace(".shared_mlp.", ".")


def _layer(leaf: str) -> int:
    return int(leaf.split(".")[2])


def _generator(seed: int, purpose: str) -> torch.Generator:
    """Random numbers that depend on what they are for, not on the order of writing."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def _type_of(dense: Checkpoint, leaf: str, asked: torch.dtype | None) -> torch.dtype:
    if is_router(leaf):
        return torch.float32
    origin = _origin(leaf)
    if origin not in dense.pieces:
        origin = leaf.replace(".o_proj.bias", ".q_proj.bias")
    return asked or dense.stored_dtype(origin) or torch.bfloat16


def _lossless(dense: Checkpoint, types: Mapping[str, torch.dtype]) -> bool:
    """Whether everything that is taken over keeps every value."""
    return all(
        kind in (dense.stored_dtype(_origin(leaf)), torch.float32)
        for leaf, kind in types.items()
        if _origin(leaf) in dense.pieces and expert_leaf(leaf) is None
    )


def _texts(
    dense: Checkpoint, text: Path | None, shares: bool
) -> tuple[Tensor | None, list[Tensor] | None]:
    """Ids to fit the sharing to, (windows, T), and windows (1, T) to compute the loss on."""
    if text is None:
        if not (shares and has_tokenizer(dense)):
            return None, None
        return None, [_ids(dense, SENTENCES)[None]]
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(
            f"--text {text}: cannot be read ({reason}); give a text file",
            f"--text {text}：无法读取（{reason}）；请指定一个文本文件",
        ) from error
    window = min(WINDOW, dense.config.context)
    # A token is a byte or more, and seldom more than eight.
    ids = _ids(dense, content[: 8 * window * (_FIT_WINDOWS + _HELD_OUT_WINDOWS)])
    parts = [part[None] for part in torch.split(ids, window) if len(part) > 1]
    if not parts or (shares and len(parts) < 2):
        raise UsageError(
            f"--text {text}: {len(ids)} tokens are too few; give {2 * window} or more",
            f"--text {text}：仅 {len(ids)} 个词元，过少；请提供至少 {2 * window} 个",
        )
    if not shares:
        return None, parts[:_HELD_OUT_WINDOWS]
    # All but the last are whole windows; the end of the text is kept out of the fit.
    count = min(_HELD_OUT_WINDOWS, len(parts) - 1)
    return torch.cat(parts[:-count][:_FIT_WINDOWS]), parts[-count:]


def _ids(dense: Checkpoint, text: str) -> Tensor:
    return torch.tensor(tokenizer_of(dense).encode(text))
