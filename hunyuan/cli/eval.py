"""``hunyuan eval``: benchmarks on any model, resumable, with provenance."""

import json
import os
import re
import shlex
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hunyuan import __version__
from hunyuan.cli.commit import commit
from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import UsageError, language

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine
    from hunyuan.evaluate.repeats import Sampling
    from hunyuan.evaluate.run_folder import Result
    from hunyuan.evaluate.suites import BenchmarkTask

_KINDS_ZH = {
    "loglikelihood": "对数似然",
    "loglikelihood_rolling": "整段对数似然",
    "generate_until": "生成",
}
_KINDS_EN = {
    "loglikelihood": "log-likelihoods",
    "loglikelihood_rolling": "log-likelihoods of texts",
    "generate_until": "answers",
}


@click.command()
@click.argument("model")
@click.argument("names", nargs=-1, metavar="[SUITE|BENCHMARK]...")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of benchmark data, made by `hunyuan data benchmarks`. Default: the hub.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="RUN", help="Default: runs/eval/MODEL."
)
@click.option("--shots", type=click.IntRange(0), help="Instead of each benchmark's own number.")
@click.option("--sample", type=click.IntRange(1), help="A fixed sample of so many items each.")
@click.option(
    "--chat/--no-chat",
    default=None,
    help="Prompts through the model's chat template. Default: as the suite says.",
)
@click.option("--system", metavar="TEXT", help="System message, with --chat.")
@click.option(
    "--lengths",
    default="4096,8192,16384,32768",
    show_default=True,
    metavar="N,N,...",
    help="Tokens of the prompts of the suite `long`.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    metavar="N",
    help="Draw N answers to each item of tasks that generate: mean, pass@k, majority.",
)
@click.option(
    "--temperature", type=click.FloatRange(0, 2, min_open=True), help="With --repeats; 0.8."
)
@click.option("--seed", type=click.IntRange(0), help="With --repeats; 0.")
@click.option("--run-code", is_flag=True, help="Run programs the model writes, in the sandbox.")
@click.option("--forbid-cut", is_flag=True, help="Fail where a prompt exceeds the context.")
@click.option("--dtype", default="auto", show_default=True, metavar="TYPE", help="As for serve.")
@click.option("--context", type=click.IntRange(1), help="Longest prompt plus answer in tokens.")
@click.option(
    "--parallel",
    type=click.IntRange(1),
    help="Requests at once. Default: 16 by the engine, 1 by transformers, 4 to a server.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Longest wait for one answer of a server. Default: 600.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def eval_(
    model: str,
    names: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    shots: int | None,
    sample: int | None,
    chat: bool | None,
    system: str | None,
    lengths: str,
    repeats: int | None,
    temperature: float | None,
    seed: int | None,
    run_code: bool,
    forbid_cut: bool,
    dtype: str,
    context: int | None,
    parallel: int | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Evaluate MODEL: a name or folder, hf:NAME, vllm:NAME or api:URL#NAME.

    Without names the suite `quick` is run. The same command goes on after a kill.
    """
    if find_spec("lm_eval") is None:
        raise UsageError(
            "hunyuan eval needs lm-evaluation-harness; pip install 'hunyuan[eval]'",
            "hunyuan eval 需要 lm-evaluation-harness；请运行 pip install 'hunyuan[eval]'",
        )
    # Before the harness is imported: it draws bars of its own between those of this command.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if data is not None:
        # Before the harness is imported: nothing may be asked of the hub then.
        os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    from hunyuan.evaluate.run import Plan, evaluate
    from hunyuan.evaluate.run_folder import EvaluationRun
    from hunyuan.evaluate.subjects import open_subject
    from hunyuan.evaluate.suites import chosen

    benchmarks, sizes, chat_default = chosen(list(names) or ["quick"])
    if sample is not None:
        sizes = {benchmark.name: sample for benchmark in benchmarks}
    needs_code = [b.name for b in benchmarks if b.language == "code"]
    if needs_code and run_code:
        from hunyuan.evaluate.programs import active_layers

        _say("programs are held by: {}", "程序的隔离层：{}", ", ".join(active_layers(language())))
    elif needs_code:
        skipped = ", ".join(needs_code)
        _say("left out without --run-code: {}", "未加 --run-code，略去：{}", skipped)
        benchmarks = [b for b in benchmarks if b.name not in needs_code]
        if not benchmarks:
            raise UsageError(
                f"{skipped}: runs programs that the model writes; allow it with --run-code",
                f"{skipped}：需要运行模型所写的程序；请用 --run-code 允许",
            )
    plan = Plan(
        benchmarks=tuple(benchmarks),
        sample=sizes,
        data=data,
        shots=shots,
        lengths=_lengths(lengths),
        chat=chat_default if chat is None else chat,
        system=system,
        run_code=run_code,
        sampling=_sampling(repeats, temperature, seed),
    )

    def load(name: str) -> "tuple[Engine, Path]":
        from hunyuan.catalogue.store import locate
        from hunyuan.cli.options import load_engine

        return load_engine(name, dtype, "auto", context, max_sequences=parallel or 16), locate(name)

    run = EvaluationRun(out or Path("runs/eval") / re.sub(r"[^\w.-]+", "-", model).strip("-"))
    subject = open_subject(
        model,
        load,
        dtype=dtype,
        chat=plan.chat,
        forbid_cut=forbid_cut,
        parallel=parallel,
        timeout=timeout,
    )
    warned = _warned(model, benchmarks)
    run.begin({**_description(subject.describe(), plan), "contamination": warned})
    line: dict[str, ProgressLine] = {}

    def progress(kind: str, done: int, total: int) -> None:
        if done == 0 or kind not in line:
            label = (_KINDS_ZH if language() == "zh" else _KINDS_EN)[kind]
            line[kind] = ProgressLine(label, unit="")
        line[kind].update(done, total)
        if done >= total:
            line.pop(kind).close()

    results = evaluate(subject, plan, run, progress=progress, on_result=lambda r: _show(r, as_json))
    if as_json:
        from dataclasses import asdict

        print(json.dumps({name: asdict(r) for name, r in results.items()}, ensure_ascii=False))
    else:
        print(run.folder)


def _warned(model: str, benchmarks: "list[BenchmarkTask]") -> dict[str, Any] | None:
    """What the model's own folder says of its training data, told; None if it says nothing."""
    from hunyuan.catalogue.store import locate
    from hunyuan.evaluate.contamination import contamination
    from hunyuan.train.provenance import stages

    kind, colon, rest = model.partition(":")
    if kind == "api" and colon:
        return None
    elsewhere = bool(colon) and kind in ("hf", "vllm")
    known = stages(Path(rest) if elsewhere else locate(model))
    if not known:
        return None
    warnings = contamination(known, benchmarks)
    for warning in warnings.values():
        _say("warning: {}", "警告：{}", warning[language()])
    return {"stages": known, "warnings": warnings}


def _sampling(
    repeats: int | None, temperature: float | None, seed: int | None
) -> "Sampling | None":
    from hunyuan.evaluate.repeats import Sampling

    if repeats is not None:
        given = {"temperature": temperature, "seed": seed}
        return Sampling(repeats=repeats, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    if temperature is not None or seed is not None:
        raise UsageError(
            "--temperature and --seed are for answers that are drawn; say how many with --repeats",
            "--temperature 与 --seed 仅用于抽样回答；请用 --repeats 指定次数",
        )
    return None


def _lengths(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 256:
        raise UsageError(
            f"--lengths {text!r}: must be whole numbers of at least 256 with commas between them",
            f"--lengths {text!r}：必须是不小于 256 的整数，以逗号分隔",
        )
    return found


def _description(model: dict[str, Any], plan: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from hunyuan.evaluate.benchmark_folder import INDEX

    data: Any = "hub"
    if plan.data is not None:
        data = json.loads((plan.data / INDEX).read_text(encoding="utf-8"))
        wanted = {benchmark.dataset for benchmark in plan.benchmarks if benchmark.dataset}
        data = {name: value for name, value in data.items() if name in wanted}
    settings = asdict(plan)
    settings.pop("data")
    if plan.sampling is None:
        settings.pop("sampling")
    settings["benchmarks"] = [benchmark.name for benchmark in plan.benchmarks]
    packages = ("lm_eval", "torch", "transformers", "datasets", "math-verify", "tokenizers")
    return {
        "model": model,
        "plan": settings,
        "data": data,
        "command": shlex.join(["hunyuan", *sys.argv[1:]]),
        "started": time.time(),
        "version": __version__,
        "commit": commit(),
        "packages": {name: version(name) for name in packages if find_spec(name.replace("-", "_"))},
    }


def _show(result: "Result", quiet: bool) -> None:
    if quiet:
        return
    from hunyuan.evaluate.suites import benchmarks

    benchmark = benchmarks()[result.benchmark]
    score = result.score
    percent = not benchmark.lower_is_better
    value = f"{100 * score.value:.2f} %" if percent else f"{score.value:.3f}"
    if score.stderr is not None:
        value += f" ± {1.96 * 100 * score.stderr:.2f}"
    sample = "" if score.items == result.of else f"/{result.of}"
    cut = f", {result.truncated} cut" if result.truncated else ""
    if language() == "zh":
        cut = f"，{result.truncated} 条被截断" if result.truncated else ""
        print(f"{benchmark.title}：{value}（{result.shots} 例，{score.items}{sample} 题{cut}）")
    else:
        print(
            f"{benchmark.title}: {value} ({result.shots}-shot, {score.items}{sample} items{cut})",
            flush=True,
        )
    if result.more:
        more = (f"{name} {100 * figure.value:.2f} %" for name, figure in result.more.items())
        print("  " + ("，" if language() == "zh" else ", ").join(more), flush=True)


def _say(en: str, zh: str, value: str) -> None:
    print((zh if language() == "zh" else en).format(value), file=sys.stderr, flush=True)
