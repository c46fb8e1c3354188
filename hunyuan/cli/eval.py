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
from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import UsageError, language

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine
    from hunyuan.evaluate.run import Result

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
    "-o", "--out", type=click.Path(path_type=Path), metavar="RUN", help="Default: eval/MODEL."
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
@click.option("--run-code", is_flag=True, help="Run programs the model writes, in the sandbox.")
@click.option("--forbid-cut", is_flag=True, help="Fail where a prompt exceeds the context.")
@click.option("--dtype", default="auto", show_default=True, metavar="TYPE", help="As for serve.")
@click.option("--context", type=click.IntRange(1), help="Longest prompt plus answer in tokens.")
@click.option("--parallel", type=click.IntRange(1), default=16, show_default=True)
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
    run_code: bool,
    forbid_cut: bool,
    dtype: str,
    context: int | None,
    parallel: int,
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
    if data is not None:
        # Before the harness is imported: nothing may be asked of the hub then.
        os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    from hunyuan.evaluate.run import EvaluationRun, Plan, evaluate
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
    )

    def load(name: str) -> "tuple[Engine, Path]":
        from hunyuan.catalogue.store import locate
        from hunyuan.cli.options import load_engine

        return load_engine(name, dtype, "auto", context, max_sequences=parallel), locate(name)

    run = EvaluationRun(out or Path("eval") / re.sub(r"[^\w.-]+", "-", model).strip("-"))
    subject = open_subject(model, load, dtype=dtype, chat=plan.chat, forbid_cut=forbid_cut)
    run.begin(_description(subject.describe(), plan))
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
    settings["benchmarks"] = [benchmark.name for benchmark in plan.benchmarks]
    packages = ("lm_eval", "torch", "transformers", "datasets", "math-verify", "tokenizers")
    return {
        "model": model,
        "plan": settings,
        "data": data,
        "command": shlex.join(["hunyuan", *sys.argv[1:]]),
        "started": time.time(),
        "version": __version__,
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


def _say(en: str, zh: str, value: str) -> None:
    print((zh if language() == "zh" else en).format(value), file=sys.stderr, flush=True)
