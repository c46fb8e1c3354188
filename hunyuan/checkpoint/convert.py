"""Convert a checkpoint of any readable format to another, streaming, and prove the result.

Converting includes quantising (`hunyuan.checkpoint.quantize`).

Peak memory is two leaves beside the program itself, whatever the size of the model: leaves are
read, written and dropped one by one, and the comparison at the end runs both sides block by block
(`streamed_logits`). Nothing appears under the target's name before all of it is right.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

from hunyuan.checkpoint.calibrate import importance
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint, read_json
from hunyuan.checkpoint.gguf_config import architecture_for
from hunyuan.checkpoint.hf_config import check_expressible
from hunyuan.checkpoint.leaves import Shape, expert_leaf, is_router, leaves
from hunyuan.checkpoint.load import tokenizer_of
from hunyuan.checkpoint.quantize import Scheme, block_types, read_quantized
from hunyuan.checkpoint.streamed import streamed_logits
from hunyuan.checkpoint.write import (
    StoredType,
    stored_shape,
    write_gguf_file,
    write_hf_folder,
    write_json,
)
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.files import atomic_file, atomic_folder, require_free_space, resumable_folder
from hunyuan.formats.expert_file import PROJECTIONS, ExpertFileWriter
from hunyuan.formats.gguf import GGMLType
from hunyuan.formats.safetensors_writer import tensor_bytes
from hunyuan.native.experts import expert_layout, extent_hash, pack_extent
from hunyuan.tokenizer.gguf_export import gguf_metadata
from hunyuan.tokenizer.save import save_tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
    "*.tiktoken",
    "LICENSE*",
    "NOTICE*",
)
"""What else of a folder belongs to the model; copied as it is, code never."""


_GGUF_FILE_TYPES = {"q8": 7, "q4": 15}
"""``general.file_type`` by scheme: what other engines show, mostly Q8_0 and Q4_K with a wider head.
"""

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Comparison:
    """How far the logits of two checkpoints lie apart on the same tokens."""

    max_difference: float
    mean_difference: float
    spread: float
    """Standard deviation of the source's logits, the scale of the differences."""
    same_argmax: float
    """Share of positions whose most likely token is the same."""
    lossless: bool
    """Whether the target's types hold every value of the source."""
    quantized: bool = False
    """Whether the target was quantised."""

    @property
    def passed(self) -> bool:
        """Lossless: equal but for the order of sums. Else: mean within 5 % of the spread.

        Quantised: within 80 % of it; logits of unrelated models differ by about 110 %.
        """
        if self.lossless:
            return self.max_difference <= 1e-4 * max(1.0, self.spread)
        return self.mean_difference <= (0.8 if self.quantized else 0.05) * self.spread


def convert(
    source: Path,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    quantize: Scheme | None = None,
    calibration: Path | None = None,
    experts_on_disk: bool = False,
    verify: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison | None:
    """Write ``source`` as a GGUF file (``target`` ends in .gguf) or a Hugging Face folder.

    ``dtype`` None keeps the stored float types and turns quantised tensors into bfloat16.
    ``quantize`` makes the matrices blocks, their errors weighted by what multiplies them
    (`hunyuan.checkpoint.calibrate`), over the text ``calibration`` too. ``experts_on_disk`` packs
    the routed experts, quantised, into a file that they can be run from
    (`hunyuan.formats.expert_file`); killed half-way, the same conversion goes on where it was.
    ``progress`` is called with parameters written and in all. With ``verify`` the logits are
    compared and returned, and a target that differs is not kept.

    Raises `UsageError` (target exists, text unreadable), `DoesNotFitError` (disk), `BadDataError`
    (source damaged, or not expressible in the target's format).
    """
    require_new(target)
    checkpoint = open_checkpoint(source)
    gguf = target.suffix.lower() == ".gguf"
    if experts_on_disk:
        _require_experts(checkpoint, target, quantize)
    if gguf:
        architecture_for(checkpoint.config)
    else:
        check_expressible(checkpoint.family, checkpoint.config)
    shapes = leaves(checkpoint.config)
    types: dict[str, StoredType] = {leaf: _target_dtype(checkpoint, leaf, dtype) for leaf in shapes}
    weights: Mapping[str, torch.Tensor] = {}
    if quantize is not None:
        types |= {leaf: torch.float32 for leaf in shapes if is_router(leaf)}
        types |= block_types(checkpoint.config, quantize)
        weights = importance(checkpoint, quantize, calibration)
    require_free_space(target, sum(_nbytes(shapes[leaf], kind) for leaf, kind in types.items()))
    total = checkpoint.config.total_parameters
    done = 0

    def read(leaf: str, kind: StoredType) -> torch.Tensor:
        nonlocal done
        if isinstance(kind, GGMLType):
            tensor = read_quantized(checkpoint, leaf, kind, weights.get(leaf))
        else:
            tensor = checkpoint.read(leaf, kind)
        done += prod(shapes[leaf])
        if progress is not None:
            progress(done, total)
        return tensor

    def compare(written: Path) -> Comparison | None:
        if not verify:
            return None
        lossless = all(
            kind in (checkpoint.stored_type(leaf), checkpoint.stored_dtype(leaf), torch.float32)
            for leaf, kind in types.items()
        )
        comparison = compare_logits(checkpoint, open_checkpoint(written), lossless)
        return require_equal(replace(comparison, quantized=quantize is not None))

    if gguf:
        metadata: dict[str, str | int] = {"general.name": source.stem}
        if quantize is not None:
            metadata["general.file_type"] = _GGUF_FILE_TYPES[quantize]
            metadata["general.quantization_version"] = 2
        if has_tokenizer(checkpoint):
            metadata |= gguf_metadata(tokenizer_of(checkpoint), rows=checkpoint.config.vocab)
        with atomic_file(target) as file:
            write_gguf_file(file, checkpoint.config, types, read, metadata)
            file.flush()
            return compare(Path(file.name))
    with resumable_folder(target) if experts_on_disk else atomic_folder(target) as folder:
        if experts_on_disk:
            source_text = f"{source.absolute()} {quantize} {calibration}"
            earlier = _write_experts(checkpoint, folder, types, read, source_text)
            done += earlier
            types = {leaf: kind for leaf, kind in types.items() if not expert_leaf(leaf)}
        write_hf_folder(folder, checkpoint.config, checkpoint.family, types, read)
        write_tokenizer(checkpoint, folder)
        keep_token_ids(checkpoint, folder / "config.json")
        return compare(folder)


def _require_experts(checkpoint: Checkpoint, target: Path, quantize: Scheme | None) -> None:
    if not checkpoint.config.experts or target.suffix.lower() == ".gguf":
        raise UsageError(
            f"{checkpoint.path}: experts on disk need a mixture of experts and a folder to write; "
            "leave --experts-on-disk away",
            f"{checkpoint.path}：从磁盘运行专家需要混合专家模型，且目标须为目录；"
            "请去掉 --experts-on-disk",
        )
    if quantize is None:
        raise UsageError(
            "--experts-on-disk: experts are stored quantised; add --quantize q4 or q8",
            "--experts-on-disk：专家以量化形式存储；请加上 --quantize q4 或 q8",
        )


def _write_experts(
    checkpoint: Checkpoint,
    folder: Path,
    types: Mapping[str, StoredType],
    read: Callable[[str, StoredType], torch.Tensor],
    source: str,
) -> int:
    """Write the file of experts; returns the parameters that an earlier run had written."""
    config = checkpoint.config
    kinds = [kind for kind in map(types.get, _expert_leaves(0, 0)) if isinstance(kind, GGMLType)]
    layout = expert_layout(config, (kinds[0], kinds[1], kinds[2]))
    extent = torch.empty(layout.length, dtype=torch.uint8)
    with ExpertFileWriter(folder, layout, source) as writer:
        before = len(writer.done)
        for layer in range(config.layers):
            for expert in range(config.experts):
                if (layer, expert) in writer.done:
                    continue
                gate, up, down = (read(leaf, types[leaf]) for leaf in _expert_leaves(layer, expert))
                pack_extent(layout, gate, up, down, extent)
                writer.append(layer, expert, tensor_bytes(extent), extent_hash(extent))
        writer.finish()
    return before * 3 * config.hidden * config.ffn


def _expert_leaves(layer: int, expert: int) -> list[str]:
    return [f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight" for name in PROJECTIONS]


def compare_logits(source: Checkpoint, target: Checkpoint, lossless: bool) -> Comparison:
    """Logits of both on 16 fixed tokens, streamed in float32."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(source.config.vocab, (1, 16), generator=generator)
    expected, found = streamed_logits(source, ids), streamed_logits(target, ids)
    difference = (expected - found).abs()
    return Comparison(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        spread=float(expected.std()),
        same_argmax=float((expected.argmax(-1) == found.argmax(-1)).float().mean()),
        lossless=lossless,
    )


def require_equal(comparison: Comparison) -> Comparison:
    """Raise `HunyuanError` unless the comparison passed."""
    if not comparison.passed:
        raise HunyuanError(
            f"the converted model differs: logits by up to {comparison.max_difference:.3g}, mean "
            f"{comparison.mean_difference:.3g} at a spread of {comparison.spread:.3g}; it was not "
            "kept; choose a wider type",
            f"转换后的模型不一致：logits 最大相差 {comparison.max_difference:.3g}，平均 "
            f"{comparison.mean_difference:.3g}（标准差 {comparison.spread:.3g}）；结果未保留；"
            "请选择更宽的类型",
        )
    return comparison


def _target_dtype(checkpoint: Checkpoint, leaf: str, asked: torch.dtype | None) -> torch.dtype:
    return asked or checkpoint.stored_dtype(leaf) or torch.bfloat16


def _nbytes(shape: Shape, kind: StoredType) -> int:
    stored, dtype = stored_shape(shape, kind)
    return prod(stored) * dtype.itemsize


def require_new(target: Path) -> None:
    """Raise `UsageError` if a file or a folder with something in it has this name."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UsageError(
            f"{target}: exists already; choose another name or remove it",
            f"{target}：已存在；请换一个名称或先删除",
        )


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Weights may come without a tokenizer; a damaged one is an error all the same."""
    if checkpoint.gguf is not None:
        return "tokenizer.ggml.tokens" in checkpoint.gguf.metadata
    names = ("tokenizer.json", "vocab.json", "tokenizer.model", "*.tiktoken")
    return any(any(checkpoint.path.glob(name)) for name in names)


def write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the tokenizer of a folder, or write that of a GGUF file, if there is one."""
    if checkpoint.gguf is None:
        for pattern in TOKENIZER_FILES:
            for path in checkpoint.path.glob(pattern):
                shutil.copyfile(path, folder / path.name)
    elif has_tokenizer(checkpoint):
        save_tokenizer(tokenizer_of(checkpoint), folder)


def keep_token_ids(checkpoint: Checkpoint, config: Path) -> None:
    """Other engines stop at the ids in config.json; a folder's own are carried over."""
    if checkpoint.gguf is None:
        raw = read_json(checkpoint.path / "config.json")
        ids = {key: value for key, value in raw.items() if key in TOKEN_IDS}
        write_json(config, read_json(config) | ids)
