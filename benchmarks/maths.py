"""Questions of mathematics through the real server: correct, wrong, refused, and who understood.

    python benchmarks/maths.py --model qwen2.5-coder-0.5b-instruct
    python benchmarks/maths.py --model smollm2-135m-instruct
    python benchmarks/maths.py --model none

Starts ``hunyuan serve`` on a folder of its own, asks every question of tests/data/maths.jsonl,
maths_words.jsonl and maths_second.jsonl by /workbench/maths/ask, and compares with the known
answers. The second file was written by another hand before it had seen the rules, and was split in
two before anything ran: the rules were improved on its tuning half. With ``none`` no model is
asked.
Writes benchmarks/results/maths-MODEL.json; the part "before" of that file, the second hand's first
run, is kept.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from provenance import RESULTS, provenance

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from maths_grading import grade  # noqa: E402

SETS: dict[str, tuple[str, str, bool | None]] = {
    # name -> file, half, whether word problems (None: whatever the file has)
    "questions": ("maths.jsonl", "", None),
    "word problems": ("maths_words.jsonl", "", None),
    "second hand, tuning": ("maths_second.jsonl", "tuning", False),
    "second hand, held-out": ("maths_second.jsonl", "held-out", False),
    "second hand, word problems, tuning": ("maths_second.jsonl", "tuning", True),
    "second hand, word problems, held-out": ("maths_second.jsonl", "held-out", True),
}


def chosen(file: str, half: str, words: bool | None) -> list[dict[str, Any]]:
    """The questions of a set."""
    lines = (TESTS / "data" / file).read_text(encoding="utf-8").splitlines()
    return [
        known
        for known in map(json.loads, lines)
        if (not half or known["split"] == half)
        and (words is None or (known["area"] == "word problem") == words)
    ]


@contextmanager
def server(model: str) -> Iterator[str]:
    """The address of a server with a model, or with an upstream that is never asked."""
    nobody = ["--upstream", "http://127.0.0.1:9/v1", "--upstream-model", "none"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hunyuan", "serve", "--port", "0", "--data", folder]
        command += nobody if model == "none" else [model]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if (start := line.find("http://127.0.0.1:")) >= 0 and "upstream" not in line:
                    address = line[start:].split()[0].rstrip("/,.")
                    if not address.endswith(":9/v1"):
                        yield address
                        return
            sys.exit("the server did not start:\n" + "".join(said))
        finally:
            process.terminate()
            process.wait(timeout=30)


def ask(client: httpx2.Client, question: str, with_model: bool) -> dict[str, Any]:
    """The last event of a question."""
    body = {"question": question, "model": with_model}
    with client.stream("POST", "/workbench/maths/ask", json=body) as reply:
        last: dict[str, Any] = {"type": "error"}
        for line in reply.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
        return last


def run(client: httpx2.Client, questions: list[dict[str, Any]], with_model: bool) -> dict[str, Any]:
    """Ask every question; counts and what was not right."""
    outcomes: Counter[str] = Counter()
    by: Counter[str] = Counter()
    failures, seconds = [], []
    for known in questions:
        start = time.perf_counter()
        event = ask(client, known["q"], with_model)
        seconds.append(time.perf_counter() - start)
        outcome = grade(known, event)
        outcomes[outcome] += 1
        reader = event.get("understood_by", "nobody")
        by[f"{outcome}, read by {reader}"] += 1
        if outcome != "correct":
            shown = (event.get("result") or {}).get("exact") or event.get("message")
            failures.append({"question": known["q"], "outcome": outcome, "shown": shown})
    seconds.sort()
    return {
        "asked": len(seconds),
        **{name: outcomes[name] for name in ("correct", "wrong", "refused")},
        "read_by": dict(sorted(by.items())),
        "seconds_median": round(seconds[len(seconds) // 2], 3),
        "seconds_95": round(seconds[int(0.95 * len(seconds))], 3),
        "failures": failures,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    model = parser.parse_args().model
    results: dict[str, Any] = {}
    with server(model) as address, httpx2.Client(base_url=address, timeout=120) as client:
        for name, (file, half, words) in SETS.items():
            results[name] = found = run(client, chosen(file, half, words), model != "none")
            share = 100 * found["correct"] / found["asked"]
            print(
                f"{name}: {found['asked']} asked, {found['correct']} correct ({share:.1f} %), "
                f"{found['wrong']} wrong, {found['refused']} refused; median "
                f"{found['seconds_median']} s, 95 % within {found['seconds_95']} s"
            )
            for reader, count in found["read_by"].items():
                print(f"    {count:4}  {reader}")
            for failure in found["failures"]:
                print(f"    {failure['outcome']}: {failure['question']} -> {failure['shown']}")
    path = RESULTS / f"maths-{model}.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8")).get("before")):
        results["before"] = before
    path.write_text(
        json.dumps({"model": model, **results, **provenance()}, indent=1, ensure_ascii=False) + "\n"
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
