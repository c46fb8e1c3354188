"""The screens of code and models in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import PacedBackend, TwoModels, opened
from serving import listening
from test_workbench_models import write_run

from hunyuan.serve.app import create_app
from hunyuan.serve.stats import ServingStats
from hunyuan.workbench.app import PAGE, workbench_routers
from hunyuan.workbench.folder import DataFolder

pytestmark = pytest.mark.browser
browser = pages.browser

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


class BusyMixture(TwoModels):
    """A mixture of experts with one request under way."""

    def stats(self) -> ServingStats:
        return ServingStats(
            running=1,
            waiting=0,
            cache_used=0.5,
            cache_tokens=4096,
            prompt_tokens=100,
            reused_tokens=25,
            generation_tokens=40,
            expert_layers=[1],
            expert_tokens=[[30, 10, 0, 0]],
        )


@pytest.fixture
def backend() -> PacedBackend:
    return PacedBackend()


@pytest.fixture
def address(tmp_path: Path, backend: PacedBackend) -> Iterator[str]:
    write_run(tmp_path / "runs/one", range(1, 31))
    write_run(tmp_path / "runs/two", range(1, 21))
    (tmp_path / "runs/one/checkpoints/step-00002000").mkdir(parents=True)
    host = BusyMixture(backend)
    with DataFolder(tmp_path / "data") as folder:
        routers = workbench_routers(host, folder, runs=tmp_path / "runs", results=RESULTS)
        with listening(create_app(host, routers=routers, page=PAGE)) as served:
            yield served


def test_a_program_is_written_run_and_corrected(
    browser: Any, address: str, backend: PacedBackend
) -> None:
    backend.answers = ["```python\nprint(6 * 8)\n```", "It prints a **number**."]
    with opened(browser, address) as page:
        page.goto(f"{address}/#/code")
        page.fill("#code-task", "six times eight")
        page.press("#code-task", "Enter")
        page.get_by_role("button", name="Put into the editor").click()
        assert page.input_value("#code-editor") == "print(6 * 8)"
        assert page.get_by_text("48").count() == 0, "nothing runs by itself"
        page.press("#code-editor", "Control+Enter")
        page.get_by_text("48", exact=True).wait_for()
        page.get_by_role("button", name="Explain").click()
        page.locator(".code-explanation strong", has_text="number").wait_for()

        page.fill("#code-editor", "x = 1\nprint(y)")
        page.get_by_role("button", name="Run").click()
        page.get_by_text("line 2: NameError").wait_for()
        assert page.locator(".editor-gutter .marked").inner_text() == "2"
        backend.answers = ["```python\nx = 1\nprint(x)\n```"]
        page.get_by_role("button", name="Fix the error").click()
        page.get_by_role("button", name="Put into the editor").click()
        assert page.input_value("#code-editor") == "x = 1\nprint(x)"
        page.get_by_role("button", name="Undo").click()
        assert page.input_value("#code-editor") == "x = 1\nprint(y)"


def test_the_editor_indents_and_lets_the_keyboard_go(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        page.goto(f"{address}/#/code")
        page.focus("#code-editor")
        page.keyboard.type("if True:\nprint(1)\nprint(2)")
        assert page.input_value("#code-editor") == "if True:\n    print(1)\n    print(2)"
        page.keyboard.press("Control+A")
        page.keyboard.press("Shift+Tab")
        assert page.input_value("#code-editor") == "if True:\nprint(1)\nprint(2)"
        page.keyboard.press("Tab")
        assert page.input_value("#code-editor").splitlines()[1] == "    print(1)"
        page.keyboard.press("Control+Z")
        assert page.input_value("#code-editor") == "if True:\nprint(1)\nprint(2)"
        page.keyboard.press("Escape")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") != "code-editor"


def test_a_program_can_be_stopped_and_is_remembered(browser: Any, address: str) -> None:
    with opened(browser, address, "zh-CN") as page:
        page.goto(f"{address}/#/code")
        page.fill("#code-editor", "while True: pass")
        page.get_by_role("button", name="运行").click()
        page.get_by_role("button", name="停止").click()
        page.get_by_text("已停止。").wait_for()
        page.fill("#code-editor", "6 * 7")
        page.press("#code-editor", "Control+Enter")
        page.get_by_text("42", exact=True).wait_for()
        page.reload()
        assert page.input_value("#code-editor") == "6 * 7"
        page.get_by_role("button", name="沙箱与历史").click()
        page.get_by_text("无文件、网络和进程访问").wait_for()
        page.locator(".code-history code", has_text="6 * 7").wait_for()


def test_the_parts_of_models(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        page.goto(f"{address}/#/models")
        page.get_by_text("1 running, 0 waiting").wait_for()
        page.get_by_role("img", name="Experts, live").wait_for()
        page.get_by_role("radio", name="Since the start").check(force=True)
        heat = page.locator(".heat canvas")
        heat.focus()
        heat.press("ArrowRight")
        page.get_by_text("Layer 1, expert 0: 3 times an even share").wait_for()

        page.get_by_role("tab", name="Catalogue").click()
        entry = page.locator(".model-entry", has_text="Hunyuan-Large Instruct (bf16)")
        entry.get_by_text("Not open source").wait_for()

        page.get_by_role("tab", name="Training runs").click()
        page.locator(".curves canvas").wait_for()
        page.get_by_role("checkbox", name="Compare: one").check()
        page.get_by_role("checkbox", name="Compare: two").check()
        page.locator(".u-legend", has_text="two").wait_for()
        page.get_by_role("link", name="one").click()
        page.get_by_role("heading", name="one").wait_for()
        page.get_by_text("Load over the run, layer 0").wait_for()
        page.get_by_role("button", name="Load: Step 2,000").click()
        page.locator(".checkpoints .badge.on").wait_for()
        page.get_by_role("button", name="All runs").click()

        page.get_by_role("tab", name="Benchmarks").click()
        page.locator(".results .section").first.wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1024, "dark"), (1920, "light")])
def test_nothing_overflows_and_axe_finds_nothing_serious(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": width, "height": 900}
    with opened(
        browser, address, "zh-CN", viewport=size, color_scheme=scheme, bypass_csp=True
    ) as page:
        for place, ready in {
            "code": ".empty",
            "models": ".live",
            "models/catalogue": ".catalogue",
            "models/runs": ".curves canvas",
            "models/benchmarks": ".results",
        }.items():
            page.goto(f"{address}/#/{place}")
            page.locator(ready).first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place
            found = Axe().run(page).response["violations"]
            serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
            assert not serious, (place, serious)
