"""One evaluation: benchmarks through the harness, item by item, into a folder of their own."""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from hunyuan.errors import UsageError
from hunyuan.evaluate.benchmark_folder import BenchmarkFolder
from hunyuan.evaluate.recorded import Progress, Recorded
from hunyuan.evaluate.repeats import (
    EACH,
    Sampling,
    draw_answers,
    figures,
    mean_score,
    standard_error,
)
from hunyuan.evaluate.response_log import ResponseLog
from hunyuan.evaluate.run_folder import EvaluationRun, Result, Score
from hunyuan.evaluate.suites import BenchmarkTask

TASKS = Path(__file__).parent / "tasks"
_BATCH = 256
_EXAMPLES_SEED = 1234


class Subject(Protocol):
    """A model under evaluation."""

    model: Any
    """The harness's model (``lm_eval.api.model.LM``)."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, or an estimate where its tokenizer is out of reach."""

    takes_seed: bool
    """Whether its model obeys ``seed`` among the settings of a request."""

    @property
    def truncated(self) -> int | None:
        """Prompts so far whose beginning was cut off; None where that is not known."""

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
    sampling: Sampling | None = None
    """Several answers to each item of benchmarks that generate; None: one, as the task says."""


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
            seed = plan.sampling.seed if plan.sampling and subject.takes_seed else None
            recorded = Recorded(subject, log, progress, batch=_BATCH, seed=seed)
            result, items = _benchmark(benchmark, plan, folder, recorded, subject.count_tokens)
            counted = replace(result, truncated=recorded.truncated)
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

    if plan.chat and benchmark.in_chat is not None:
        benchmark = replace(benchmark, harness=benchmark.in_chat)
    shots = benchmark.shots if plan.shots is None else plan.shots
    # What tasks that make their own data ask for; others ignore it.
    making = {
        "lengths": plan.lengths,
        "items": plan.items,
        # A function of its own: the harness copies settings deeply, and a method with its model.
        "count": lambda text: count_tokens(text),
    }
    loaded = _load(benchmark, shots, folder, making)
    metric, _, chosen_filter = benchmark.metric.partition(",")
    generated = all(task.OUTPUT_TYPE == "generate_until" for task in loaded["tasks"].values())
    repeats = plan.sampling.repeats if plan.sampling and generated else 1
    if plan.sampling and generated:
        for task in loaded["tasks"].values():
            draw_answers(task, plan.sampling, metric)
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
            stderr=standard_error([each for part in scores.values() for each in part]),
            items=len(items),
        ),
        parts={part: mean_score(each) for part, each in scores.items() if len(scores) > 1},
        version=str(found["versions"].get(benchmark.harness)),
        of=sum(sizes.values()),
        truncated=None,
        repeats=repeats,
        more=figures(items, repeats, vote=benchmark.vote) if repeats > 1 else {},
    )
    return result, items


def _load(
    benchmark: BenchmarkTask,
    shots: int,
    folder: BenchmarkFolder | None,
    making: Mapping[str, Any],
) -> Any:
    """The harness's tasks with their number of examples, reading from ``folder`` if given."""
    import lm_eval.tasks as tasks_module
    from lm_eval.tasks import TaskManager

    settings: dict[str, Any] = {"num_fewshot": shots}
    if folder is not None and benchmark.dataset is not None:
        settings["dataset_path"] = str(folder.dataset_path(benchmark.dataset))
        # `datasets` tells two folders of one name apart by less than their content.
        settings["dataset_kwargs"] = {"cache_dir": str(_cache(folder, benchmark.dataset))}
        examples = folder.benchmarks[benchmark.dataset].examples
        if examples is not None and shots:
            settings |= {"fewshot_split": examples, "fewshot_config": {"sampler": "first_n"}}
    kind = "group" if benchmark.group else "task"
    # The harness hands settings down to the tasks of a group only from a group's own file.
    group = {"group": f"{benchmark.name}_", "task": [{kind: benchmark.harness, **settings}]}
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "group.yaml").write_text(json.dumps(group), encoding="utf-8")
        places = [TASKS, Path(scratch)]
        if benchmark.folder is not None:
            places.insert(0, Path(tasks_module.__path__[0]) / benchmark.folder)
        if benchmark.plugin is not None:
            places.insert(0, benchmark.plugin)
        tasks = TaskManager(
            include_path=places,
            include_defaults=False,
            metadata=dict(making) if benchmark.dataset is None else None,
        )
        loaded = tasks.load(group["group"])
    for task in loaded["tasks"].values():
        # As the harness's own command line does; without it examples are drawn anew every time.
        task.set_fewshot_seed(seed=_EXAMPLES_SEED)
    return loaded


def _cache(folder: BenchmarkFolder, dataset: str) -> Path:
    """Where `datasets` keeps its own copy of these very rows."""
    from datasets import config

    content = repr(folder.benchmarks[dataset]).encode()
    return Path(config.HF_DATASETS_CACHE) / f"hunyuan-{hashlib.sha256(content).hexdigest()[:16]}"


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
    each = {"answer_scores": sample[EACH]} if EACH in sample else {}
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
        **each,
        "scores": {name: sample[name] for name in sample["metrics"] if name != EACH},
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
