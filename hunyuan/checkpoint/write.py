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
from hunyuan.checkpoint.hf_config import FamilyName, write_block_types, write_hf_config
from hunyuan.checkpoint.leaves import Shape, is_router, leaves
from hunyuan.checkpoint.pieces import by_stored_tensor, gguf_piece, gguf_stored_layout, hf_name
from hunyuan.formats.ggml import FLOATS, encode
from hunyuan.formats.gguf import BLOCK, GGMLType, GGUFTensorSpec, write_gguf
from hunyuan.formats.safetensors_writer import (
    DTYPE_NAMES,
    SafetensorsSpec,
    tensor_bytes,
    write_safetensors,
)
from hunyuan.model.config import ModelConfig

StoredType = torch.dtype | GGMLType
"""How a leaf is written: as plain numbers, or as ggml's blocks."""

ReadLeaf = Callable[[str, StoredType], Tensor]
"""Reads one leaf as numbers, or as blocks: (rows, bytes of a row) uint8."""

SHARD_BYTES = 5_000_000_000


def stored_shape(shape: Shape, kind: StoredType) -> tuple[Shape, torch.dtype]:
    """What a leaf is on disk: itself, or the bytes of its blocks."""
    if not isinstance(kind, GGMLType):
        return shape, kind
    per_block, size = BLOCK[kind]
    rows, columns = shape
    return (rows, columns // per_block * size), torch.uint8


def write_hf_folder(
    folder: Path,
    config: ModelConfig,
    family: FamilyName,
    types: Mapping[str, StoredType],
    read: ReadLeaf,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and safetensors, sharded with an index above ``shard_bytes``.

    ``types`` says for every leaf that is written how; blocks become U8, which other engines do not
    read. Raises `BadDataError` if ``family`` cannot express ``config``.
    """
    blocks = {leaf: kind for leaf, kind in types.items() if isinstance(kind, GGMLType)}
    floats = [kind for leaf, kind in types.items() if leaf not in blocks]
    commonest = max(floats, key=floats.count)
    raw = write_hf_config(family, config, str(commonest).removeprefix("torch."))
    if blocks:
        named = {hf_name(leaf, family): kind for leaf, kind in blocks.items()}
        raw["quantization_config"] = write_block_types(named)
    write_json(folder / "config.json", raw)
    stored = {
        leaf: stored_shape(shape, types[leaf])
        for leaf, shape in leaves(config).items()
        if leaf in types
    }
    sizes = {leaf: prod(shape) * dtype.itemsize for leaf, (shape, dtype) in stored.items()}
    shards = _shards(sizes, shard_bytes)
    names = [
        "model.safetensors"
        if len(shards) == 1
        else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        for i in range(len(shards))
    ]
    index: dict[str, str] = {}
    for file_name, shard in zip(names, shards, strict=True):
        # Wider types first keeps every tensor aligned, so that it can be mapped in place.
        ordered = sorted(shard, key=lambda leaf: -stored[leaf][1].itemsize)
        specs = [
            SafetensorsSpec(
                hf_name(leaf, family),
                DTYPE_NAMES[stored[leaf][1]],
                stored[leaf][0],
                _bytes_of(leaf, types[leaf], read),
            )
            for leaf in ordered
        ]
        with (folder / file_name).open("wb") as file:
            write_safetensors(file, specs, {"format": "pt"})
        index |= {hf_name(leaf, family): file_name for leaf in shard}
    if len(shards) > 1:
        write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index},
        )


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for leaf, nbytes in sizes.items():
        if shards[-1] and size + nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(leaf)
        size += nbytes
    return shards


def _bytes_of(leaf: str, kind: StoredType, read: ReadLeaf) -> Iterator[memoryview]:
    yield tensor_bytes(read(leaf, kind).contiguous())


def write_gguf_file(
    file: BinaryIO,
    config: ModelConfig,
    types: Mapping[str, StoredType],
    read: ReadLeaf,
    metadata: Mapping[str, Any],
) -> None:
    """Write a GGUF file; ``metadata`` adds the tokenizer's keys and whatever else is known.

    The experts that GGUF stacks must have one type. Vectors and the router are stored as F32, as
    every GGUF engine expects. Raises `BadDataError` if no GGUF architecture computes ``config``.
    """
    architecture = architecture_for(config)
    shapes = leaves(config)
    kinds = {dtype: kind for kind, dtype in FLOATS.items()}
    pieces = {leaf: gguf_piece(leaf, architecture, config) for leaf in shapes}
    specs = []
    for name, members in by_stored_tensor(pieces):
        shape = shapes[members[0]]
        exact = len(shape) == 1 or is_router(members[0])
        wanted = torch.float32 if exact else types[members[0]]
        kind = wanted if isinstance(wanted, GGMLType) else kinds[wanted]
        if pieces[members[0]].expert is not None:
            shape = (len(members), *shape)
        layouts = [gguf_stored_layout(leaf, architecture, config) for leaf in members]

        def chunks(
            members: list[str] = members,
            layouts: list[Callable[[Tensor], Tensor] | None] = layouts,
            wanted: StoredType = wanted,
            kind: GGMLType = kind,
        ) -> Iterator[memoryview]:
            for leaf, layout in zip(members, layouts, strict=True):
                tensor = read(leaf, wanted)
                if layout is not None:  # moves whole rows: bytes as well as numbers
                    tensor = layout(tensor)
                yield encode(tensor, kind) if kind in FLOATS else tensor_bytes(tensor.contiguous())

        specs.append(GGUFTensorSpec(name, shape, kind, chunks()))
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
