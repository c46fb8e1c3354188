"""One evaluation: benchmarks through the harness, item by item, into a folder that explains itself.

RUN/run.json               what was run: model and its hash, template, versions, commit, data
RUN/responses.jsonl        every answer of the model, as it came (what makes a run resumable)
RUN/items/BENCHMARK.jsonl  per item: prompt, reference, raw output, extracted answer, scores
RUN/results.json           per benchmark: score, standard error, items, shots, parts
"""

import hashlib
import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from hunyuan.errors import UsageError
from hunyuan.evaluate.benchmark_folder import BenchmarkFolder
from hunyuan.evaluate.recorded import Progress, Recorded
from hunyuan.evaluate.response_log import ResponseLog
from hunyuan.evaluate.suites import BenchmarkTask
from hunyuan.files import atomic_file, disk_errors

TASKS = Path(__file__).parent / "tasks"
_BATCH = 256
_EXAMPLES_SEED = 1234


class Subject(Protocol):
    """A model under evaluation."""

    model: Any
    """The harness's model (``lm_eval.api.model.LM``)."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, or an estimate where its tokenizer is out of reach."""

    @property
    def truncated(self) -> int:
        """Prompts whose beginning was cut off because they were longer than the context."""

    def describe(self) -> dict[str, Any]:
        """What identifies it: name, hash of the weights, dtype, routing, template."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be evaluated and how."""

    benchmarks: tuple[BenchmarkTask, ...]
    sample: Mapping[str, int] = field(default_factory=dict)
    """Benchmark -> size of its fixed sample; absent: all items."""

    data: Path | None = None
    """A `BenchmarkFolder`; None takes the data from the hub."""

    shots: int | None = None
    """Instead of each benchmark's own number."""

    lengths: tuple[int, ...] = (4096, 8192, 16384, 32768)
    """Tokens of the prompts of long-context tasks."""

    items: int = 10
    """Prompts of each kind, language and length of long-context tasks."""

    chat: bool = False
    system: str | None = None
    run_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Score:
    """The figure of one benchmark or of a part of it."""

    value: float
    stderr: float | None
    items: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of a results table."""

    benchmark: str
    metric: str
    shots: int
    score: Score
    parts: Mapping[str, Score]
    """Subjects or sub-tasks."""

    version: str
    """Version of the harness's task."""

    of: int
    """Items the whole benchmark has; more than ``score.items`` for a sample."""

    truncated: int


class EvaluationRun:
    """A folder that an evaluation writes; opening one that exists goes on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def results(self) -> dict[str, Result]:
        """What is finished."""
        path = self.folder / "results.json"
        if not path.exists():
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: _result(value) for name, value in found.items()}

    def described(self) -> dict[str, Any] | None:
        """The content of run.json, or None for a new run."""
        path = self.folder / "run.json"
        if not path.exists():
            return None
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def items(self, benchmark: str) -> Iterator[dict[str, Any]]:
        """The items of a finished benchmark."""
        with (self.folder / "items" / f"{benchmark}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def begin(self, description: Mapping[str, Any]) -> None:
        """Write run.json, or check that a run that exists is the same; `UsageError` if not."""
        before = self.described()
        if before is not None:
            changed = [
                key
                for key in ("model", "plan", "data")
                if json.dumps(before.get(key), sort_keys=True)
                != json.dumps(description.get(key), sort_keys=True, default=str)
            ]
            if changed:
                raise UsageError(
                    f"{self.folder}: holds a run with another {' and '.join(changed)}; choose "
                    "another folder with --out",
                    f"{self.folder}：其中的评测在 {'、'.join(changed)} 上与此不同；"
                    "请用 --out 另选目录",
                )
            return
        self._write("run.json", description)

    def finish(self, result: Result, items: Sequence[Mapping[str, Any]]) -> None:
        """Keep a benchmark's items, then its result."""
        lines = "".join(json.dumps(item, ensure_ascii=False, default=str) + "\n" for item in items)
        path = self.folder / "items" / f"{result.benchmark}.jsonl"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                file.write(lines.encode())
        done = {**self.results(), result.benchmark: result}
        self._write("results.json", {name: asdict(value) for name, value in done.items()})

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.folder / name) as file:
                text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
                file.write(text.encode())


def evaluate(
    subject: Subject,
    plan: Plan,
    run: EvaluationRun,
    *,
    progress: Progress,
    on_result: Any = lambda result: None,
) -> dict[str, Result]:
    """Run what ``plan`` asks for and is not finished; all results.

    The same call after a kill asks no item again whose answer is in the folder.
    """
    # The harness tells of every task it loads, and of things that are as they should be.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = None if plan.data is None else BenchmarkFolder(plan.data)
    run.folder.mkdir(parents=True, exist_ok=True)
    log = ResponseLog(run.folder / "responses.jsonl")
    try:
        for benchmark in plan.benchmarks:
            if benchmark.name in run.results():
                continue
            recorded = Recorded(subject.model, log, progress, batch=_BATCH)
            cut = subject.truncated
            result, items = _benchmark(benchmark, plan, folder, recorded, subject.count_tokens)
            counted = Result(**{**vars(result), "truncated": subject.truncated - cut})
            run.finish(counted, items)
            on_result(counted)
    finally:
        log.close()
    return run.results()


def _benchmark(
    benchmark: BenchmarkTask,
    plan: Plan,
    folder: BenchmarkFolder | None,
    model: Recorded,
    count_tokens: Callable[[str], int],
) -> tuple[Result, list[dict[str, Any]]]:
    from lm_eval.evaluator import evaluate as run_harness

    shots = benchmark.shots if plan.shots is None else plan.shots
    # What tasks that make their own data ask for; others ignore it.
    making = {"lengths": plan.lengths, "items": plan.items, "count": count_tokens}
    loaded = _load(benchmark, shots, folder, making)
    sizes = {name: len(list(task.eval_docs)) for name, task in loaded["tasks"].items()}
    wanted = plan.sample.get(benchmark.name)
    samples = None if wanted is None else stratified(sizes, wanted, benchmark.name)
    try:
        found = run_harness(
            lm=model,
            task_dict=loaded,
            samples=samples,
            bootstrap_iters=1000,
            system_instruction=plan.system,
            apply_chat_template=plan.chat,
            fewshot_as_multiturn=plan.chat,
            confirm_run_unsafe_code=plan.run_code,
        )
    except ValueError as error:
        # What the harness's draw of examples says when the data hold too few.
        if "larger than population" not in str(error):
            raise
        raise UsageError(
            f"{benchmark.name}: the data hold fewer than {shots} examples to show; lower --shots",
            f"{benchmark.name}：数据中可作示例的不足 {shots} 条；请减小 --shots",
        ) from error
    metric, _, chosen_filter = benchmark.metric.partition(",")
    items = [
        _item(benchmark.name, name, sample, metric)
        for name in loaded["tasks"]
        for sample in found["samples"][name]
        if sample["filter"] == chosen_filter
    ]
    scores: dict[str, list[float]] = {}
    for item in items:
        if item["score"] is not None and not benchmark.lower_is_better:
            scores.setdefault(item["part"], []).append(item["score"])
    total = float(_row(found, benchmark.harness)[benchmark.metric])
    result = Result(
        benchmark=benchmark.name,
        metric=benchmark.metric,
        shots=shots,
        score=Score(
            value=total,
            stderr=_standard_error([each for part in scores.values() for each in part]),
            items=len(items),
        ),
        parts={
            part: Score(value=sum(each) / len(each), stderr=_standard_error(each), items=len(each))
            for part, each in scores.items()
            if len(scores) > 1
        },
        version=str(found["versions"].get(benchmark.harness)),
        of=sum(sizes.values()),
        truncated=0,
    )
    return result, items


def _load(
    benchmark: BenchmarkTask,
    shots: int,
    folder: BenchmarkFolder | None,
    making: Mapping[str, Any],
) -> Any:
    """The harness's tasks with their number of examples, reading from ``folder`` if given."""
    from lm_eval.tasks import TaskManager

    settings: dict[str, Any] = {"num_fewshot": shots}
    if folder is not None and benchmark.dataset is not None:
        settings["dataset_path"] = str(folder.dataset_path(benchmark.dataset))
        examples = folder.benchmarks[benchmark.dataset].examples
        if examples is not None and shots:
            settings |= {"fewshot_split": examples, "fewshot_config": {"sampler": "first_n"}}
    kind = "group" if benchmark.group else "task"
    # The harness hands settings down to the tasks of a group only from a group's own file.
    group = {"group": f"{benchmark.name}_", "task": [{kind: benchmark.harness, **settings}]}
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "group.yaml").write_text(json.dumps(group), encoding="utf-8")
        tasks = TaskManager(
            include_path=[TASKS, Path(scratch)],
            metadata=dict(making) if benchmark.dataset is None else None,
        )
        loaded = tasks.load(group["group"])
    for task in loaded["tasks"].values():
        # As the harness's own command line does; without it examples are drawn anew every time.
        task.set_fewshot_seed(seed=_EXAMPLES_SEED)
    return loaded


def stratified(sizes: Mapping[str, int], wanted: int, seed: str) -> dict[str, list[int]]:
    """Places of a fixed sample of about ``wanted`` items, every part in proportion, none empty."""
    total = sum(sizes.values())
    chosen: dict[str, list[int]] = {}
    for name, size in sizes.items():
        count = min(size, max(1, round(wanted * size / total)))
        generator = random.Random(hashlib.sha256(f"{seed}/{name}".encode()).digest())
        chosen[name] = sorted(generator.sample(range(size), count))
    return chosen


def _item(benchmark: str, task: str, sample: Mapping[str, Any], metric: str) -> dict[str, Any]:
    arguments = sample["arguments"]
    choices = [list(pair)[1] for pair in arguments] if _is_choice(sample) else None
    return {
        "benchmark": benchmark,
        "task": task,
        "part": _part(task, sample["doc"]),
        "doc_id": sample["doc_id"],
        "doc_hash": sample["doc_hash"],
        "prompt": arguments[0][0],
        "choices": choices,
        "reference": sample["target"],
        "output": sample["resps"],
        "extracted": sample["filtered_resps"],
        "score": _item_score(sample.get(metric)),
        "scores": {name: sample[name] for name in sample["metrics"]},
    }


def _part(task: str, doc: Mapping[str, Any]) -> str:
    """What an item's score is counted under: its task, or the length of a long prompt."""
    return f"{doc['language']} {doc['length']:,}" if "length" in doc else task


def _item_score(value: Any) -> float | None:
    """An item's score; of a text, whose perplexity is asked, the log-probability per word."""
    if isinstance(value, list | tuple) and len(value) == 2:
        return float(value[0]) / float(value[1])
    return float(value) if isinstance(value, int | float) else None


def _is_choice(sample: Mapping[str, Any]) -> bool:
    return len(sample["arguments"]) > 1 and isinstance(list(sample["arguments"][0])[1], str)


def _row(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    row = found["results"].get(name) or found.get("groups", {}).get(name)
    assert row is not None, f"the harness has no result of {name}"
    return row  # type: ignore[no-any-return]


def _standard_error(scores: Sequence[float]) -> float | None:
    """Of the mean; None for a figure that is no mean of items' scores, or a single item."""
    if len(scores) < 2:
        return None
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    return math.sqrt(variance / len(scores))


def _result(value: Mapping[str, Any]) -> Result:
    parts = {name: Score(**part) for name, part in value["parts"].items()}
    return Result(**{**value, "score": Score(**value["score"]), "parts": parts})
