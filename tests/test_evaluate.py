"""Evaluation: the data folder, resumable runs, paired comparison, the report."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from hunyuan.errors import BadDataError, UsageError
from hunyuan.evaluate.benchmark_folder import BenchmarkFolder, BenchmarkWriter
from hunyuan.evaluate.compare import compare, mcnemar
from hunyuan.evaluate.instructions import follows, follows_loosely
from hunyuan.evaluate.long_context import KINDS, make_prompt
from hunyuan.evaluate.page import evaluation_markdown, page_data, published
from hunyuan.evaluate.response_log import ResponseLog
from hunyuan.evaluate.run import stratified
from hunyuan.evaluate.run_folder import EvaluationRun, Result, Score
from hunyuan.evaluate.solutions import final_box, same_value
from hunyuan.evaluate.suites import benchmarks, chosen, suites

PACK = SHARED / "data" / "bench"


# --- suites ---------------------------------------------------------------------------------


def test_suites_name_benchmarks_that_exist() -> None:
    for suite in suites().values():
        assert set(suite.benchmarks) <= set(benchmarks())
        assert set(suite.sample) <= set(suite.benchmarks)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean mmlu, cmmlu"):
        chosen(["mmul"])


def test_a_benchmark_named_after_its_suite_is_run_whole() -> None:
    tasks, sample, _ = chosen(["quick", "gsm8k"])
    assert "gsm8k" not in sample
    assert "mmlu" in sample
    assert len({task.name for task in tasks}) == len(tasks)


def test_published_figures_are_those_of_known_benchmarks() -> None:
    for table in published().values():
        assert set(table["rows"]) <= set(benchmarks())
        assert all(len(row) == len(table["models"]) for row in table["rows"].values())
        assert table["source"]


# --- data -----------------------------------------------------------------------------------


def small_folder(path: Path, questions: int = 40) -> Path:
    """Two small benchmarks in the hub's shape, made up."""
    writer = BenchmarkWriter(path)
    arithmetic = [
        {
            "question": f"What is {i} plus {i + 1}?",
            "answer": f"{i} + {i + 1} = {2 * i + 1}.\n#### {2 * i + 1}",
        }
        for i in range(questions)
    ]
    writer.add(
        "openai/gsm8k",
        {"main": {"train": arithmetic[:8], "test": arithmetic[8:]}},
        licence="none",
        source="made up",
    )
    choices = [
        {
            "goal": f"carry {i} stones",
            "sol1": "use a bag",
            "sol2": "use a sieve of water",
            "label": i % 2,
        }
        for i in range(questions)
    ]
    writer.add(
        "baber/piqa",
        {"default": {"train": choices[:4], "validation": choices}},
        licence="none",
        source="made up",
        notes=["made up"],
    )
    writer.finish()
    return path


def test_a_folder_is_checked_against_its_hashes(tmp_path: Path) -> None:
    folder = BenchmarkFolder(small_folder(tmp_path / "data"))
    path = folder.dataset_path("openai/gsm8k")
    file = path / "main" / "test.jsonl.gz"
    rows = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(rows[:-2])))
    with pytest.raises(BadDataError, match=r"altered, it has 30 rows where 32 with sha256"):
        folder.dataset_path("openai/gsm8k")
    file.write_bytes(b"no gzip")
    with pytest.raises(BadDataError, match="altered, it has 0 rows"):
        folder.dataset_path("openai/gsm8k")
    file.unlink()
    with pytest.raises(BadDataError, match="32 rows belong there"):
        folder.dataset_path("openai/gsm8k")


def test_a_missing_dataset_or_index_is_named(tmp_path: Path) -> None:
    folder = BenchmarkFolder(small_folder(tmp_path / "data"))
    with pytest.raises(BadDataError, match=r"no data of cais/mmlu; it has baber/piqa, openai"):
        folder.dataset_path("cais/mmlu")
    with pytest.raises(UsageError, match=r"no benchmarks.json there"):
        BenchmarkFolder(tmp_path)
    (tmp_path / "benchmarks.json").write_text('{"a": 1')
    with pytest.raises(BadDataError, match="damaged"):
        BenchmarkFolder(tmp_path)


def test_the_same_rows_give_the_same_folder(tmp_path: Path) -> None:
    one, two = small_folder(tmp_path / "1"), small_folder(tmp_path / "2")
    for path in sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file()):
        assert (one / path).read_bytes() == (two / path).read_bytes(), path


def test_the_published_copies_become_a_folder(tmp_path: Path) -> None:
    if not PACK.exists():
        pytest.skip("no ../shared/data/bench beside the checkout")
    from hunyuan.evaluate.convert_pack import convert_pack

    done = convert_pack(PACK, tmp_path / "bench")
    folder = BenchmarkFolder(tmp_path / "bench")
    assert {b.dataset for b in benchmarks().values() if b.dataset} <= set(done)
    # No item that is shown as an example is scored as well.
    for name, benchmark in folder.benchmarks.items():
        if benchmark.examples is None:
            continue
        for config, splits in benchmark.splits.items():
            path = folder.dataset_path(name) / config
            shown = _rows(path / f"{benchmark.examples}.jsonl.gz")
            scored = [s for s in splits if s not in (benchmark.examples, "validation", "train")]
            scored = scored or ["validation"]
            for split in scored:
                assert not set(shown) & set(_rows(path / f"{split}.jsonl.gz")), (name, config)


def _rows(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_a_pack_with_too_few_items_is_refused(tmp_path: Path) -> None:
    from hunyuan.evaluate.convert_pack import convert_pack

    (tmp_path / "pack" / "commonsense_qa").mkdir(parents=True)
    row = {"id": 0, "question": "q", "choices": list("vwxyz"), "answer": 0}
    (tmp_path / "pack" / "commonsense_qa" / "commonsense_qa.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadDataError, match="has 1 items, 1221 were published"):
        convert_pack(tmp_path / "pack", tmp_path / "out")
    assert not (tmp_path / "out" / "benchmarks.json").exists()


# --- samples and comparison -----------------------------------------------------------------


@given(
    st.dictionaries(st.text("abc", min_size=1), st.integers(1, 500), min_size=1, max_size=20),
    st.integers(1, 2000),
)
def test_a_sample_is_fixed_and_in_proportion(sizes: dict[str, int], wanted: int) -> None:
    places = stratified(sizes, wanted, "seed")
    assert places == stratified(dict(sizes), wanted, "seed")
    total = sum(sizes.values())
    for name, chosen_places in places.items():
        assert len(set(chosen_places)) == len(chosen_places) >= 1
        assert all(0 <= place < sizes[name] for place in chosen_places)
        assert len(chosen_places) <= max(1, wanted * sizes[name] / total + 1)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_binomial_test(worse: int, better: int) -> None:
    expected = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert mcnemar(worse, better) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def finished(folder: Path, scores: list[float], **changes: Any) -> EvaluationRun:
    """A run with one finished benchmark."""
    run = EvaluationRun(folder)
    run.begin({"model": {"name": folder.name}, "plan": {"chat": False}, "data": "hub"} | ABOUT)
    items = [
        {
            "benchmark": "piqa",
            "task": "piqa",
            "doc_id": i,
            "prompt": f"Question {i}",
            "choices": ["one", "two"],
            "reference": 0,
            "output": [[[-1.0, True]], [[-2.0 if score else -0.5, False]]],
            "score": score,
        }
        for i, score in enumerate(scores)
    ]
    value = sum(scores) / len(scores)
    result = Result(
        **{
            "benchmark": "piqa",
            "metric": "acc_norm,none",
            "shots": 0,
            "score": Score(value=value, stderr=0.01, items=len(scores)),
            "parts": {},
            "version": "1.0",
            "of": 1838,
            "truncated": 0,
            **changes,
        }
    )
    run.finish(result, items)
    return run


ABOUT = {"command": "hunyuan eval", "started": 0.0, "version": "0", "packages": {}}


def test_equal_runs_do_not_differ_and_flips_are_listed(tmp_path: Path) -> None:
    first = finished(tmp_path / "1", [1.0, 0.0] * 50)
    (same,) = compare(first, finished(tmp_path / "2", [1.0, 0.0] * 50))
    assert same.p == 1
    assert not same.flips
    (better,) = compare(first, finished(tmp_path / "3", [1.0, 1.0] * 10 + [1.0, 0.0] * 40))
    assert [flip.doc_id for flip in better.flips] == list(range(1, 20, 2))
    assert better.significant
    assert better.p == pytest.approx(2 * 0.5**10)
    assert better.after - better.before == pytest.approx(0.1)


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    first = finished(tmp_path / "1", [1.0, 0.0])
    with pytest.raises(UsageError, match="differ in metric or shots"):
        compare(first, finished(tmp_path / "2", [1.0, 0.0], shots=5))
    other = finished(tmp_path / "3", [1.0, 0.0], benchmark="gsm8k")
    with pytest.raises(UsageError, match="no finished benchmark in common: piqa and gsm8k"):
        compare(first, other)


def test_a_folder_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    run = finished(tmp_path / "1", [1.0, 0.0])
    with pytest.raises(UsageError, match="another model and plan; choose another folder"):
        run.begin({"model": {"name": "x"}, "plan": {"chat": True}, "data": "hub"} | ABOUT)


# --- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("\\frac{1}{2}", "So it is $\\boxed{0.5}$.", True),
        ("\\frac{1}{2}", "Thus the final answer is $\\frac{2}{4}$. I hope it is correct.", True),
        ("[2,5)", "The domain is $\\boxed{[2,5)}$", True),
        ("[2,5)", "The domain is $\\boxed{(2,5)}$", False),
        ("-\\frac{2}{3}", "$\\boxed{\\frac{2}{3}}$", False),
        ("16", "We get \\boxed{16}. Then he rests.", True),
        ("16", "No idea", False),
        ("x^2+2x+1", "$\\boxed{(x+1)^2}$", True),
        ("9", "\\boxed{9^{9^{9^{9}}}}", False),
    ],
)
def test_mathematics_is_judged_by_value(expected: str, answer: str, right: bool) -> None:
    assert same_value(expected, answer) is right


@pytest.mark.parametrize(
    ("solution", "box"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1} or rather \\boxed{2}", "2"),
        ("\\boxed 7$", "7"),
        ("nothing", None),
        ("\\boxed{never closed", None),
    ],
)
def test_the_last_box_counts(solution: str, box: str | None) -> None:
    assert final_box(solution) == box


@pytest.mark.parametrize(
    ("kind", "arguments", "good", "bad"),
    [
        ("keywords:existence", {"keywords": ["sea"]}, "By the Sea.", "By the shore."),
        ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocky", "a rock."),
        (
            "length_constraints:number_sentences",
            {"relation": "less than", "num_sentences": 3},
            "Mr. Li came. He left.",
            "One. Two. Three.",
        ),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
        ("detectable_format:title", {}, "<<On trees>>\nThey grow.", "<<>>"),
        ("combination:two_responses", {}, "yes******no", "yes******yes"),
        ("startend:quotation", {}, '"all of it"', '"half" of it'),
        ("change_case:english_lowercase", {}, "this is a quiet sentence.", "This is not."),
        ("language:response_language", {"language": "de"}, "Das ist ein guter Tag.", "A day."),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "x\np. s. y", "PS y"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"},
            "One.\n\n'Weekend, again'",
            "One.\n\nA weekend",
        ),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "at least"},
            "ONE TWO three",
            "One TWO",
        ),
    ],
)
def test_instructions_are_checked(
    kind: str, arguments: dict[str, Any], good: str, bad: str
) -> None:
    assert follows(good, kind, arguments)
    assert not follows(bad, kind, arguments)
    assert not follows(" ", kind, arguments)


def test_a_loose_reading_forgives_an_opening_line() -> None:
    answer = "Sure, here it is:\nquiet words only"
    assert not follows(answer, "change_case:english_lowercase", {})
    assert follows_loosely(answer, "punctuation:no_comma", {})


@given(
    st.sampled_from(KINDS), st.sampled_from(["en", "zh"]), st.integers(1000, 5000), st.integers()
)
def test_long_prompts_hold_their_answers_and_fit(
    kind: Any, language: Any, length: int, seed: int
) -> None:
    made = make_prompt(kind, language, length, seed, len)
    assert made == make_prompt(kind, language, length, seed, len)
    assert len(made["prompt"]) <= length
    if kind != "words":
        assert all(answer in made["prompt"] for answer in made["answers"])


def test_the_frequent_words_are_the_most_frequent() -> None:
    made = make_prompt("words", "en", 4000, 0, len)
    words = made["prompt"].partition("words: ")[2].partition("\n")[0].split(", ")
    counts = Counter(words)
    assert {word for word, _ in counts.most_common(3)} == set(made["answers"])


# --- the report -----------------------------------------------------------------------------


def test_published_and_measured_figures_have_columns_of_their_own(tmp_path: Path) -> None:
    run = finished(tmp_path / "mine", [1.0, 0.0, 1.0, 1.0])
    data = page_data([run])
    assert data["published"]["pretrain"]["rows"]["piqa"][-1] == 88.3
    assert "instruct" not in data["published"]
    assert data["runs"][0]["results"]["piqa"]["examples"][0]["answer"] == "two"
    text = evaluation_markdown([run], "en")
    assert "| PIQA | - | - | 83.6 | 83.7 | 88.3 | **75.0** ± 2.0 (n=4, 0-shot) |" in text
    assert "实测" in evaluation_markdown([run], "zh")


def test_a_run_without_results_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no finished benchmark"):
        page_data([EvaluationRun(tmp_path)])


# --- whole runs -----------------------------------------------------------------------------

RUN = """
import os, sys
os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
from pathlib import Path
from lm_eval.api.model import LM
from hunyuan.evaluate.run import Plan, evaluate
from hunyuan.evaluate.run_folder import EvaluationRun
from hunyuan.evaluate.suites import benchmarks

class Slow(LM):
    "Answers depend on the question alone; says on stdout that it was asked."
    def _asked(self, requests, answer):
        answers = []
        for request in requests:
            print(request.args[0][-30:].replace("\\n", " "), flush=True)
            answers.append(answer(request.args))
        return answers
    def loglikelihood(self, requests):
        return self._asked(requests, lambda a: (-float(len(a[1]) % 7), False))
    def loglikelihood_rolling(self, requests):
        raise AssertionError
    def generate_until(self, requests):
        return self._asked(requests, lambda a: f"It is #### {len(a[0]) % 80}")

class Subject:
    model = Slow()
    truncated = 0
    takes_seed = False
    def count_tokens(self, text):
        return len(text)
    def describe(self):
        return {}

data, out = Path(sys.argv[1]), Path(sys.argv[2])
plan = Plan(benchmarks=(benchmarks()["piqa"], benchmarks()["gsm8k"]), data=data, shots=2)
import hunyuan.evaluate.run as module
module._BATCH = 4
evaluate(Subject(), plan, EvaluationRun(out), progress=lambda *a: None)
"""


LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""


def start(
    data: Path, out: Path, cache: Path, largest_file: int | None = None
) -> "subprocess.Popen[str]":
    environment = {**os.environ, "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    limit = "" if largest_file is None else LIMIT.format(largest_file)
    return subprocess.Popen(
        [sys.executable, "-c", limit + RUN, str(data), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    data = small_folder(tmp_path / "data")
    whole = start(data, tmp_path / "whole", tmp_path / "cache")
    asked, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors[-2000:]
    asked_once = asked.splitlines()

    asked_in_all: list[str] = []
    # After the 3rd, the 50th and the 100th answer: in the first, in the second benchmark.
    for stop in (3, 50, 100):
        part = start(data, tmp_path / "killed", tmp_path / "cache")
        assert part.stdout is not None
        seen = len(asked_in_all)
        while seen < stop and (line := part.stdout.readline()):
            asked_in_all.append(line.rstrip("\n"))
            seen += 1
        part.send_signal(signal.SIGKILL)
        rest = part.stdout.read()
        asked_in_all += rest.splitlines()
        part.communicate()
        assert part.returncode == -signal.SIGKILL
    last = start(data, tmp_path / "killed", tmp_path / "cache")
    asked, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors[-2000:]
    asked_in_all += asked.splitlines()
    # At most the four requests between two writes are asked again, per kill.
    assert len(asked_once) <= len(asked_in_all) <= len(asked_once) + 3 * 4
    for name in ("results.json", "items/piqa.jsonl", "items/gsm8k.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_a_disk_that_fills_ends_the_run_and_more_room_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    data = small_folder(tmp_path / "data")
    whole = start(data, tmp_path / "whole", tmp_path / "cache")
    asked_once, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors[-2000:]
    names = ("results.json", "items/piqa.jsonl", "items/gsm8k.jsonl")
    sizes = {name: (tmp_path / "whole" / name).stat().st_size for name in names}
    answers = (tmp_path / "whole" / "responses.jsonl").stat().st_size
    asked_in_all: list[str] = []
    # While answers come, and when the items of the first benchmark are written.
    for room in (answers // 3, answers + 10):
        assert room < sizes["items/piqa.jsonl"]
        part = start(data, tmp_path / "full", tmp_path / "cache", largest_file=room)
        asked, errors = part.communicate(timeout=120)
        assert part.returncode == 1
        assert "DiskFullError" in errors.splitlines()[-1], errors[-2000:]
        asked_in_all += asked.splitlines()
        assert not (tmp_path / "full" / "results.json").exists()
        assert not list((tmp_path / "full").glob("items/*")), "nothing half-written"
    last = start(data, tmp_path / "full", tmp_path / "cache")
    asked, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors[-2000:]
    asked_in_all += asked.splitlines()
    assert len(asked_in_all) <= len(asked_once.splitlines()) + 4
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "full" / name).read_bytes()


def test_a_torn_line_of_answers_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    log = ResponseLog(path)
    log.add([("a", "一"), ("b", [-1.5, True])])
    log.close()
    path.write_bytes(path.read_bytes() + b'["c", "tor')
    again = ResponseLog(path)
    assert len(again) == 2
    assert again["a"] == "一"
    assert "c" not in again
    again.add([("c", "whole")])
    again.close()
    assert len(ResponseLog(path)) == 3
