"""Floats to ggml blocks with searched scales: the compiled quantiser, on all cores.

`src/quantize.cpp` says how the scales are found. Cost: 30 to 80 ns per weight and core.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.native.library import library

# Weights per task: long enough that starting it costs nothing, short enough to share evenly.
_TASK_ELEMENTS = 1 << 17


def quantize(x: Tensor, type: GGMLType, importance: Tensor | None = None) -> Tensor:
    """Float32 (rows, columns) -> blocks as files store them: uint8 (rows, bytes of a row).

    Minimises the sum of ``importance`` (columns,) float32 times squared error; without it all
    columns count the same. Raises `ValueError` if ``x`` holds a number that is not finite or too
    large for a half precision scale. Needs the compiled library (`unavailable`).
    """
    per_block, size = BLOCK[type]
    rows, columns = x.shape
    assert per_block > 1, f"{type.name} is not quantised"
    assert columns % per_block == 0, f"rows of {columns} in blocks of {per_block}"
    assert x.dtype == torch.float32
    x = x.contiguous()
    if importance is not None:
        assert importance.shape == (columns,)
        assert importance.dtype == torch.float32
        importance = importance.contiguous()
    weights = None if importance is None else importance.data_ptr()
    row_bytes = columns // per_block * size
    out = torch.empty(rows, row_bytes, dtype=torch.uint8)
    kernels = library()
    step = max(1, _TASK_ELEMENTS // columns)

    def part(start: int) -> int:
        place = x.data_ptr() + start * columns * 4, out.data_ptr() + start * row_bytes
        count = min(step, rows - start)
        return int(kernels.hy_quantize(type, count, columns, place[0], weights, place[1]))

    starts = range(0, rows, step)
    if len(starts) == 1:
        results = [part(0)]
    else:  # the calls release the interpreter
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            results = list(pool.map(part, starts))
    if -1 in results:
        raise MemoryError("no memory to quantise a row")
    if any(results):
        raise ValueError("a weight is not finite or too large")
    return out
