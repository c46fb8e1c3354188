"""Speed beside llama.cpp and transformers: the same weights, the same machine, taking turns.

    python benchmarks/side_by_side.py smollm2-135m-instruct qwen2.5-coder-0.5b-instruct

Contestants: this project on its compiled kernels; llama-cpp-python as pip builds it, and built for
AVX2 and AVX-512 without AMX; transformers on torch, from a folder that `hunyuan convert` exported.
Each rival has a virtual environment of its own under benchmarks/.venvs, made when it is missing
(llama.cpp is compiled: half an hour on two cores), and runs in the fastest of its settings.

A round lets one contestant after the other read the same 512 random tokens and then choose 128,
greedily and alone: the others are stopped. A measurement during which other programs took more
than 5 % of the machine is repeated, a few times; the result file says what they took. Ratios are
taken within a round. Writes benchmarks/results/side-by-side-MODEL.json. Needs Linux and the models
(`hunyuan pull`).
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, ClassVar

import psutil
from provenance import RESULTS, provenance

from hunyuan.catalogue.store import locate
from hunyuan.tokenizer.load import load_tokenizer

HERE = Path(__file__).parent
PROMPT_TOKENS, ANSWER_TOKENS, CONTEXT = 512, 128, 1024
QUESTION, EXPECTED = "The capital of France is", "Paris"
DISTURBED, ATTEMPTS, PATIENCE = 0.05, 4, 120.0

THREADS = psutil.cpu_count(logical=False)


def _without_amx() -> str:
    """CMake arguments of a llama.cpp for this processor's vector instructions."""
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    flags = {
        "avx512f": "AVX512",
        "avx512vbmi": "AVX512_VBMI",
        "avx512_vnni": "AVX512_VNNI",
        "avx512_bf16": "AVX512_BF16",
    }
    names = ["AVX", "AVX2", "FMA", "F16C", "BMI2", *(n for f, n in flags.items() if f in words)]
    return " ".join(["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in names)])


@dataclass(frozen=True)
class Kind:
    """One contestant: its environment, its script and the settings to choose from."""

    script: str
    variants: tuple[dict[str, Any], ...]
    packages: tuple[str, ...] = ()
    """What pip installs in an environment of its own; none is this project's environment."""

    cmake: str = ""
    exported: bool = False
    """Whether it loads the exported folder instead of the GGUF file."""


_LLAMA = ({"flash_attention": False}, {"flash_attention": True})
KINDS = {
    "hunyuan": Kind("run_hunyuan.py", ({},)),
    "llama-default": Kind("run_llama.py", _LLAMA, ("llama-cpp-python",)),
    "llama-avx512": Kind("run_llama.py", _LLAMA, ("llama-cpp-python",), _without_amx()),
    "transformers": Kind(
        "run_transformers.py",
        tuple(
            {"dtype": dtype, "static_cache": static}
            for dtype in ("bfloat16", "float32")
            for static in (False, True)
        ),
        ("transformers==5.23.0", "torch==2.13.0"),
        exported=True,
    ),
}


def python_of(name: str) -> str:
    """The interpreter of a contestant's environment, which is made if it is missing."""
    kind = KINDS[name]
    if not kind.packages:
        return sys.executable
    folder = HERE / ".venvs" / name
    marker, recipe = folder / "made-from.txt", f"{' '.join(kind.packages)}\n{kind.cmake}\n"
    python = str(folder / "bin" / "python")
    if marker.exists() and marker.read_text(encoding="utf-8") == recipe:
        return python
    print(f"making {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *kind.packages],
        check=True,
        env=os.environ | ({"CMAKE_ARGS": kind.cmake} if kind.cmake else {}),
    )
    marker.write_text(recipe, encoding="utf-8")
    return python


class Runner:
    """A contestant's process: awake while it is asked something, stopped otherwise."""

    alive: ClassVar[list["Runner"]] = []

    def __init__(self, name: str, model: Path, variant: dict[str, Any]) -> None:
        self.name = name
        script = HERE / "contestants" / KINDS[name].script
        self._process = subprocess.Popen(
            [python_of(name), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        Runner.alive.append(self)
        options = {"model": str(model), "threads": THREADS, "context": CONTEXT, **variant}
        self.settings = self.ask("load", **options).value

    def ask(self, what: str, **arguments: Any) -> "Reply":
        """Put one request and wait for the answer."""
        process = psutil.Process(self._process.pid)
        process.resume()
        with _others(process) as taken:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with suppress(BrokenPipeError):
                print(json.dumps({"do": what, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
            if not line:
                raise CrashedError(f"{self.name}: exit code {self._process.wait()} in {what}")
        process.suspend()
        return Reply(**json.loads(line), others=taken[0])

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        Runner.alive.remove(self)


class CrashedError(Exception):
    """A contestant's process ended by itself."""


@dataclass(frozen=True)
class Reply:
    """An answer, the seconds it took and the share of the machine that others had meanwhile."""

    value: Any
    seconds: float
    others: float


@contextmanager
def _others(process: psutil.Process) -> Iterator[list[float]]:
    """Yields a list that holds, at the end, the share of the machine taken by other programs."""

    def own() -> float:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            return float(times.user + times.system)
        return 0.0

    def busy() -> float:
        times = psutil.cpu_times()
        # Guest time is part of user time; a stolen processor disturbs as a used one does.
        return float(times.user + times.nice + times.system + times.irq + times.softirq) + float(
            times.steal
        )

    result: list[float] = []
    begin, busy_before, own_before = time.perf_counter(), busy(), own()
    yield result
    used = busy() - busy_before - (own() - own_before)
    seconds = time.perf_counter() - begin
    result.append(max(used, 0.0) / (seconds * (psutil.cpu_count() or 1)))


def turn(runner: Runner, ids: list[int], attempts: int = ATTEMPTS) -> dict[str, Any]:
    """One contestant's part of a round; repeated while others disturb it."""
    tried: list[dict[str, Any]] = []
    while len(tried) < attempts:
        _wait_for_quiet()
        prompt = runner.ask("prefill", ids=_turned(ids, len(tried)))
        answer = runner.ask("decode", tokens=ANSWER_TOKENS)
        tried.append(
            {
                "prefill": PROMPT_TOKENS / prompt.seconds,
                "decode": ANSWER_TOKENS / answer.seconds,
                "seconds": prompt.seconds + answer.seconds,
                # Weighed, since the system counts processor time in hundredths of a second.
                "others": (prompt.others * prompt.seconds + answer.others * answer.seconds)
                / (prompt.seconds + answer.seconds),
            }
        )
        if tried[-1]["others"] <= DISTURBED:
            break
    return min(tried, key=lambda one: float(one["others"])) | {"attempts": len(tried)}


def _wait_for_quiet() -> None:
    """While every contestant is stopped, wait until nobody else computes; not for ever."""
    end = time.monotonic() + PATIENCE
    while psutil.cpu_percent(0.3) > 100 * DISTURBED and time.monotonic() < end:
        pass


def _turned(ids: list[int], by: int) -> list[int]:
    """The same prompt turned round, so that no cache of prefixes knows it."""
    return ids[by:] + ids[:by]


def first_token(model: str) -> float:
    """Seconds from starting `hunyuan generate` to the first byte of its answer."""
    command = [sys.executable, "-m", "hunyuan", "generate", model, QUESTION]
    _wait_for_quiet()
    begin = time.perf_counter()
    with subprocess.Popen(
        [*command, "--max-tokens", "4", "--temperature", "0"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - begin


def enter(name: str, model: Path, prompts: Callable[[], list[int]]) -> tuple[Runner, list[Any]]:
    """Load a contestant in the fastest of its settings, and what each setting reached."""
    best: Runner | None = None
    shortest = float("inf")
    trials = []
    for variant in KINDS[name].variants:
        runner = Runner(name, model, variant)
        turn(runner, prompts(), attempts=1)  # what is slow only the first time
        result = min((turn(runner, prompts()) for _ in range(2)), key=lambda r: float(r["seconds"]))
        trials.append({"settings": runner.settings, **result})
        if result["seconds"] < shortest:
            shortest, best, runner = result["seconds"], runner, best
        if runner is not None:
            runner.close()
    assert best is not None
    return best, trials


def compare(model: str, rounds: int) -> dict[str, Any]:
    """All contestants on one model."""
    weights = locate(model)
    vocabulary, random = load_tokenizer(weights).vocab_size, Random(0)

    def prompts() -> list[int]:
        return random.choices(range(vocabulary), k=PROMPT_TOKENS)

    scratch = Path(tempfile.mkdtemp(prefix="side-by-side-"))
    runners: dict[str, Runner] = {}
    about: dict[str, Any] = {}
    try:
        convert = [sys.executable, "-m", "hunyuan", "convert", str(weights)]
        folder = scratch / "exported"
        subprocess.run(
            [*convert, str(folder), "--dtype", "bfloat16"], check=True, stdout=subprocess.DEVNULL
        )
        for name, kind in KINDS.items():
            try:
                runner, trials = enter(name, folder if kind.exported else weights, prompts)
                answer = runner.ask("complete", text=QUESTION, tokens=16).value
            except CrashedError as error:
                about[name] = {"correct": False, "answer": str(error)}
                continue
            correct = EXPECTED in answer
            about[name] = {"correct": correct, "answer": answer, "trials": trials} | {
                "settings": runner.settings
            }
            if correct:
                runners[name] = runner
            else:
                runner.close()
            print(f"  {name}: {runner.settings}", flush=True)
        table = []
        for number in range(rounds):
            ids = prompts()
            row: dict[str, Any] = {name: turn(runner, ids) for name, runner in runners.items()}
            table.append(row | {"first_token_seconds": first_token(model)})
            print(f"  round {number + 1} of {rounds}", flush=True)
    finally:
        for runner in list(Runner.alive):
            runner.close()
        shutil.rmtree(scratch)
    return {"contestants": about, **summary(table), "rounds": table}


def summary(table: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians with their spread, and ratios taken within each round."""
    names = [name for name in KINDS if name in table[0]]
    speeds = {
        name: {what: _spread([row[name][what] for row in table]) for what in ("prefill", "decode")}
        for name in names
    }
    llamas = [name for name in names if name.startswith("llama")]

    def needed(name: str) -> float:
        return median(float(row[name]["seconds"]) for row in table)

    return {
        "tokens_per_second": speeds,
        "best_llama": min(llamas, key=needed) if llamas else None,
        "hunyuan_over": {
            name: {
                what: _spread([row["hunyuan"][what] / row[name][what] for row in table])
                for what in ("prefill", "decode")
            }
            for name in names
            if name != "hunyuan"
        },
        "first_token_seconds": _spread([row["first_token_seconds"] for row in table]),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def show(result: dict[str, Any]) -> None:
    """A compact table."""

    def cell(figure: dict[str, float], digits: int) -> str:
        low, high = (f"{figure[key]:.{digits}f}" for key in ("min", "max"))
        return f"{figure['median']:.{digits}f} ({low}..{high})"

    print(
        f"{result['model']}: tokens/s, and this project over each rival; median (lowest..highest)"
    )
    print(f"{'':15} {'prefill':>24} {'decode':>24} {'prefill ratio':>20} {'decode ratio':>20}")
    for name, speed in result["tokens_per_second"].items():
        row = f"{name:15} {cell(speed['prefill'], 1):>24} {cell(speed['decode'], 1):>24}"
        if ratio := result["hunyuan_over"].get(name):
            row += f" {cell(ratio['prefill'], 2):>20} {cell(ratio['decode'], 2):>20}"
        print(row + ("  <- llama.cpp's best" if name == result["best_llama"] else ""))
    for name, about in result["contestants"].items():
        if not about["correct"]:
            print(f"{name}: out of the race, answered {about['answer']!r}")
    print(f"first token after the process starts: {cell(result['first_token_seconds'], 2)} s")


def main() -> None:
    """Run the comparison for each model named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # A stopped contestant must not outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in KINDS:
        python_of(name)
    for model in options.models:
        result = {
            "model": model,
            **provenance(),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": THREADS,
            "prompt_tokens": PROMPT_TOKENS,
            "answer_tokens": ANSWER_TOKENS,
            **compare(model, options.rounds),
        }
        path = RESULTS / f"side-by-side-{model}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        show(result)
        print(f"{path}", flush=True)


if __name__ == "__main__":
    main()
