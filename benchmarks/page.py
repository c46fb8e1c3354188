"""How soon the workbench can be used, and how much it loads, in a real browser on this machine.

    python benchmarks/page.py [--rounds 7]

Every round opens each place in a fresh browser context (nothing cached) against `hunyuan serve`
with a model. Usable: the place's own control is there. Prints the median and the spread, and writes
results/page.json.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import sync_playwright

RESULT = Path(__file__).parent / "results" / "page.json"
CONTROLS = {
    "chat": ".composer textarea",
    "write": "button",
    "maths": "textarea",
    "knowledge": "button",
    "code": "textarea",
    "models": ".page-title h1",
}


@contextmanager
def serving(model: str) -> Iterator[str]:
    """A server with an empty data folder, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "hunyuan", "serve", model, "--port", "0", "--data", data]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "the server did not start"
            yield found[0]
        finally:
            process.terminate()
            process.wait()


def measure(url: str, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds until usable and bytes received, for every place."""
    figures = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for place, control in CONTROLS.items():
            times, sizes = [], []
            for _ in range(rounds):
                context = browser.new_context(locale="en-US")
                page = context.new_page()
                received: list[int] = []
                page.on("response", lambda r, received=received: received.append(len(r.body())))
                page.goto(f"{url}/#/{place}")
                page.locator(".page-title h1").wait_for()
                page.locator(control).first.wait_for()
                times.append(page.evaluate("performance.now()"))
                page.wait_for_load_state("networkidle")
                sizes.append(sum(received))
                context.close()
            figures[place] = {
                "usable_ms": round(statistics.median(times)),
                "least_ms": round(min(times)),
                "most_ms": round(max(times)),
                "received_bytes": max(sizes),
            }
    return figures


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    options = parser.parse_args()
    with serving(options.model) as url:
        figures = measure(url, options.rounds)
    for place, row in figures.items():
        spread = f"{row['least_ms']}-{row['most_ms']}"
        print(f"{place:10} {row['usable_ms']} ms ({spread}), {row['received_bytes'] / 1000:.0f} kB")
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/page.py", *sys.argv[1:]]),
        "places": figures,
    }
    RESULT.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
