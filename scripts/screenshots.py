"""Pictures of every place of the workbench for the README, in both languages.

    python scripts/screenshots.py [URL]

Drives a real browser against a server with the default model (URL, or one that is started here with
an empty data folder) and writes ``docs/screens/PLACE.LANGUAGE.png``.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "screens"
MODEL = "qwen2.5-coder-0.5b-instruct"
SIZE = {"width": 1200, "height": 760}
PATIENCE = 90_000
"""Milliseconds an answer may take."""

TEXTS = {
    "en": {
        "ask": "Write a Python function that tells whether a number is prime.",
        "solve": "solve x^2 - 5x + 6 = 0",
        "plot": "plot sin x and x/3 from -6 to 6",
        "sample": "Try the sample",
        "write": "Polish a rough text",
        "code": "total = sum(n * n for n in range(1, 11))\nprint('squares:', total)\ntotal / 10",
    },
    "zh": {
        "ask": "写一个判断质数的 Python 函数。",
        "solve": "求 x^2-5x+6=0 的解",
        "plot": "画出 y=sin(x) 和 y=x/3 的图像",
        "sample": "试用示例文档",
        "write": "润色一段草稿",
        "code": "total = sum(n * n for n in range(1, 11))\nprint('平方和：', total)\ntotal / 10",
    },
}


def chat(page: Any, words: dict[str, str]) -> None:
    """A question and its answer."""
    page.keyboard.type(words["ask"])
    page.keyboard.press("Enter")
    # How fast it was stands under an answer that is complete.
    page.get_by_text(re.compile("tokens/s|每秒|per second")).first.wait_for(timeout=PATIENCE)


def write(page: Any, words: dict[str, str]) -> None:
    """A rough text, and what polishing would change."""
    page.get_by_text(words["write"]).first.click()
    page.wait_for_timeout(30_000)


def maths(page: Any, words: dict[str, str]) -> None:
    """An equation and a graph."""
    for question in (words["solve"], words["plot"]):
        page.keyboard.type(question)
        page.keyboard.press("Enter")
        page.wait_for_timeout(4_000)


def knowledge(page: Any, words: dict[str, str]) -> None:
    """The sample documents and their first question."""
    page.get_by_text(words["sample"]).first.click()
    page.wait_for_timeout(20_000)


def code(page: Any, words: dict[str, str]) -> None:
    """A program and what it printed."""
    page.locator("textarea").last.fill(words["code"])
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(3_000)


def models(page: Any, words: dict[str, str]) -> None:
    """What is loaded."""
    page.wait_for_timeout(2_000)


PLACES: dict[str, Callable[[Any, dict[str, str]], None]] = {
    "chat": chat,
    "write": write,
    "maths": maths,
    "knowledge": knowledge,
    "code": code,
    "models": models,
}


@contextmanager
def server() -> Iterator[str]:
    """The address of a server of our own."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "hunyuan", "serve", MODEL, "--port", "0", "--data", data]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "the server did not start"
            yield found[0]
        finally:
            process.terminate()
            process.wait()


def take(url: str) -> None:
    """All pictures."""
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for language, locale in (("en", "en-US"), ("zh", "zh-CN")):
            for place, act in PLACES.items():
                page = browser.new_page(viewport=SIZE, locale=locale, color_scheme="light")
                page.goto(f"{url}/#/{place}")
                page.wait_for_timeout(2_000)
                act(page, TEXTS[language])
                page.wait_for_timeout(1_000)
                page.screenshot(path=OUT / f"{place}.{language}.png")
                page.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(sys.argv[1])
    else:
        with server() as address:
            take(address)
