"""What a run writes down: ``metrics.jsonl``, a JSON object a line, and alarms in words.

The kinds of lines and their fields are documented where they are read, `hunyuan.report.metrics`.
"""

import json
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hunyuan.files import disk_errors

Record = dict[str, Any]
Listener = Callable[[Record], None]


class MetricsFile:
    """Appends every record to a file and flushes it; a line a kill left torn is cut first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                whole = path.read_bytes().rpartition(b"\n")
                os.truncate(path, len(whole[0]) + len(whole[1]))
            self._file = path.open("a", encoding="utf-8")

    def __call__(self, record: Record) -> None:
        """Write one line; figures that are not finite are written NaN and Infinity."""
        with disk_errors(self._path):
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def tensorboard(folder: Path) -> Listener:
    """A listener that writes scalars for TensorBoard; `ImportError` without its package."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def write(record: Record) -> None:
        if record["kind"] not in ("train", "eval"):
            return
        prefix = "/".join([record["kind"], *([record["name"]] if "name" in record else [])])
        for name, value in record.items():
            if isinstance(value, float) and name != "time":
                writer.add_scalar(f"{prefix}/{name}", value, record["step"])

    return write


class Alarm(NamedTuple):
    """Something a person should know."""

    code: str
    en: str
    zh: str

    def record(self, step: int, level: str) -> Record:
        """Its line of the metrics."""
        return {
            "kind": "alarm",
            "step": step,
            "time": time.time(),
            "level": level,
            "code": self.code,
            "en": self.en,
            "zh": self.zh,
        }


class Watch:
    """Notices loss spikes and collapsing routers; says each at most once in a while."""

    _WINDOW = 64
    _QUIET_STEPS = 200

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=self._WINDOW)
        self._said: dict[str, int] = {}

    def loss(self, step: int, loss: float) -> Alarm | None:
        """A loss far above what the last steps had: eight times their usual deviation."""
        before = list(self._losses)
        self._losses.append(loss)
        if len(before) < self._WINDOW // 2:
            return None
        middle = statistics.median(before)
        usual = statistics.median(abs(x - middle) for x in before)
        if loss - middle < max(8 * 1.4826 * usual, 0.3):
            return None
        return self._once(
            step,
            Alarm(
                "spike",
                f"loss {loss:.3f} is far above the usual {middle:.3f}; if it does not come back, "
                "lower optimizer.learning_rate or optimizer.clip",
                f"损失 {loss:.3f} 远高于平常的 {middle:.3f}；若不回落，请降低 "
                "optimizer.learning_rate 或 optimizer.clip",
            ),
        )

    def experts(self, step: int, layers: Sequence[Record]) -> Alarm | None:
        """A layer in which half of the experts are dead, or one takes half of the tokens.

        Of few experts one takes three times its share, for their even share is large.
        """
        for layer in layers:
            experts = len(layer["load"])
            fullest = layer["max_violation"] + 1
            if layer["dead"] * 2 >= experts or fullest >= max(experts / 2, min(3, experts)):
                return self._once(
                    step,
                    Alarm(
                        "collapse",
                        f"layer {layer['layer']}: {layer['dead']} of {experts} experts get no "
                        f"token, the fullest {layer['max_violation'] + 1:.1f} times its share; "
                        "raise loss.balance, or lower the learning rate",
                        f"第 {layer['layer']} 层：{experts} 个专家中有 {layer['dead']} 个没有词元，"
                        f"最满的专家为均值的 {layer['max_violation'] + 1:.1f} 倍；"
                        "请增大 loss.balance 或降低学习率",
                    ),
                )
        return None

    def _once(self, step: int, alarm: Alarm) -> Alarm | None:
        last = self._said.get(alarm.code)
        if last is not None and step - last < self._QUIET_STEPS:
            return None
        self._said[alarm.code] = step
        return alarm
