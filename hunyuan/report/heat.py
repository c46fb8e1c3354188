"""The load of experts over time as one byte per cell, small enough for a page.

A code of 0 is an expert without a single token; 1 to 255 are the load's logarithm to base 2 in
equal steps from 2**-6 to 2**6, ends included, so that the even share 1 is exactly code 128 and a
step is 3.3 %. Long runs are cut into columns, each the mean of its lines: tokens are counted, and
counts add up. An expert is dead in a column only if it was dead in every line of it.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hunyuan.report.run import Experts

OCTAVES = 6
COLUMNS = 240
"""Most columns of one map; it is drawn about as many pixels wide."""
LEAST_COLUMNS = 12


def encode(load: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Loads as codes."""
    with np.errstate(divide="ignore"):
        octaves = np.clip(np.log2(load.astype(np.float64)), -OCTAVES, OCTAVES)
    codes = 128 + np.rint(octaves * 127 / OCTAVES)
    return np.where(load > 0, codes, 0).astype(np.uint8)


def decode(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Codes as loads; the page does the same."""
    load = 2.0 ** ((codes.astype(np.float64) - 128) * OCTAVES / 127)
    return np.where(codes > 0, load, 0.0)


def columns_of(experts: Experts, cells: int) -> list[NDArray[np.intp]]:
    """The lines that make up each column of a map that may hold ``cells`` cells."""
    lines, layers, width = experts.load.shape
    count = min(lines, COLUMNS, max(cells // (layers * width), LEAST_COLUMNS))
    return np.array_split(np.arange(lines), count)


def heat_map(experts: Experts, cells: int) -> Mapping[str, Any]:
    """Plain data for the page: codes by layer, expert and column, and where each column ends."""
    columns = columns_of(experts, cells)
    means = np.stack([experts.load[lines].mean(0) for lines in columns])
    ends = [int(lines[-1]) for lines in columns]
    codes = encode(means.transpose(1, 2, 0))
    return {
        "codes": base64.b64encode(codes.tobytes()).decode("ascii"),
        "columns": len(columns),
        "experts": experts.load.shape[2],
        "layers": list(experts.layers),
        "step": [int(experts.at.steps[i]) for i in ends],
        "tokens": [int(experts.at.tokens[i]) for i in ends],
        "seconds": [round(float(experts.at.seconds[i]), 1) for i in ends],
        "first_step": int(experts.at.steps[0]),
        "final": [[float(f"{x:.3g}") for x in row] for row in experts.load[-1].tolist()],
    }
