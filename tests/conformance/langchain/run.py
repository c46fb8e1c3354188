"""Runs LangChain's chat and embeddings suites against the server and explains what did not pass.

    python tests/conformance/langchain/run.py          our server, a model told what to say
    python tests/conformance/langchain/run.py --url http://127.0.0.1:8000/v1 --model NAME

The suites need packages that contradict nothing here but are large (235 MB), so they get a virtual
environment of their own, made once below build/ (or --venv DIR).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
VENV = HERE.parents[2] / "build" / "langchain"
PACKAGES = ["langchain-tests==1.1.9", "langchain-openai==1.7.3"]

EXPLANATIONS = {
    "model_override": "one model is served; another name is a 404",
    "pdf": "text only: the models served here read no files",
    "audio": "text only: the models served here hear nothing",
    "image": "text only: the models served here see nothing",
    "anthropic_inputs": "blocks of Anthropic's are for /v1/messages, not for OpenAI's API",
    "stream_time": "measures LangChain's own overhead on recorded answers, not a server",
}
"""Why a test may be skipped, by a part of its name. A failure has no excuse."""


@dataclass(frozen=True)
class Result:
    """One test of a suite."""

    name: str
    outcome: str
    reason: str

    @property
    def explanation(self) -> str | None:
        """Why it may be skipped; None if that is not known."""
        if self.outcome != "skipped":
            return None
        found = [text for part, text in EXPLANATIONS.items() if part in self.name]
        return found[0] if found else None


def make_venv(folder: Path) -> Path:
    """The interpreter of an environment with the suites; made if it is not there."""
    python = folder / "bin" / "python"
    done = folder / "complete"
    wanted = "\n".join(PACKAGES)
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = ["-m", "pip", "--disable-pip-version-check", "-qq", "install", *PACKAGES]
        subprocess.run([str(python), *install], check=True)
        done.write_text(wanted)
    return python


def run(python: Path, url: str, model: str, embeddings: str, api: str = "chat") -> list[Result]:
    """Results of both suites against the server at ``url``, which ends in /v1."""
    environment = {
        "PATH": os.environ["PATH"],
        "SUITE_BASE_URL": url,
        "SUITE_MODEL": model,
        "SUITE_EMBEDDINGS": embeddings,
        "SUITE_API": api,
        "NO_PROXY": "*",
        "LANGSMITH_TRACING": "false",
    } | {k: v for k, v in os.environ.items() if k == "SUITE_API_KEY"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        arguments = [
            *("-m", "pytest", str(HERE / "suite.py"), "-q", "-p", "no:cacheprovider"),
            *("-c", os.devnull, f"--rootdir={HERE}", f"--confcutdir={HERE}"),
            f"--junitxml={report}",
            # One loop for all, or clients kept between tests belong to a closed one.
            *("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"),
            *("-o", "asyncio_default_fixture_loop_scope=session"),
        ]
        done = subprocess.run(
            [str(python), *arguments], env=environment, cwd=folder, capture_output=True, text=True
        )
        if not report.exists():
            raise SystemExit(f"the suites did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return list(_results(report))


def _results(report: Path) -> Iterator[Result]:
    for case in ElementTree.parse(report).iter("testcase"):
        outcome, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                reason = (child.get("message") or "").split("\n")[0][:160]
        suite = case.get("classname", "").rpartition(".")[2]
        yield Result(f"{suite}.{case.get('name')}", outcome, reason)


def table(results: list[Result]) -> str:
    """Counts, and a line for each test that did not pass."""
    count = {
        outcome: sum(result.outcome == outcome for result in results)
        for outcome in ("passed", "failed", "skipped")
    }
    lines = [", ".join(f"{number} {outcome}" for outcome, number in count.items())]
    for result in results:
        if result.outcome != "passed":
            why = result.explanation or f"NOT EXPLAINED: {result.reason}"
            lines.append(f"{result.outcome:8} {result.name:58} {why}")
    return "\n".join(lines)


@contextmanager
def own_server() -> Iterator[str]:
    """Our server over an engine that answers as a good model would."""
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
    from served import served_by_an_oracle

    with served_by_an_oracle() as address:
        yield f"{address}/v1"


def main() -> int:
    """The number of results that nothing explains."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", type=Path, default=VENV)
    parser.add_argument("--url", help="a running server, ending in /v1")
    parser.add_argument("--model", default="oracle")
    parser.add_argument("--embeddings", default="multilingual-e5-small")
    parser.add_argument("--prepare", action="store_true", help="make the environment only")
    options = parser.parse_args()
    python = make_venv(options.venv)
    if options.prepare:
        return 0
    unexplained = 0
    for api in ("chat", "responses"):
        if options.url is None:
            with own_server() as url:
                results = run(python, url, options.model, options.embeddings, api)
        else:
            results = run(python, options.url, options.model, options.embeddings, api)
        print(f"LangChain over {api}: {table(results)}\n")  # noqa: T201
        unexplained += sum(
            result.outcome != "passed" and result.explanation is None for result in results
        )
    return unexplained


if __name__ == "__main__":
    sys.exit(main())
