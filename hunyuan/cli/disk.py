"""What running experts from disk cost, for a person."""

import sys
from typing import TYPE_CHECKING

from hunyuan.errors import language
from hunyuan.files import human_bytes

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine
    from hunyuan.native.expert_stats import ExpertStats


def report_disk(engine: "Engine") -> None:
    """One line on standard error; nothing for a model in memory."""
    if (stats := engine.stats().disk) is not None:
        print(disk_line(stats), file=sys.stderr)


def disk_line(stats: "ExpertStats") -> str:
    """Bytes a token, how often experts were there, and how fast the rest came."""
    values = {
        "slots": stats.slots,
        "each": human_bytes(stats.extent_bytes),
        "token": human_bytes(stats.bytes_per_token),
        "hits": f"{stats.hit_rate:.0%}",
        "demanded": stats.demanded,
        "ahead": stats.ahead,
        "used": f"{stats.ahead_rate:.0%}",
        "speed": human_bytes(stats.read_speed),
        "waited": f"{stats.waited_seconds:.1f}",
        "way": ("" if stats.direct else ", through the page cache"),
        "way_zh": ("" if stats.direct else "（经页缓存）"),
    }
    if language() == "zh":
        return (
            "磁盘专家：每词元读取 {token}；{demanded} 次访问中 {hits} 已在内存（容纳 {slots} 个"
            "专家，每个 {each}）；预读 {ahead} 个，其中 {used} 用到；读取 {speed}/秒{way_zh}；"
            "等待磁盘 {waited} 秒"
        ).format(**values)
    return (
        "experts from disk: {token} read a token; {hits} of {demanded} visits found their expert "
        "in memory (room for {slots} of {each}); {ahead} read ahead, {used} of them used; "
        "{speed}/s while reading{way}; waited {waited} s for the disk"
    ).format(**values)
