"""Evaluation beside the reference harness: the same weights, items and prompts, by two back ends.

    hunyuan data benchmarks PACK DIR
    python benchmarks/evaluation.py DIR smollm2-135m-instruct

The model is exported to a Hugging Face folder in float32. `hunyuan eval` then runs a task of
multiple choice, one of perplexity and one of generation twice, one back end after the other: this
project's engine, and lm-evaluation-harness's own `hf` (transformers). Compared item by item:
log-likelihoods, choices, greedy texts. Times are of whole commands. Writes
benchmarks/results/evaluation-MODEL.json. Needs the extras `eval` and accelerate.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from provenance import RESULTS, provenance

RUNS = Path(__file__).parent / ".runs" / "evaluation"
TASKS = {"mmlu": 570, "wikitext": None, "nq": 500}


def main() -> None:
    """All tasks by both back ends; a table and a result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--batch", type=int, default=1, help="rows at once of transformers")
    arguments = parser.parse_args()

    shutil.rmtree(RUNS, ignore_errors=True)
    folder = RUNS / arguments.model
    folder.parent.mkdir(parents=True)
    hunyuan("convert", arguments.model, str(folder), "--dtype", "float32")
    file = RESULTS / f"evaluation-{arguments.model}.json"
    tasks: dict[str, Any] = {}
    for task in arguments.tasks:
        seconds, processor = {}, {}
        for backend, spec, parallel in (
            ("hunyuan", str(folder), 16),
            ("hf", f"hf:{folder}", arguments.batch),
        ):
            began, used = time.perf_counter(), children()
            options = ["--data", str(arguments.data), "--dtype", "float32"]
            if TASKS[task] is not None:
                options += ["--sample", str(TASKS[task])]
            out = ["--parallel", str(parallel), "-o", str(RUNS / backend / task)]
            hunyuan("eval", spec, task, *options, *out)
            seconds[backend] = time.perf_counter() - began
            processor[backend] = children() - used
        tasks[task] = compared(task) | {
            "seconds": seconds,
            "times as fast": seconds["hf"] / seconds["hunyuan"],
            "processor seconds": processor,
            "times as little of the processor": processor["hf"] / processor["hunyuan"],
        }
        print(task, json.dumps(tasks[task], indent=1), flush=True)
        result = {"provenance": provenance(), "model": arguments.model, "dtype": "float32"}
        result |= {"batch of hf": arguments.batch, "tasks": tasks}
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def hunyuan(*arguments: str) -> None:
    """One command of this project, as a user gives it."""
    subprocess.run([sys.executable, "-m", "hunyuan", *arguments], check=True)


def children() -> float:
    """Seconds of processor that the commands so far have used, which no neighbour changes much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def items(backend: str, task: str) -> list[dict[str, Any]]:
    """Every item of a run, in the order of its files."""
    files = sorted((RUNS / backend / task / "items").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def compared(task: str) -> dict[str, Any]:
    """How far two runs of one task lie apart."""
    differences: list[float] = []
    equal = 0
    ours, theirs = items("hunyuan", task), items("hf", task)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one["prompt"] == other["prompt"], "the back ends were asked different things"
        if one["choices"]:
            a = [output[0][0] for output in one["output"]]
            b = [output[0][0] for output in other["output"]]
            differences += [abs(x - y) for x, y in zip(a, b, strict=True)]
            equal += a.index(max(a)) == b.index(max(b))
        elif isinstance(one["output"][0][0], float):
            x, y = one["output"][0][0], other["output"][0][0]
            differences.append(abs(x - y))
            equal += abs(x - y) < 1e-2
        else:
            equal += one["output"] == other["output"]
    results = {
        backend: json.loads((RUNS / backend / task / "results.json").read_text("utf-8"))
        for backend in ("hunyuan", "hf")
    }
    return {
        "items": len(ours),
        "equal": equal,
        "share equal": equal / len(ours),
        "largest difference of a log-likelihood": max(differences, default=None),
        "results": results,
    }


if __name__ == "__main__":
    main()
