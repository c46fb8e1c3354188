"""The compiled library and its C interface; no torch here.

`library` loads it once. Without it (no compiler at installation, another processor) everything
runs on torch, and `unavailable` says why. Struct layouts mirror ``src/hunyuan_native.h``.
"""

import ctypes
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from enum import IntEnum
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from hunyuan.errors import UsageError

ABI_VERSION = 5
"""Must equal HY_ABI_VERSION of the header."""

BLOCK_TOKENS = 32
"""Tokens per block of the cache, HY_BLOCK."""

ISA_VARIABLE = "HUNYUAN_ISA"
"""Environment variable that forces an instruction set: generic, avx2 or avx512."""


class KVType(IntEnum):
    """Number types of the cache."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2


class Role(IntEnum):
    """What a matrix or vector is for, in the order of ``enum hy_role``."""

    EMBEDDING = 0
    HEAD = 1
    FINAL_NORM = 2
    INPUT_NORM = 3
    POST_NORM = 4
    Q = 5
    K = 6
    V = 7
    O = 8  # noqa: E741 - the field's name for it
    Q_BIAS = 9
    K_BIAS = 10
    V_BIAS = 11
    O_BIAS = 12
    Q_GAIN = 13
    ROUTER = 14
    SHARED_GATE = 15
    SHARED_UP = 16
    SHARED_DOWN = 17
    EXPERT_GATE = 18
    EXPERT_UP = 19
    EXPERT_DOWN = 20


class StepFailure(IntEnum):
    """What ``hy_decoder_run`` returns if it fails."""

    MEMORY = -1
    EXPERT = -2


class ExpertFailureKind(IntEnum):
    """``enum hy_expert_failure_kind``."""

    WHOLE = 0
    UNREADABLE = 1
    TRUNCATED = 2
    ALTERED = 3


class Shape(ctypes.Structure):
    """``hy_shape``."""

    _fields_ = (
        *((name, c_int32) for name in ("vocab", "hidden", "layers", "heads", "kv_heads")),
        *((name, c_int32) for name in ("head_dim", "ffn", "shared_ffn", "experts", "top_k")),
        *((name, c_int32) for name in ("norm_topk_prob", "cla_share", "qk_norm")),
        ("norm_eps", c_float),
        ("inverse_frequencies", c_void_p),
    )


class Cache(ctypes.Structure):
    """``hy_cache``."""

    _fields_ = (
        ("k", c_void_p),
        ("v", c_void_p),
        ("k_scale", c_void_p),
        ("v_scale", c_void_p),
        ("blocks", c_int64),
        ("type", c_int32),
    )


class Step(ctypes.Structure):
    """``hy_step``."""

    _fields_ = (
        ("ids", c_void_p),
        ("positions", c_void_p),
        ("tokens", c_int32),
        ("sequences", c_int32),
        ("counts", c_void_p),
        ("tables", c_void_p),
        ("table_width", c_int32),
        ("wanted", c_void_p),
        ("rows", c_int32),
    )


class ExpertFileDescription(ctypes.Structure):
    """``hy_expert_file``."""

    _fields_ = (
        ("path", c_char_p),
        ("layers", c_int32),
        ("experts", c_int32),
        ("types", c_int32 * 3),
        ("starts", c_int64 * 3),
        ("length", c_int64),
        ("offsets", POINTER(c_int64)),
        ("hashes", POINTER(c_uint64)),
    )


class ExpertStatistics(ctypes.Structure):
    """``hy_expert_stats``."""

    _fields_ = (
        *((name, c_int64) for name in ("slots", "resident", "extent_bytes", "direct")),
        *((name, c_int64) for name in ("steps", "tokens", "demanded", "hits")),
        *((name, c_int64) for name in ("ahead", "ahead_used", "expected", "came_true")),
        ("bytes_read", c_int64),
        ("busy_seconds", c_double),
        ("waited_seconds", c_double),
    )


class ExpertFailure(ctypes.Structure):
    """``hy_expert_failure``."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "layer", "expert", "error")),
        ("wanted", c_uint64),
        ("found", c_uint64),
    )


class Workers(ctypes.Structure):
    """``hy_workers``."""

    _fields_ = (("parallel", c_void_p), ("threads", c_int32))


class Scores(ctypes.Structure):
    """``hy_scores``."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "rows", "keys", "kv_heads", "tokens")),
        *((name, c_int64) for name in ("queries", "first_query", "first_key")),
        ("first_seen", c_void_p),
        ("scale", c_float),
    )


class Heads(ctypes.Structure):
    """``hy_heads``."""

    _fields_ = (
        *((name, c_int64) for name in ("tokens", "heads", "half", "angles")),
        ("eps", c_float),
    )


_SIGNATURES = {
    "hy_abi_version": (c_int32, ()),
    "hy_isa": (c_char_p, ()),
    "hy_packed_bytes": (c_size_t, (c_int32, c_int64, c_int64)),
    "hy_pack": (None, (c_int32, c_int64, c_int64, c_void_p, c_void_p)),
    "hy_unpack_row": (None, (c_int32, c_int64, c_void_p, c_int64, c_void_p)),
    "hy_matmul": (
        c_int32,
        (c_int32, c_int64, c_int64, c_void_p, c_void_p, c_int32, c_void_p, c_int32),
    ),
    "hy_decoder_new": (c_void_p, (POINTER(Shape), c_int32)),
    "hy_decoder_free": (None, (c_void_p,)),
    "hy_decoder_set": (
        None,
        (c_void_p, c_int32, c_int32, c_int32, c_int32, c_int64, c_int64, c_void_p),
    ),
    "hy_decoder_run": (
        c_int32,
        (c_void_p, POINTER(Step), POINTER(Cache), c_void_p, c_void_p, c_void_p),
    ),
    "hy_decoder_expert_tokens": (None, (c_void_p, c_void_p)),
    "hy_decoder_set_experts": (None, (c_void_p, c_void_p)),
    "hy_packing_version": (c_int32, ()),
    "hy_extent_hash": (c_uint64, (c_void_p, c_int64)),
    "hy_experts_new": (c_void_p, (POINTER(ExpertFileDescription), c_int64, c_int32, c_int32)),
    "hy_experts_free": (None, (c_void_p,)),
    "hy_experts_stats": (None, (c_void_p, POINTER(ExpertStatistics))),
    "hy_experts_failure": (None, (c_void_p, POINTER(ExpertFailure))),
    "hy_sequential_read": (c_double, (c_char_p, c_int64, c_int32, POINTER(c_int32))),
    "hy_train_softmax": (None, (POINTER(Workers), POINTER(Scores), c_void_p, c_void_p)),
    "hy_train_softmax_backward": (
        None,
        (POINTER(Workers), POINTER(Scores), c_void_p, c_void_p, c_void_p, c_void_p),
    ),
    "hy_train_cross_entropy": (
        None,
        (POINTER(Workers), c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p),
    ),
    "hy_train_rms_norm": (
        None,
        (POINTER(Workers), c_int64, c_int64, c_void_p, c_void_p, c_float, c_void_p, c_void_p),
    ),
    "hy_train_rms_norm_backward": (
        None,
        (POINTER(Workers), c_int64, c_int64, *[c_void_p] * 5, c_int64, c_void_p),
    ),
    "hy_train_swiglu": (None, (POINTER(Workers), c_int64, c_void_p, c_void_p, c_void_p)),
    "hy_train_swiglu_backward": (None, (POINTER(Workers), c_int64, *[c_void_p] * 5)),
    "hy_train_rotate_unit": (None, (POINTER(Workers), POINTER(Heads), *[c_void_p] * 6)),
    "hy_train_rotate_unit_backward": (
        None,
        (POINTER(Workers), POINTER(Heads), *[c_void_p] * 7, c_int64, c_void_p),
    ),
    "hy_quantize": (c_int32, (c_int32, c_int64, c_int64, c_void_p, c_void_p, c_void_p)),
}


@cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    folder = Path(__file__).parent
    found = [p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_kernels{suffix}").exists()]
    if not found:
        return "not compiled: install a C++ compiler (g++), then install the package again"
    try:
        loaded = ctypes.CDLL(str(found[0]))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return f"{found[0].name} does not load ({error}); install the package again"
    if (version := loaded.hy_abi_version()) != ABI_VERSION:
        return f"{found[0].name} has interface {version}, {ABI_VERSION} is needed; install again"
    return loaded


def unavailable() -> str | None:
    """Why the kernels cannot run here, or None.

    Raises `UsageError` if `ISA_VARIABLE` names an instruction set that cannot run here.
    """
    loaded = _load()
    if isinstance(loaded, str):
        return loaded
    isa()
    return None


def library() -> ctypes.CDLL:
    """The loaded library; only where `unavailable` returned None."""
    loaded = _load()
    assert not isinstance(loaded, str), loaded
    return loaded


def isa() -> str:
    """The instruction set that runs: generic, avx2 or avx512."""
    name = library().hy_isa()
    if name is None:
        asked = os.environ.get(ISA_VARIABLE)
        raise UsageError(
            f"{ISA_VARIABLE}={asked}: this processor or this build cannot run it; use generic, "
            "avx2 or avx512 as the processor allows, or unset it",
            f"{ISA_VARIABLE}={asked}：此处理器或此次编译不支持；请按处理器能力使用 generic、"
            "avx2 或 avx512，或取消该变量",
        )
    return str(name.decode())
