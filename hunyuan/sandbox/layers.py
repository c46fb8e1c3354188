"""Layers between a program and the machine, as the page names them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One thing between a program and the machine."""

    id: str
    on: bool
    name_en: str
    name_zh: str
    missing_en: str = ""
    """Why it is not on and what would help; empty where it is."""

    missing_zh: str = ""


def monty_layers(seconds: float, memory_bytes: int) -> list[Layer]:
    """What holds a program in `MontyRunner`; none of it depends on the machine."""
    megabytes = memory_bytes // 1024**2
    named = [
        ("interpreter", "interpreter without native code", "不执行本机代码的解释器"),
        ("files", "no files, no network, no processes", "无文件、网络和进程访问"),
        ("process", "a process of its own", "独立进程"),
        ("time", f"at most {seconds:g} s", f"最长 {seconds:g} 秒"),
        ("memory", f"at most {megabytes} MB of memory", f"最多 {megabytes} MB 内存"),
    ]
    return [Layer(id=i, on=True, name_en=en, name_zh=zh) for i, en, zh in named]


def reasons(layers: list[Layer]) -> tuple[str, str] | None:
    """Why not all layers are on, in English and Chinese; None if they are."""
    missing = [layer for layer in layers if not layer.on]
    if not missing:
        return None
    en = dict.fromkeys(layer.missing_en for layer in missing)
    zh = dict.fromkeys(layer.missing_zh for layer in missing)
    return "; ".join(en), "；".join(zh)
