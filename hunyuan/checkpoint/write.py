"""Writing models: a Hugging Face folder or a GGUF file, streamed leaf by leaf.

Both writers are given a function that reads one leaf and never hold more than that. They write
into the path they are given; writing aside and renaming is the caller's (`hunyuan.files`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from hunyuan.checkpoint.gguf_config import (
    ROPE_FACTORS,
    architecture_for,
    rope_factors,
    write_gguf_config,
)
from hunyuan.checkpoint.hf_config import FamilyName, write_hf_config
from hunyuan.checkpoint.leaves import Shape, leaves
from hunyuan.checkpoint.pieces import by_stored_tensor, gguf_piece, gguf_stored_layout, hf_name
from hunyuan.formats.ggml import FLOATS, encode
from hunyuan.formats.gguf import GGUFTensorSpec, write_gguf
from hunyuan.formats.safetensors_writer import (
    DTYPE_NAMES,
    SafetensorsSpec,
    tensor_bytes,
    write_safetensors,
)
from hunyuan.model.config import ModelConfig

ReadLeaf = Callable[[str, torch.dtype], Tensor]
"""Reads one leaf in a given float type."""

SHARD_BYTES = 5_000_000_000


def write_hf_folder(
    folder: Path,
    config: ModelConfig,
    family: FamilyName,
    dtypes: Mapping[str, torch.dtype],
    read: ReadLeaf,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and safetensors, sharded with an index above ``shard_bytes``.

    ``dtypes`` says for every leaf in which type it is stored. Raises `BadDataError` if ``family``
    cannot express ``config``.
    """
    widest = max(dtypes.values(), key=lambda d: sum(d == x for x in dtypes.values()))
    raw = write_hf_config(family, config, str(widest).removeprefix("torch."))
    write_json(folder / "config.json", raw)
    shapes = leaves(config)
    shards = _shards(shapes, dtypes, shard_bytes)
    names = [
        "model.safetensors"
        if len(shards) == 1
        else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        for i in range(len(shards))
    ]
    index: dict[str, str] = {}
    for file_name, shard in zip(names, shards, strict=True):
        # Wider types first keeps every tensor aligned, so that it can be mapped in place.
        ordered = sorted(shard, key=lambda leaf: -dtypes[leaf].itemsize)
        specs = [
            SafetensorsSpec(
                hf_name(leaf, family),
                DTYPE_NAMES[dtypes[leaf]],
                shapes[leaf],
                _bytes_of(leaf, dtypes[leaf], read),
            )
            for leaf in ordered
        ]
        with (folder / file_name).open("wb") as file:
            write_safetensors(file, specs, {"format": "pt"})
        index |= {hf_name(leaf, family): file_name for leaf in shard}
    if len(shards) > 1:
        total = sum(_nbytes(shapes[leaf], dtypes[leaf]) for leaf in shapes)
        write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": index},
        )


def _shards(
    shapes: Mapping[str, Shape], dtypes: Mapping[str, torch.dtype], limit: int
) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for leaf, shape in shapes.items():
        nbytes = _nbytes(shape, dtypes[leaf])
        if shards[-1] and size + nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(leaf)
        size += nbytes
    return shards


def _nbytes(shape: Shape, dtype: torch.dtype) -> int:
    return prod(shape) * dtype.itemsize


def _bytes_of(leaf: str, dtype: torch.dtype, read: ReadLeaf) -> Iterator[memoryview]:
    yield tensor_bytes(read(leaf, dtype).contiguous())


def write_gguf_file(
    file: BinaryIO,
    config: ModelConfig,
    dtypes: Mapping[str, torch.dtype],
    read: ReadLeaf,
    metadata: Mapping[str, Any],
) -> None:
    """Write a GGUF file; ``metadata`` adds the tokenizer's keys and whatever else is known.

    Vectors and the router are stored as F32, as every GGUF engine expects. Raises `BadDataError`
    if no GGUF architecture computes ``config``.
    """
    architecture = architecture_for(config)
    shapes = leaves(config)
    kinds = {dtype: kind for kind, dtype in FLOATS.items()}
    pieces = {leaf: gguf_piece(leaf, architecture, config) for leaf in shapes}
    specs = []
    for name, members in by_stored_tensor(pieces):
        shape = shapes[members[0]]
        exact = len(shape) == 1 or members[0].endswith(".gate.wg.weight")
        dtype = torch.float32 if exact else dtypes[members[0]]
        if pieces[members[0]].expert is not None:
            shape = (len(members), *shape)
        layouts = [gguf_stored_layout(leaf, architecture, config) for leaf in members]

        def chunks(
            members: list[str] = members,
            layouts: list[Callable[[Tensor], Tensor] | None] = layouts,
            dtype: torch.dtype = dtype,
        ) -> Iterator[memoryview]:
            for leaf, layout in zip(members, layouts, strict=True):
                tensor = read(leaf, dtype)
                yield encode(tensor if layout is None else layout(tensor), kinds[dtype])

        specs.append(GGUFTensorSpec(name, shape, kinds[dtype], chunks()))
    if config.rope.llama3 is not None:
        factors = rope_factors(config.rope, config.head_dim)
        kind = kinds[torch.float32]
        specs.append(
            GGUFTensorSpec(ROPE_FACTORS, tuple(factors.shape), kind, [tensor_bytes(factors)])
        )
    write_gguf(file, write_gguf_config(config) | dict(metadata), specs)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file as people read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
