"""Evaluations: folders that `hunyuan eval` wrote below the folders the workbench shows.

One is found by listing; its id says nothing of the file system, and a request names ids only. What
is shown of it is what its report page shows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from hunyuan.errors import HunyuanError
from hunyuan.evaluate.page import page_data
from hunyuan.evaluate.run_folder import EvaluationRun
from hunyuan.evaluate.suites import benchmarks
from hunyuan.workbench.refusal import RefusedError, not_found
from hunyuan.workbench.streaming import WorkbenchRoute

MOST_EVALUATIONS = 200
_RESULTS = "results.json"


@dataclass(frozen=True)
class EvaluationFolder:
    """An evaluation as the listing found it."""

    id: str
    name: str
    """Path below the folder it was found in."""

    path: Path
    updated: float


def evaluation_folders(roots: Sequence[Path | None]) -> list[EvaluationFolder]:
    """The evaluations of some folders, at any depth, the last written first."""
    found: dict[Path, EvaluationFolder] = {}
    for root in roots:
        if root is None or not root.is_dir():
            continue
        for file in root.rglob(_RESULTS):
            place = file.resolve()
            # A link could lead anywhere.
            inside = not file.is_symlink() and place.is_relative_to(root.resolve())
            if not inside or not (file.parent / "run.json").is_file() or place in found:
                continue
            name = file.parent.relative_to(root).as_posix()
            name = root.name if name == "." else name
            key = hashlib.sha256(f"{root.name}/{name}".encode()).hexdigest()[:16]
            found[place] = EvaluationFolder(key, name, file.parent, file.stat().st_mtime)
    ordered = sorted(found.values(), key=lambda folder: -folder.updated)
    return ordered[:MOST_EVALUATIONS]


def evaluations_router(*roots: Path | None) -> APIRouter:
    """Routes for the evaluations below ``roots``."""
    router = APIRouter(prefix="/workbench", route_class=WorkbenchRoute)

    @router.get("/evaluations")
    async def listed() -> dict[str, Any]:
        """A line about each, the last written first."""

        def read() -> list[dict[str, Any]]:
            return [_glance(folder) for folder in evaluation_folders(roots)]

        return {"evaluations": await run_in_threadpool(read)}

    @router.get("/evaluations/{evaluation_id}")
    async def detail(evaluation_id: str) -> dict[str, Any]:
        """Scores, published figures, parts, wrong answers, warnings, provenance."""

        def read() -> dict[str, Any]:
            for folder in evaluation_folders(roots):
                if folder.id == evaluation_id:
                    return {"id": folder.id, "name": folder.name, **_data(folder)}
            raise not_found("evaluation", "评测", evaluation_id)

        return await run_in_threadpool(read)

    return router


def _glance(folder: EvaluationFolder) -> dict[str, Any]:
    """Name, model and scores; what cannot be read is left empty and says so when it is opened."""
    shown: dict[str, Any] = {
        "id": folder.id,
        "name": folder.name,
        "updated": folder.updated,
        "model": None,
        "scores": [],
        "warnings": 0,
    }
    try:
        run = EvaluationRun(folder.path)
        described = run.described() or {}
        model = described["model"]
        contamination = described.get("contamination") or {"warnings": {}}
        shown["model"] = model.get("name") or model.get("pretrained")
        shown["warnings"] = len(contamination["warnings"])
        shown["scores"] = [
            {
                "title": benchmarks()[name].title,
                "lower": benchmarks()[name].lower_is_better,
                "value": result.score.value,
                "stderr": result.score.stderr,
            }
            for name, result in run.results().items()
            if name in benchmarks()
        ]
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        pass
    return shown


def _data(folder: EvaluationFolder) -> dict[str, Any]:
    try:
        return page_data([EvaluationRun(folder.path)])
    except HunyuanError as error:
        raise RefusedError(error.en, error.zh, status=422, code="bad_data") from error
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else ""
        reason = reason or str(getattr(error, "strerror", error))
        raise RefusedError(
            f"the evaluation {folder.name} cannot be read ({reason}); run it again",
            f"无法读取评测 {folder.name}（{reason}）；请重新运行",
            status=422,
            code="bad_data",
        ) from error
