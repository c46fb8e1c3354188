"""Adapters on disk, in PEFT's format; adapters made by PEFT are read.

    adapter_config.json           rank, alpha, a pattern of the modules, where the base lay
    adapter_model.safetensors     base_model.model.<module>.lora_A.weight and .lora_B.weight
    hunyuan_lora.json             fingerprint of the base; absent in other tools' adapters

Experts' adapters are stored one by one under the names of the experts' own weights,
``...mlp.experts.3.gate_proj.lora_A.weight``. The fingerprint is a hash of configuration, names,
shapes and the values of all norms: it survives a change of format or to a wider number type, and
tells two trainings of one shape apart as long as norms were trained. An adapter for another base
is refused.

`merge` adds alpha / rank * B A to the stored weights leaf by leaf, in the memory of about two
tensors.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint, read_json
from hunyuan.checkpoint.convert import keep_token_ids, require_new, write_tokenizer
from hunyuan.checkpoint.hf_config import FamilyName, check_expressible
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.checkpoint.pieces import hf_name
from hunyuan.checkpoint.write import StoredType, write_hf_folder, write_json
from hunyuan.errors import BadDataError, UsageError
from hunyuan.files import atomic_folder, require_free_space
from hunyuan.formats.gguf import GGMLType
from hunyuan.formats.safetensors_writer import SafetensorsSpec, tensor_bytes, write_safetensors
from hunyuan.model.config import ModelConfig
from hunyuan.model.transformer import Transformer
from hunyuan.train.lora import LoraExpertBank, LoraLinear, adapt, group_of, wanted
from hunyuan.train.lora_settings import LoraConfig

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BASE = "hunyuan_lora.json"

_PREFIX = "base_model.model."


def fingerprint(source: Checkpoint | Transformer) -> str:
    """A sha256 of configuration, names, shapes and norms of a checkpoint or a loaded model."""
    shapes = leaves(source.config)
    digest = hashlib.sha256(json.dumps([_facts(source.config), list(shapes.items())]).encode())
    for leaf, shape in shapes.items():
        if len(shape) == 1 and group_of(leaf) == "norms":
            norm = (
                source.read(leaf) if isinstance(source, Checkpoint) else source.get_parameter(leaf)
            )
            digest.update(tensor_bytes(norm.detach().float().cpu().contiguous()))
    return digest.hexdigest()


def _facts(config: ModelConfig) -> dict[str, Any]:
    """What the function depends on, in digits that every format keeps (GGUF has float32)."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(entry) for key, entry in value.items()}
        return f"{value:.6g}" if isinstance(value, float) else value

    facts: dict[str, Any] = rounded(asdict(config))
    for name in ("routing", "init_std"):  # of training only
        del facts[name]
    return facts


# ---------------------------------------------------------------- saving


def save_lora(model: Transformer, config: LoraConfig, base: Checkpoint, folder: Path) -> None:
    """Write the adapters of ``model`` as a new folder; ``base`` is what it was loaded from."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    require_new(folder)
    with atomic_folder(folder) as aside:
        write_adapter(aside, weights, config, base)


def write_adapter(
    folder: Path, weights: Mapping[str, Tensor], config: LoraConfig, base: Checkpoint
) -> None:
    """Write adapter files into ``folder`` from the trained tensors by parameter name."""
    specs = []
    for name, tensor in _stored_adapters(weights, base.family):
        tensor = tensor.detach().float().cpu().contiguous()
        specs.append(SafetensorsSpec(name, "F32", tuple(tensor.shape), [tensor_bytes(tensor)]))
    with (folder / WEIGHTS).open("wb") as file:
        write_safetensors(file, specs, {"format": "pt"})
    path = str(base.path.absolute())
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": path,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "target_modules": _pattern(base, config),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "modules_to_save": None,
            "use_rslora": False,
            "use_dora": False,
        },
    )
    write_json(folder / BASE, {"base": path, "base_sha256": fingerprint(base)})


def _stored_adapters(
    weights: Mapping[str, Tensor], family: FamilyName
) -> Iterable[tuple[str, Tensor]]:
    """Names as PEFT gives them; stacked experts one by one."""
    for name, tensor in weights.items():
        module, _, last = name.rpartition(".")
        if last in ("lora_A", "lora_B"):
            yield _adapter_name(f"{module}.weight", last, family), tensor
            continue
        bank, _, matrix = module.rpartition(".")
        assert matrix in ("lora_A", "lora_B"), f"{name} is no adapter"
        for expert, part in enumerate(tensor):
            yield _adapter_name(f"{bank}.{expert}.{last}.weight", matrix, family), part


def _adapter_name(leaf: str, matrix: str, family: FamilyName) -> str:
    return f"{_PREFIX}{hf_name(leaf, family).removesuffix('.weight')}.{matrix}.weight"


def _pattern(base: Checkpoint, config: LoraConfig) -> str:
    """A regular expression of the adapted modules: layers and experts are runs of digits."""
    found: dict[str, None] = {}
    for leaf in leaves(base.config):
        if wanted(leaf, config):
            module = hf_name(leaf, base.family).removesuffix(".weight")
            parts = [r"\d+" if part.isdigit() else part for part in module.split(".")]
            found[r"\.".join(parts)] = None
    return "|".join(found)


# ---------------------------------------------------------------- reading


class Adapter:
    """An adapter folder, opened and checked; its tensors are read on request."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """``config`` is that of the base; `BadDataError` says what does not belong to it."""
        self.folder = folder
        if not (folder / CONFIG).exists():
            raise BadDataError(
                f"{folder / CONFIG}: no such file; give an adapter folder",
                f"{folder / CONFIG}：文件不存在；请指定适配器目录",
            )
        raw = read_json(folder / CONFIG)
        self.rank: int = _positive(raw, "r", folder, int)
        self.alpha = float(_positive(raw, "lora_alpha", folder, (int, float)))
        dropout = raw.get("lora_dropout") or 0.0
        self.dropout = float(dropout) if isinstance(dropout, int | float) else 0.0
        _refuse_variants(raw, folder)
        own = folder / BASE
        self.base = read_json(own) if own.exists() else {}
        self._stored = self._find(config)

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / float(self.rank)

    @property
    def leaves(self) -> Collection[str]:
        """The adapted leaves, in the order of a forward pass."""
        return self._stored.keys()

    def read(self, leaf: str) -> tuple[Tensor, Tensor]:
        """A (rank, in) and B (out, rank) of a leaf, float32."""
        with _opened(self.folder / WEIGHTS) as file:
            a, b = (file.get_tensor(name).float() for name in self._stored[leaf])
        for matrix in (a, b):
            if not bool(matrix.isfinite().all()):
                raise BadDataError(
                    f"{self.folder}: the adapter of {leaf} holds a number that is not finite; "
                    "use an earlier one",
                    f"{self.folder}：{leaf} 的适配器含有非有限数；请使用更早的适配器",
                )
        return a, b

    def delta(self, leaf: str) -> Tensor:
        """What is added to a leaf, float32."""
        a, b = self.read(leaf)
        delta: Tensor = self.scale * (b @ a)
        return delta

    def require_base(self, found: str, path: str) -> None:
        """Refuse a base (fingerprint, and where it lies) other than the adapter's own."""
        own = self.base.get("base_sha256")
        if own is None or own == found:
            return
        made_for = self.base.get("base")
        raise BadDataError(
            f"{self.folder}: made for the model {made_for} (sha256 {str(own)[:12]}), not for "
            f"{path} (sha256 {found[:12]}); give the model it was made for",
            f"{self.folder}：该适配器属于模型 {made_for}（sha256 {str(own)[:12]}），"
            f"而不是 {path}（sha256 {found[:12]}）；请使用其所属的模型",
        )

    def _find(self, config: ModelConfig) -> dict[str, tuple[str, str]]:
        """Names of A and B by leaf; every stored tensor must belong to the base."""
        shapes = leaves(config)
        with _opened(self.folder / WEIGHTS) as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        names: dict[str, tuple[str, str]] = {}
        families: tuple[FamilyName, ...] = ("hunyuan", "mixtral")  # all others use the first's
        for leaf, shape in shapes.items():
            if len(shape) != 2 or not leaf.startswith("model.layers."):
                continue
            for family in families:
                pair = (
                    _adapter_name(leaf, "lora_A", family),
                    _adapter_name(leaf, "lora_B", family),
                )
                present = [name for name in pair if name in stored]
                if len(present) == 1:
                    raise self._damaged(pair[0] if pair[0] not in stored else pair[1], "missing")
                if present:
                    names[leaf] = pair
        known = {name for pair in names.values() for name in pair}
        if strange := sorted(stored.keys() - known):
            raise BadDataError(
                f"{self.folder}: {len(strange)} tensors belong to no matrix of this model, first "
                f"{strange[0]}; give the model it was made for",
                f"{self.folder}：有 {len(strange)} 个张量不属于该模型的任何矩阵，如 "
                f"{strange[0]}；请使用其所属的模型",
            )
        for leaf, (a, b) in names.items():
            rows, columns = shapes[leaf]
            for name, shape in ((a, (self.rank, columns)), (b, (rows, self.rank))):
                if stored[name] != shape:
                    raise self._damaged(name, f"{list(stored[name])}, {list(shape)} expected")
        return names

    def _damaged(self, name: str, what: str) -> BadDataError:
        return BadDataError(
            f"{self.folder}: tensor {name}: {what}; the adapter is damaged or of another model",
            f"{self.folder}：张量 {name}：{what}；适配器已损坏或属于其他模型",
        )


def _positive(raw: Mapping[str, Any], key: str, folder: Path, kind: Any) -> Any:
    value = raw.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < 1e6:
        raise BadDataError(
            f"{folder / CONFIG}: {key}={value!r} must be a number above 0; correct it",
            f"{folder / CONFIG}：{key}={value!r} 必须是大于 0 的数字；请更正",
        )
    return value


def _refuse_variants(raw: Mapping[str, Any], folder: Path) -> None:
    """PEFT's other methods and variants compute something else."""
    plain: dict[str, tuple[Any, ...]] = {
        "peft_type": ("LORA",),
        "bias": ("none", None),
        "use_rslora": (False, None),
        "use_dora": (False, None),
        "fan_in_fan_out": (False, None),
        "rank_pattern": ({}, None),
        "alpha_pattern": ({}, None),
        "modules_to_save": ([], None),
    }
    for key, allowed in plain.items():
        if raw.get(key) not in allowed:
            raise BadDataError(
                f"{folder / CONFIG}: {key}={raw.get(key)!r} is not supported; plain LoRA is",
                f"{folder / CONFIG}：不支持 {key}={raw.get(key)!r}；仅支持普通 LoRA",
            )


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise BadDataError(
            f"{path}: not a whole safetensors file ({error}); give an adapter folder",
            f"{path}：不是完整的 safetensors 文件（{error}）；请指定适配器目录",
        ) from error


def load_lora(model: Transformer, folder: Path) -> list[str]:
    """Put a saved adapter on ``model``, frozen but for it; returns the trained tensors' names.

    Raises `BadDataError` if the adapter is damaged or was made for another model.
    """
    adapter = Adapter(folder, model.config)
    adapter.require_base(fingerprint(model), "the loaded model")
    for bank, experts in _experts_of(adapter.leaves).items():
        if len(experts) != model.config.experts:
            absent = next(e for e in range(model.config.experts) if e not in experts)
            raise BadDataError(
                f"{folder}: {bank}: expert {absent} has no adapter; all of a layer or none",
                f"{folder}：{bank}：专家 {absent} 没有适配器；同层专家须全部具备或全部没有",
            )
    matrices = {leaf: adapter.read(leaf) for leaf in adapter.leaves}  # before the model changes
    adapt(model, matrices, adapter.rank, adapter.scale, adapter.dropout, None)
    with torch.no_grad():
        for leaf, pair in matrices.items():
            for place, values in zip(_places(model, leaf), pair, strict=True):
                place.copy_(values)
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def _experts_of(adapted: Iterable[str]) -> dict[str, set[int]]:
    """Experts that have an adapter, by bank and matrix."""
    found: dict[str, set[int]] = {}
    for leaf in adapted:
        if part := expert_leaf(leaf):
            found.setdefault(f"{part.bank}.{part.projection}", set()).add(part.expert)
    return found


def _places(model: Transformer, leaf: str) -> tuple[Tensor, Tensor]:
    """A and B of a leaf in an adapted model."""
    if part := expert_leaf(leaf):
        bank = model.get_submodule(part.bank)
        assert isinstance(bank, LoraExpertBank)
        return (
            bank.lora_A[part.projection][part.expert],
            bank.lora_B[part.projection][part.expert],
        )
    module = model.get_submodule(leaf.removesuffix(".weight"))
    assert isinstance(module, LoraLinear)
    return module.lora_A, module.lora_B


# ---------------------------------------------------------------- merging


def merged_leaf(base: Checkpoint, adapter: Adapter, leaf: str, dtype: torch.dtype) -> Tensor:
    """A leaf with its adapter worked in, computed in float32."""
    if leaf not in adapter.leaves:
        return base.read(leaf, dtype)
    merged = (base.read(leaf) + adapter.delta(leaf)).to(dtype)
    if not bool(merged.isfinite().all()):
        raise UsageError(
            f"{leaf}: the merged weights do not fit in {str(dtype).removeprefix('torch.')}; choose "
            "bfloat16 or float32",
            f"{leaf}：合并后的权重超出 {str(dtype).removeprefix('torch.')} 的范围；"
            "请选择 bfloat16 或 float32",
        )
    return merged


def merge(
    base: Path,
    adapter: Path,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelConfig:
    """Write ``base`` with ``adapter`` worked in as the Hugging Face folder ``target``.

    ``dtype`` None keeps the stored float types and turns quantised tensors into bfloat16. Raises
    `UsageError` (target exists), `DoesNotFitError` (disk), `BadDataError` (damaged, or the adapter
    was made for another model).
    """
    require_new(target)
    checkpoint = open_checkpoint(base)
    check_expressible(checkpoint.family, checkpoint.config)
    opened = Adapter(adapter, checkpoint.config)
    opened.require_base(fingerprint(checkpoint), str(base))
    shapes = leaves(checkpoint.config)
    types: dict[str, StoredType] = {
        leaf: dtype or checkpoint.stored_dtype(leaf) or torch.bfloat16 for leaf in shapes
    }
    kinds = [kind for kind in types.values() if isinstance(kind, torch.dtype)]
    sizes = zip(shapes.values(), kinds, strict=True)
    require_free_space(target, sum(prod(shape) * kind.itemsize for shape, kind in sizes))
    total, done = checkpoint.config.total_parameters, 0

    def read(leaf: str, kind: StoredType) -> Tensor:
        nonlocal done
        assert not isinstance(kind, GGMLType)
        tensor = merged_leaf(checkpoint, opened, leaf, kind)
        done += prod(shapes[leaf])
        if progress is not None:
            progress(done, total)
        return tensor

    with atomic_folder(target) as folder:
        write_hf_folder(folder, checkpoint.config, checkpoint.family, types, read)
        write_tokenizer(checkpoint, folder)
        keep_token_ids(checkpoint, folder / "config.json")
    return checkpoint.config
