"""The last step: the report, then the manifest, which makes the folder a token set."""

# mypy: disable-error-code="misc"

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from hunyuan.data.recipe import Recipe
from hunyuan.data.report import REPORT, make_report, render
from hunyuan.data.shards import end_of_text_id, write_manifest
from hunyuan.data.steps import nothing_left
from hunyuan.data.tally import read_tallies
from hunyuan.data.tokens import read_records
from hunyuan.errors import language
from hunyuan.files import atomic_file
from hunyuan.tokenizer.load import load_tokenizer


class Finish(PipelineStep):
    """Writes report.json, report.md and manifest.json, in this order."""

    type = "own"
    name = "finish"

    def __init__(self, recipe: Recipe, target: Path, work: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.target = target
        self.work = work

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Add everything up; `BadDataError` if no document is left to train on."""
        tally = read_tallies((self.work / "tallies").glob("*/*.json"), self.recipe.samples)
        shards = [
            record
            for path in sorted((self.work / "records").glob("*.json"))
            for record in read_records(path)
        ]
        if not any(shard.split == "train" for shard in shards):
            removed = {
                key: count
                for key, count in tally.counts.items()
                if key[1].split()[0] in ("rejected", "exact", "near", "contaminated")
            }
            read = sum(n for (_, event), n in tally.counts.items() if event == "read")
            raise nothing_left(read, removed)
        passages = {
            name: read_tallies([self.work / "benchmarks" / f"{name}.json"], 0).counts[
                name, "passages"
            ]
            for name in self.recipe.decontamination.benchmarks
        }
        report = make_report(asdict(self.recipe), tally, passages, shards)
        with atomic_file(self.target / REPORT) as file:
            file.write(json.dumps(report, ensure_ascii=False, indent=1).encode() + b"\n")
        with atomic_file(self.target / "report.md") as file:
            file.write(render(report, language()).encode())
        tokenizer = load_tokenizer(self.target / "tokenizer")
        write_manifest(
            self.target,
            shards,
            vocab=tokenizer.vocab_size,
            end_id=end_of_text_id(tokenizer),
        )
