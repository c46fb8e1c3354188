"""Evaluations on the workbench and the report page, in a real Chromium."""

import json
import re
from pathlib import Path
from typing import Any

import pages
import pytest
from serving import app_of, http, listening
from test_evaluate import finished

from hunyuan.evaluate.page import evaluation_page
from hunyuan.evaluate.run_folder import EvaluationRun, Score
from hunyuan.serve.app import create_app
from hunyuan.workbench.app import PAGE, workbench_routers
from hunyuan.workbench.evaluations import evaluation_folders, evaluations_router
from hunyuan.workbench.folder import DataFolder

browser = pages.browser
WIDTHS = (390, 820, 1440)
WARNING = {"en": "PIQA: trained on it", "zh": "PIQA：训练过"}


def evaluation(folder: Path) -> EvaluationRun:
    """A run with parts, several answers, a warning and a wrong answer."""
    subjects = ("us_history", "a_subject_of_a_very_long_name_that_goes_on", "physics")
    parts = {
        f"mmlu_{name}": Score(value=0.3 + 0.2 * i, stderr=0.05, items=40)
        for i, name in enumerate(subjects)
    }
    more = {f"pass@{k}": Score(value=0.4 + 0.1 * k, stderr=0.03, items=4) for k in (1, 2, 3)}
    run = finished(folder, [1.0, 0.0, 1.0, 1.0], parts=parts, more=more, repeats=3, truncated=2)
    described = run.described()
    assert described is not None
    described["contamination"] = {"stages": [], "warnings": {"piqa": WARNING}}
    (folder / "run.json").write_text(json.dumps(described))
    return run


def test_evaluations_are_found_below_both_folders(tmp_path: Path) -> None:
    evaluation(tmp_path / "runs" / "eval" / "one")
    evaluation(tmp_path / "results" / "two")
    (tmp_path / "outside").mkdir()
    evaluation(tmp_path / "outside" / "three")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "runs" / "half").mkdir()
    (tmp_path / "runs" / "half" / "results.json").write_text("{}")
    found = evaluation_folders([tmp_path / "runs", tmp_path / "results", None, tmp_path / "none"])
    assert {folder.name for folder in found} == {"eval/one", "two"}
    router = evaluations_router(tmp_path / "runs", tmp_path / "results")
    with listening(app_of(router)) as address, http(address) as web:
        listed = web.get("/workbench/evaluations").json()["evaluations"]
        assert listed[0]["scores"][0]["title"] == "PIQA"
        assert listed[0]["warnings"] == 1
        assert str(tmp_path) not in json.dumps(listed)
        shown = web.get(f"/workbench/evaluations/{listed[0]['id']}").json()
        assert shown["runs"][0]["results"]["piqa"]["more"]["pass@2"] == [0.6, 0.03]
        assert web.get("/workbench/evaluations/nothing").status_code == 404
        for path in tmp_path.glob("r*/**/run.json"):
            path.write_text('{"model": {}}')
        assert web.get("/workbench/evaluations").status_code == 200
        answer = web.get(f"/workbench/evaluations/{listed[0]['id']}")
        assert answer.status_code == 422
        assert "cannot be read" in answer.json()["error"]["message"]


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_workbench_shows_an_evaluation(tmp_path: Path, browser: Any, locale: str) -> None:
    evaluation(tmp_path / "runs" / "eval" / "one")
    host = pages.TwoModels(pages.PacedBackend())
    with DataFolder(tmp_path / "data") as data:
        routers = workbench_routers(host, data, runs=tmp_path / "runs")
        app = create_app(host, routers=routers, page=PAGE)
        with listening(app) as address:
            place = f"{address}/#/models/evaluations"
            with pages.opened(browser, place, locale) as page:
                page.get_by_role("link", name="eval/one").click()
                page.locator(".eval-name").wait_for()
                text = page.locator(".models").inner_text()
                assert WARNING["zh" if locale == "zh-CN" else "en"] in text
                assert "88.3" in text, "the published figure"
                assert re.search(r"75\.0\s*±\s*2\.0", text)
                summary = page.locator("summary", has_text="PIQA").nth(1)
                summary.click()
                assert "us history" in page.locator(".eval-bars").all_inner_texts()[1]
                page.locator("summary", has_text="PIQA").nth(2).click()
                assert "Question 1" in page.locator(".eval-example").first.inner_text()
                for width in WIDTHS:
                    page.set_viewport_size({"width": width, "height": 900})
                    assert overflow(page) <= 0, width


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_report_stands_alone_at_every_width(tmp_path: Path, browser: Any, locale: str) -> None:
    runs = [evaluation(tmp_path / name) for name in ("one", "another_run_with_a_rather_long_name")]
    file = tmp_path / "report.html"
    file.write_bytes(evaluation_page(runs))
    asked: list[str] = []
    for width in WIDTHS:
        size = {"width": width, "height": 900}
        with pages.opened(browser, "about:blank", locale, viewport=size) as page:
            page.on("request", lambda request: asked.append(request.url))
            page.goto(file.as_uri())
            page.locator(".bars").first.wait_for()
            assert overflow(page) <= 0, width
            text = page.locator("body").inner_text()
            assert WARNING["zh" if locale == "zh-CN" else "en"] in text
            assert "pass@3" in text
    assert set(asked) == {file.as_uri()}, "nothing is asked of anyone"
