"""The stages of the pipeline, in order, and what each reads and writes below the work folder.

    benchmarks   benchmark files    -> benchmarks/<name>.npy
    read         the sources        -> documents/<task>.jsonl.zst, exact/signatures
    exact        exact/signatures   -> exact/duplicates
    signatures   documents          -> near/signatures
    buckets      near/signatures    -> near/pairs
    clusters     near/pairs         -> near/duplicates
    tokens       documents, both duplicates, benchmarks -> tokens/<task>/
    shards       tokens             -> the token set's shards
    finish       records, tallies   -> report and manifest

A stage consists of tasks that need nothing of each other. Text is read and cleaned once and
written once; what is a duplicate is told by the place of a document in its file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.writers import JsonlWriter

from hunyuan.data.finish import Finish
from hunyuan.data.readers import CorpusReader
from hunyuan.data.recipe import Recipe
from hunyuan.data.steps import (
    CheckReading,
    Clean,
    Decontaminate,
    IndexBenchmarks,
    Ledger,
    NearSignature,
    QualityFilter,
    RankReader,
    document_priority,
    document_text,
)
from hunyuan.data.tokens import JoinShards, WriteTokens

WORK = ".work"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps that datatrove runs once per task."""

    name: str
    """Also the folder of its logs and completion markers."""

    steps: list[Any]
    """Documents flow from each to the next."""

    tasks: int
    """How many times they run, with different numbers."""


def stages(recipe: Recipe, base: Path, target: Path, tasks: int) -> list[Stage]:
    """All stages that a recipe needs; paths in it are relative to ``base``."""
    work = target / WORK
    documents, tallies = work / "documents", work / "tallies"
    exact = ExactDedupConfig(content_getter=document_text, document_priority=document_priority)
    near = MinhashConfig(
        n_grams=recipe.duplicates.words,
        num_buckets=recipe.duplicates.buckets,
        hashes_per_bucket=recipe.duplicates.hashes,
    )

    def ledger(event: str, folder: str) -> Ledger:
        return Ledger(tallies / folder, event, recipe.samples)

    def unique(counted: bool) -> list[Any]:
        """Documents without duplicates; only the last reading counts what is left out."""
        steps: list[Any] = [RankReader(documents)]
        if recipe.duplicates.exact:
            found = str(work / "exact" / "duplicates")
            removed = ledger("exact duplicate", "exact") if counted else None
            steps.append(ExactDedupFilter(found, exact, removed))
        return steps

    reading = [
        CorpusReader(recipe, work / "inputs", tallies / "read"),
        Clean(recipe, tallies / "clean"),
        QualityFilter(recipe, ledger("rejected", "quality")),
        JsonlWriter(str(documents), compression="zstd"),
    ]
    check = CheckReading(recipe, tallies / "read", tallies / "quality")
    finding: list[Any] = [check]
    if recipe.duplicates.exact:
        signatures, found = str(work / "exact" / "signatures"), str(work / "exact" / "duplicates")
        reading.append(ExactDedupSignature(signatures, config=exact))
        finding.append(ExactFindDedups(signatures, found, exact))
    plan = [
        Stage(name="read", steps=reading, tasks=tasks),
        Stage(name="exact", steps=finding, tasks=1),
    ]
    last = unique(counted=True)
    if recipe.duplicates.near:
        folders = [str(work / "near" / name) for name in ("signatures", "pairs", "duplicates")]
        signature = NearSignature(work / "near" / "signatures", near)
        buckets = MinhashDedupBuckets(folders[0], folders[1], config=near)
        clusters = MinhashDedupCluster(folders[1], folders[2], config=near)
        plan += [
            Stage(name="signatures", steps=[*unique(counted=False), signature], tasks=tasks),
            Stage(name="buckets", steps=[buckets], tasks=near.num_buckets),
            Stage(name="clusters", steps=[clusters], tasks=1),
        ]
        last.append(MinhashDedupFilter(folders[2], ledger("near duplicate", "near")))
    if benchmarks := recipe.decontamination.benchmarks:
        index = IndexBenchmarks(recipe, base, work / "benchmarks")
        plan.insert(0, Stage(name="benchmarks", steps=[index], tasks=len(benchmarks)))
        removed = ledger("contaminated", "contaminated")
        last.append(Decontaminate(recipe, work / "benchmarks", removed))
    last.append(WriteTokens(recipe, target / "tokenizer", work / "tokens", tallies / "tokens"))
    join = JoinShards(recipe, work / "tokens", target, work / "records")
    finish = Finish(recipe, target, work)
    return [
        *plan,
        Stage(name="tokens", steps=last, tasks=tasks),
        Stage(name="shards", steps=[join], tasks=len(recipe.source)),
        Stage(name="finish", steps=[finish], tasks=1),
    ]
