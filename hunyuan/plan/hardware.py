"""Accelerators by their makers' data sheets, and clusters of them."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files

from hunyuan.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device; rates are peaks per direction."""

    name: str
    memory: float
    """Bytes."""

    flops: float
    """Dense bfloat16 operations per second."""

    bandwidth: float
    """Bytes per second from its own memory."""

    node: int
    """Devices that `link` joins."""

    link: float
    """Bytes per second to the other devices of its node."""

    network: float
    """Bytes per second to other nodes, one device's share."""

    source: str
    """Where the figures stand."""


@dataclass(frozen=True)
class Cluster:
    """A number of equal accelerators."""

    count: int
    accelerator: Accelerator


def accelerators() -> Mapping[str, Accelerator]:
    """All that are known by name."""
    text = files("hunyuan.plan").joinpath("accelerators.toml").read_text(encoding="utf-8")
    return {
        name: Accelerator(
            name=name,
            memory=1e9 * row["memory_gb"],
            flops=1e12 * row["tflops"],
            bandwidth=1e12 * row["memory_tb_s"],
            node=row["node"],
            link=1e9 * row["link_gb_s"],
            network=1e9 * row["network_gb_s"],
            source=row["source"],
        )
        for name, row in tomllib.loads(text).items()
    }


def parse_cluster(text: str) -> Cluster:
    """``256xH100-80G``; raises `UsageError` naming the accelerators that are known."""
    known = accelerators()
    count, _, name = text.rpartition("x")
    if name not in known:
        near = get_close_matches(name, known, 1, 0.3)
        raise UsageError(
            f"--gpus {text!r}: {name!r} is unknown"
            + (f"; did you mean {near[0]}?" if near else ";")
            + f" Known: {', '.join(known)}",
            f"--gpus {text!r}：未知的 {name!r}"
            + (f"；是否想用 {near[0]}？" if near else "；")
            + f"可用：{'、'.join(known)}",
        )
    if not re.fullmatch(r"[1-9]\d{0,6}|", count):
        raise UsageError(
            f"--gpus {text!r}: must be COUNTxNAME with a count of at least 1, such as 256x{name}",
            f"--gpus {text!r}：必须写作 数量x名称，数量不小于 1，例如 256x{name}",
        )
    return Cluster(int(count or 1), known[name])
