"""What a model was trained on, kept in its folder: sources, files, and benchmarks looked for.

``training_data.json`` is a list of stages, those of the model that training began with first, so
that whoever evaluates the model can tell which benchmarks its data were cleaned of:

    {"task": "pretrain", "data": "tokens", "sha256": ..., "sources": ["web", "books"],
     "decontamination": {"mmlu": {"place": "bench/mmlu", "passages": 81234, "removed": 17}}}

``decontamination`` is null where the data were not searched for any benchmark.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hunyuan.catalogue.store import locate
from hunyuan.data.report import REPORT
from hunyuan.data.shards import MANIFEST, TokenSet
from hunyuan.train.recipe import Recipe
from hunyuan.train.saving import WriteModel

TRAINING_DATA = "training_data.json"

Stage = dict[str, Any]


def stages(folder: Path) -> list[Stage]:
    """The stages that a model's folder tells of; none for a model from elsewhere."""
    try:
        found = json.loads((folder / TRAINING_DATA).read_bytes())
    except (OSError, ValueError):
        return []
    return [stage for stage in found if isinstance(stage, dict)] if isinstance(found, list) else []


def with_training_data(write: WriteModel, recipe: Recipe, tokens: TokenSet | None) -> WriteModel:
    """``write``, followed by `TRAINING_DATA` of this run and of the model it began with."""
    earlier = stages(locate(recipe.model.base)) if recipe.model.base is not None else []
    text = json.dumps([*earlier, _stage(recipe, tokens)], ensure_ascii=False, indent=1)

    def write_both(folder: Path, weights: Mapping[str, Tensor]) -> None:
        write(folder, weights)
        (folder / TRAINING_DATA).write_text(text + "\n", encoding="utf-8")

    return write_both


def _stage(recipe: Recipe, tokens: TokenSet | None) -> Stage:
    if tokens is None:
        files = recipe.data.files
        return {
            "task": recipe.task,
            "data": ", ".join(path.name for path in files),
            "sha256": _sha256(*files),
            "sources": [path.name for path in files],
            "decontamination": None,
        }
    mixture = [part.source for part in recipe.data.mixture]
    return {
        "task": recipe.task,
        "data": tokens.folder.name,
        "sha256": _sha256(tokens.folder / MANIFEST),
        "sources": mixture or list(tokens.sources("train")),
        "decontamination": _searched(tokens.folder / REPORT),
    }


def _searched(path: Path) -> dict[str, Any] | None:
    """The benchmarks a set was searched for; a set that was made otherwise has no report."""
    try:
        report = json.loads(path.read_bytes())
        places = report["recipe"]["decontamination"]["benchmarks"]
        found = report["benchmarks"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return {name: {"place": places.get(name), **counts} for name, counts in found.items()} or None


def _sha256(*paths: Path) -> str:
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
