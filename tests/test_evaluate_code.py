"""Programs as answers, and several answers to each item: real programs in the real sandbox."""

import gzip
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.cli.main import run
from hunyuan.errors import HunyuanError
from hunyuan.evaluate import programs
from hunyuan.evaluate.benchmark_folder import BenchmarkWriter
from hunyuan.evaluate.programs import active_layers, passes
from hunyuan.evaluate.repeats import majority, pass_at_k
from hunyuan.evaluate.run_folder import EvaluationRun
from hunyuan.sandbox.cpython import CPythonRunner

pytest.importorskip("lm_eval")
PACK = SHARED / "data" / "bench"


def needs_walls() -> None:
    try:
        active_layers("en")
    except HunyuanError as error:
        pytest.skip(f"no sandbox here: {error}")


# --- estimators -----------------------------------------------------------------------------


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(answers: int, data: Any) -> None:
    right = data.draw(st.integers(0, answers))
    k = data.draw(st.integers(1, answers))
    draws = list(itertools.combinations([True] * right + [False] * (answers - right), k))
    assert pass_at_k(answers, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_exact_for_many_answers() -> None:
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)
    assert pass_at_k(1000, 1, 1000) == 1.0


@given(st.lists(st.sampled_from("abc"), min_size=1))
@settings(max_examples=50)
def test_a_majority_is_scored_as_its_answer_is(answers: list[str]) -> None:
    scores = [float(answer == "b") for answer in answers]
    most = max(answers.count(answer) for answer in "abc")
    if answers.count("b") < most:
        assert majority(answers, scores) == 0
    elif all(answers.count(answer) < most for answer in "ac"):
        assert majority(answers, scores) == 1


# --- programs -------------------------------------------------------------------------------

HOSTILE = {
    "loops": "while True:\n    pass",
    "sleeps": "import time\ntime.sleep(60)",
    "forks": "import os\nwhile True:\n    os.fork()",
    "starts a process": "import subprocess\nsubprocess.Popen(['sleep', '314159'])",
    "eats memory": "x = []\nwhile True:\n    x.append(bytearray(1 << 24))",
    "prints without end": "while True:\n    print('x' * 10000)",
    "deletes files": "import os\nos.remove({file!r})",
    "opens a socket": "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)",
    "writes a large file": "open('big', 'wb').write(bytes(1 << 28))",
    "leaves with success": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "is too long": "x = 1\n" * 20_000,
    "is no text": "x = '\ud800'\nraise ValueError",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_fails_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_walls()
    runner = CPythonRunner(replace(programs.LIMITS, seconds=5, processor_seconds=1))
    monkeypatch.setattr(programs, "_runner", lambda: runner)
    kept = tmp_path / "kept"
    kept.write_text("here")
    before = _children()
    assert not passes(HOSTILE[name].replace("{file!r}", repr(str(kept))))
    assert kept.exists()
    assert _children() == before, "a process is left"
    assert not [c for c in _commands() if "314159" in c]
    assert passes("assert 1 + 1 == 2")


def _children() -> set[str]:
    me = f"/proc/{os.getpid()}/task"
    found = (Path(me) / task / "children" for task in os.listdir(me))
    return {pid for path in found if path.exists() for pid in path.read_text().split()}


def _commands() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return found


# --- whole runs -----------------------------------------------------------------------------


def code_folder(path: Path, humaneval: list[Any], mbpp: list[Any]) -> Path:
    writer = BenchmarkWriter(path)
    about = {"licence": "none", "source": "a sample"}
    writer.add("openai/openai_humaneval", {"openai_humaneval": {"test": humaneval}}, **about)
    writer.add("google-research-datasets/mbpp", {"full": {"test": mbpp}}, **about)
    writer.finish()
    return path


class Scripted:
    """A subject whose answers a function of the prompt and the number of the draw gives."""

    takes_seed = True
    truncated = 0

    def __init__(self, answer: Any) -> None:
        from lm_eval.api.model import LM

        class Model(LM):  # type: ignore[misc]
            def generate_until(self, requests: Any) -> list[str]:
                return [answer(r.args[0], r.args[1].get("seed", 0)) for r in requests]

            def loglikelihood(self, requests: Any) -> Any:
                raise AssertionError

            loglikelihood_rolling = loglikelihood

            def apply_chat_template(self, history: Any, add_generation_prompt: bool = True) -> str:
                return str(history[-1]["content"])

            def chat_template(self, chat_template: Any = False) -> str:
                return ""

            tokenizer_name = "scripted"

        self.model = Model()

    def count_tokens(self, text: str) -> int:
        return len(text)

    def describe(self) -> dict[str, Any]:
        return {}


def evaluated(answer: Any, data: Path, out: Path, names: list[str], **plan: Any) -> EvaluationRun:
    from hunyuan.evaluate.run import Plan, evaluate
    from hunyuan.evaluate.suites import benchmarks

    chosen = tuple(benchmarks()[name] for name in names)
    made = Plan(benchmarks=chosen, data=data, run_code=True, **plan)
    run = EvaluationRun(out)
    evaluate(Scripted(answer), made, run, progress=lambda *_: None)
    return run


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def pack(name: str) -> list[Any]:
    files = [p for p in (PACK / name).rglob("*") if p.suffix in (".jsonl", ".gz", ".json")]
    if not files:
        pytest.skip("no ../shared/data/bench beside the checkout")
    rows = []
    for path in sorted(files):
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
        rows += [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return rows


def test_reference_solutions_are_all_right(tmp_path: Path) -> None:
    needs_walls()
    human = [row for row in pack("humaneval") if "canonical_solution" in row][::12]
    basic = [row for row in pack("mbpp") if row.get("task_id", 0) in range(11, 511)][::40]
    if not human or not basic:
        pytest.skip("the copies have another shape")
    known = {row["prompt"]: row["canonical_solution"] for row in human}
    for row in basic:
        row.setdefault("test_setup_code", "")
        row.setdefault("challenge_test_list", [])
    known |= {row["text"]: row["code"] for row in basic}

    def answer(prompt: str, seed: int) -> str:
        # MBPP's prompt holds three examples before the task.
        task = prompt.rpartition("here is your task: ")[2] or prompt
        return str(
            known[prompt]
            if prompt in known
            else next(code for text, code in known.items() if task.startswith(text))
        )

    data = code_folder(tmp_path / "data", human, basic)
    run_ = evaluated(answer, data, tmp_path / "out", ["humaneval", "mbpp"])
    assert {name: r.score.value for name, r in run_.results().items()} == {
        "humaneval": 1.0,
        "mbpp": 1.0,
    }

    def wrapped(prompt: str, seed: int) -> str:
        whole = next(p + code for p, code in known.items() if p in prompt)
        return f"Here it is:\n```python\n{whole}\n```\nIt works."

    run_ = evaluated(wrapped, data, tmp_path / "chat", ["humaneval"], chat=True)
    assert run_.results()["humaneval"].score.value == 1.0


ADD = {
    "task_id": "own/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(add):\n    assert add(1, 2) == 3\n",
}


def test_samples_are_seeded_kept_and_counted(tmp_path: Path) -> None:
    needs_walls()
    from hunyuan.evaluate.repeats import Sampling

    rows = [{**ADD, "task_id": f"own/{i}", "prompt": ADD["prompt"] + "\n" * i} for i in range(3)]
    data = code_folder(tmp_path / "data", rows, [])

    def answer(prompt: str, seed: int) -> str:
        # One right answer of four to the first item, two to the second, all hostile to the third.
        blanks = len(prompt) - len(ADD["prompt"])
        if blanks == 2:
            return "    import os\n    while True:\n        os.fork()\n"
        return "    return a + b\n" if seed - 5 <= blanks else "    return a - b\n"

    sampling = Sampling(repeats=4, seed=5)
    run_ = evaluated(answer, data, tmp_path / "out", ["humaneval"], sampling=sampling)
    result = run_.results()["humaneval"]
    assert result.repeats == 4
    assert [len(item["output"][0]) for item in run_.items("humaneval")] == [4, 4, 4]
    assert [item["answer_scores"] for item in run_.items("humaneval")] == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    assert result.score.value == pytest.approx((1 / 4 + 2 / 4 + 0) / 3)
    expected = {1: 0.25, 2: (1 / 2 + 5 / 6) / 3, 3: (3 / 4 + 1) / 3, 4: 2 / 3}
    for k, value in expected.items():
        assert result.more[f"pass@{k}"].value == pytest.approx(value)
    assert "maj@4" not in result.more


def test_temperature_without_repeats_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "x", "gsm8k", "--temperature", "0.5"]) == 2
    assert "--repeats" in capsys.readouterr().err
