"""Whatever fits, or nearly fits, our own OpenAPI document: nothing is answered with a 5xx."""

import subprocess
import sys
from pathlib import Path

from served import served_by_a_random_model


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    with served_by_a_random_model(tmp_path / "model") as address:
        arguments = [
            *("run", f"{address}/openapi.json", "--checks", "not_a_server_error"),
            *("--phases", "coverage,fuzzing", "--max-examples", "15", "--max-time", "25"),
            *("--no-shrink", "--no-color", "--seed", "1", "--warnings", "off"),
        ]
        tool = Path(sys.executable).parent / "schemathesis"
        done = subprocess.run(
            [str(tool), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
