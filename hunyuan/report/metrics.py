"""What a training run wrote down: ``metrics.jsonl``, one JSON object a line, as typed records.

`read_metrics` streams: one record at a time, in the order of the file, so that a million lines need
no memory. A line is a `Start` (one per process), `Train`, `Eval`, `Moe` or `Alarm`, by its
``kind``. Fields that a newer version adds are passed over, except in training lines, where every
further number is a scalar of the task (the accuracy of preference training, say).

A process that is killed may leave its last line torn: text without a line end that is no whole
object is passed over. Every other malformed line is an error that names file and line.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from hunyuan.errors import BadDataError, UsageError
from hunyuan.files import disk_errors

METRICS = "metrics.jsonl"
LARGEST = 2.0**63


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A process began or went on with the run."""

    time: float
    """Unix seconds."""
    command: str
    """The command line that was given."""
    version: str
    """Version of this package."""
    commit: str | None = None
    """Commit of the source, where there is one."""
    parameters: int
    """Parameters of the model."""
    active_parameters: int
    """Parameters that one token meets."""
    resumed_at_step: int
    """Step of the checkpoint it went on from; 0 at the beginning."""
    config: Mapping[str, Any]
    """Fields of the model's configuration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """One optimiser step, or the last of several."""

    step: int
    """Steps done."""
    tokens: int
    """Tokens seen since the beginning."""
    time: float
    """Unix seconds."""
    loss: float
    """Nats per token; NaN or infinite once a run has diverged."""
    balance_loss: float | None = None
    """Balance loss of the routers."""
    z_loss: float | None = None
    """Penalty on large logits."""
    learning_rate: float
    """Learning rate of everything but the routed experts."""
    expert_learning_rate: float | None = None
    """Learning rate of the routed experts, where it differs."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    tokens_per_second: float
    """Speed since the last line."""
    peak_share: float | None = None
    """Share of the machine's measured matrix peak."""
    memory_bytes: int
    """Resident memory."""
    progress: float | None = None
    """Share of the run that is over."""
    scalars: Mapping[str, float] = field(default_factory=dict)
    """Further numbers of the task, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Eval:
    """One held-out text, measured."""

    step: int
    """Steps done."""
    tokens: int
    """Tokens seen since the beginning."""
    time: float
    """Unix seconds."""
    name: str
    """Which text."""
    loss: float
    """Nats per token."""
    bits_per_byte: float | None = None
    """Bits per UTF-8 byte; comparable between tokenizers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MoeLayer:
    """How the experts of one layer were used."""

    layer: int
    """Which decoder block."""
    load: tuple[float, ...]
    """Tokens of each expert as a multiple of the even share."""
    max_violation: float
    """Largest load less one."""
    dead: int
    """Experts without tokens."""
    router_entropy: float
    """Mean entropy of the router's choice, 0 to 1."""
    load_entropy: float
    """Entropy of the load, 0 to 1; 1 is even."""
    top1_weight: float
    """Mean weight of the first choice."""
    recycled: float
    """Share of the choices that went to another expert for want of room."""
    dropped: float
    """Share of the choices that reached no expert."""
    recycled_weight: float | None = None
    """Mean weight of the recycled choices."""
    balance_loss: float
    """Balance loss of this layer."""
    similarity: float | None = None
    """Mean similarity of the experts' weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moe:
    """How the experts were used, layer by layer; all layers have as many experts."""

    step: int
    """Steps done."""
    tokens: int
    """Tokens seen since the beginning."""
    time: float
    """Unix seconds."""
    layers: tuple[MoeLayer, ...]
    """One record per layer with routed experts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """Something a person should know."""

    step: int
    """Steps done."""
    time: float
    """Unix seconds."""
    level: Literal["warning", "stop"]
    """``stop`` ended the run."""
    code: str
    """Kind of alarm, for machines."""
    en: str
    """The sentence in English."""
    zh: str
    """The sentence in Chinese."""


Record = Start | Train | Eval | Moe | Alarm

_KINDS = {"start": Start, "train": Train, "eval": Eval, "moe": Moe, "alarm": Alarm}


def metrics_file(folder: Path) -> Path:
    """The metrics of a run folder; an error says what is wrong with the folder."""
    path = folder / METRICS
    if path.is_file():
        return path
    if not folder.exists():
        raise UsageError(
            f"{folder}: does not exist; give the folder of a training run",
            f"{folder}：不存在；请给出训练运行的目录",
        )
    raise UsageError(
        f"{folder}: is no training run, it holds no {METRICS}; give the folder that "
        "`hunyuan train` wrote",
        f"{folder}：不是训练运行，其中没有 {METRICS}；请给出 `hunyuan train` 写出的目录",
    )


def read_metrics(path: Path) -> Iterator[Record]:
    """The records of a metrics file, in its order."""
    with disk_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = read_line(f"{path}:{number}", line)
            if record is None:
                return
            yield record


def read_line(where: str, line: bytes) -> Record | None:
    """The record of one line; None for one that a kill left torn. ``where`` is for errors."""
    try:
        values = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            return None
        raise _malformed(where, "is not JSON", "不是 JSON") from error
    return _record(where, values)


def _malformed(where: str, en: str, zh: str) -> BadDataError:
    return BadDataError(
        f"{where}: {en}; restore the file or remove this line",
        f"{where}：{zh}；请恢复该文件或删除此行",
    )


def _record(where: str, values: Any) -> Record:
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        near = get_close_matches(str(kind), _KINDS, 1) or list(_KINDS)
        raise _malformed(
            where,
            f"kind={kind!r} is unknown, it must be {' or '.join(near)}",
            f"未知的 kind={kind!r}，应为 {' 或 '.join(near)}",
        )
    if kind == "train":
        return _train(where, values)
    if kind == "moe":
        return _moe(where, values)
    found = _build(where, _KINDS[kind], values)
    assert isinstance(found, Record)
    return found


def _train(where: str, values: dict[str, Any]) -> Train:
    scalars = {}
    for name in values.keys() - _TRAIN_NAMES:
        scalars[name] = _checked(where, name, values[name], (float, NoneType))
    kept = {name: value for name, value in values.items() if name in _TRAIN_NAMES}
    kept["scalars"] = {name: value for name, value in scalars.items() if value is not None}
    found = _build(where, Train, kept)
    assert isinstance(found, Train)
    return found


def _moe(where: str, values: dict[str, Any]) -> Moe:
    layers = []
    for entry in _checked(where, "layers", values.get("layers"), (list,)):
        if not isinstance(entry, dict):
            raise _wrong(where, "layers", entry, "an object", "对象")
        load = _checked(where, "load", entry.get("load"), (list,))
        shares = tuple(_checked(where, "load", share, (float,)) for share in load)
        if not all(0 <= share < math.inf for share in shares):
            raise _wrong(where, "load", load, "numbers of at least 0", "不小于 0 的数")
        layers.append(_build(where, MoeLayer, {**entry, "load": shares}))
    if not layers or len({len(layer.load) for layer in layers}) > 1 or not layers[0].load:
        sizes = [len(layer.load) for layer in layers]
        raise _wrong(
            where, "layers", sizes, "layers of equally many experts", "专家数相同且不为空的各层"
        )
    found = _build(where, Moe, {**values, "layers": tuple(layers)})
    assert isinstance(found, Moe)
    return found


def _build(where: str, kind: type, values: dict[str, Any]) -> Any:
    """A record from plain data: every field is there and has its type."""
    given = {}
    for name, types, required in _SHAPES[kind]:
        if name in values:
            given[name] = _checked(where, name, values[name], types)
        elif required:
            raise _malformed(where, f"field {name} is missing", f"缺少字段 {name}")
    return kind(**given)


def _checked(where: str, name: str, value: Any, types: tuple[Any, ...]) -> Any:
    """The value if it has one of the types; whole numbers serve as floats, floats not as ints."""
    if value is None and NoneType in types:
        return None
    if (
        type(value) in (int, float)
        and float in types
        and not (type(value) is int and abs(value) >= LARGEST)
    ):
        if name == "time" and not math.isfinite(value):
            raise _wrong(where, name, value, "finite", "有限的数")
        return float(value)
    if int in types:
        if type(value) is not int or not 0 <= value < LARGEST:
            raise _wrong(where, name, value, "a whole number of at least 0", "不小于 0 的整数")
        return value
    if float in types:
        raise _wrong(where, name, value, "a number", "数")
    if not isinstance(value, tuple(t for t in types if isinstance(t, type))) and value not in types:
        names = {str: ("a text", "文本"), list: ("a list", "列表"), dict: ("an object", "对象")}
        en, zh = names.get(types[0], (" or ".join(map(str, types)), " 或 ".join(map(str, types))))
        raise _wrong(where, name, value, en, zh)
    return value


def _wrong(where: str, name: str, value: Any, en: str, zh: str) -> BadDataError:
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return _malformed(where, f"{name}={shown} must be {en}", f"{name}={shown} 必须是{zh}")


def _shape(kind: type) -> tuple[tuple[str, tuple[Any, ...], bool], ...]:
    """Name, allowed types and whether it is required, for each field of a record."""
    # JSON objects and lists; layers and loads are tuples by the time they are checked.
    containers: dict[Any, tuple[Any, ...]] = {Mapping: (dict,), tuple: (tuple,)}
    shape = []
    for each in fields(kind):
        types = get_args(each.type) or (each.type,)
        required = each.default is MISSING and each.default_factory is MISSING
        shape.append((each.name, containers.get(get_origin(each.type), types), required))
    return tuple(shape)


_SHAPES = {kind: _shape(kind) for kind in (*_KINDS.values(), MoeLayer)}
_TRAIN_NAMES = {name for name, _, _ in _SHAPES[Train]} - {"scalars"} | {"kind"}
