"""Scaling laws: known exponents are found again, intervals cover them, the report's numbers."""

import importlib.util
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hunyuan.cli.main import run as hunyuan
from hunyuan.errors import UsageError
from hunyuan.report.finished import finished_runs
from hunyuan.report.paper import paper_numbers
from hunyuan.report.scaling import (
    PAPER,
    SIX,
    Compute,
    CriticalBatch,
    Measurement,
    PowerLaw,
    fit_budgets,
    group_by_budget,
)
from hunyuan.report.scaling_page import fit, plain, scaling_page
from hunyuan.report.surface import Surface, fit_surface

needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None,
    reason="SciPy is not installed: the fit to all runs at once is not checked",
)

BUDGETS = np.geomspace(5e18, 9.5e19, 9).tolist()
SIZE = PowerLaw(factor=0.21, exponent=0.48)
LAW = Surface(
    floor=1.7, size_factor=400.0, size_exponent=0.34, data_factor=410.0, data_exponent=0.28
)


def sweep(
    noise: float = 0.0,
    seed: int = 0,
    compute: Compute = SIX,
    spread: Iterable[float] = (0.25, 0.5, 0.8, 1.25, 2, 4),
) -> list[Measurement]:
    """Runs whose loss is a parabola in log N about N_opt = 0.21 C^0.48, at nine budgets."""
    random = np.random.default_rng(seed)
    runs = []
    for i, flops in enumerate(BUDGETS):
        for factor in spread:
            size = SIZE.at(flops) * factor
            loss = 2 + 1e3 / flops**0.17 + 0.3 * math.log10(factor) ** 2 + random.normal(0, noise)
            tokens = compute.tokens(size, flops)
            runs.append(measured(f"c{i}-x{factor}", size, tokens, loss))
    return runs


def measured(name: str, size: float, tokens: float, loss: float) -> Measurement:
    return Measurement(name=name, parameters=size, tokens=tokens, loss=loss, batch_tokens=5e5)


def on_surface(noise: float = 0.0, seed: int = 0) -> list[Measurement]:
    random = np.random.default_rng(seed)
    return [
        measured(f"{n:g}-{d:g}", n, d, LAW.loss(n, d) * math.exp(random.normal(0, noise)))
        for n in np.geomspace(1e7, 1e9, 5).tolist()
        for d in np.geomspace(1e10, 1e11, 4).tolist()
    ]


# ---------------------------------------------------------------- compute


def test_the_report_reproduces_its_own_optimum() -> None:
    found = paper_numbers()
    assert found.flops == pytest.approx(3.11e24, rel=2e-3)
    assert found.size == pytest.approx(58.1e9, rel=1e-9)
    assert found.tokens == pytest.approx(5.6e12, rel=0.01)
    # Three ways to the budget agree within 3 %.
    ways = [found.flops, found.flops_by_tokens, found.flops_of_pair]
    assert max(ways) / min(ways) < 1.03
    assert found.flops_of_pair == pytest.approx(9.59 * 58.1e9 * 5.6e12 + 2.3e8 * 5.6e12)
    assert found.flops_chosen / found.flops == pytest.approx(1.12, abs=0.01)
    assert paper_numbers(1e22).size == pytest.approx(5.9e-3 * 1e22**0.5305)


@given(st.floats(1e5, 1e12), st.floats(1e6, 1e14))
def test_tokens_are_what_the_compute_pays_for(size: float, tokens: float) -> None:
    for compute in (PAPER, SIX):
        flops = compute.flops(size, tokens)
        assert compute.tokens(size, flops) == pytest.approx(tokens)
        assert compute.fixed_share(size) == pytest.approx(compute.token * tokens / flops)
    assert PAPER.flops(size, tokens) == pytest.approx(9.59 * size * tokens + 2.3e8 * tokens)


def test_both_forms_of_least_compute() -> None:
    critical = CriticalBatch(scale=2.1e8, exponent=0.21)
    loss = 3.0
    at = critical.at(loss)
    assert at == pytest.approx(2.1e8 / 3 ** (1 / 0.21))
    inverse = replace(critical, form="inverse")
    # At the critical batch both halve the compute; far below it, the printed form takes nothing
    # and the inverse one all; far above it is the other way round.
    assert critical.least_compute(1e20, at, loss) == pytest.approx(5e19)
    assert inverse.least_compute(1e20, at, loss) == pytest.approx(5e19)
    assert critical.least_compute(1e20, at / 1e6, loss) == pytest.approx(1e20, rel=1e-5)
    assert inverse.least_compute(1e20, at / 1e6, loss) == pytest.approx(1e14, rel=1e-5)
    assert critical.least_compute(1e20, at * 1e6, loss) == pytest.approx(1e14, rel=1e-5)
    for batch in (1e3, 1e5, 1e7):
        both = [c.least_compute(1e20, batch, loss) for c in (critical, inverse)]
        assert sum(both) == pytest.approx(1e20)


# ---------------------------------------------------------------- by budget


@pytest.mark.parametrize("compute", [SIX, PAPER])
def test_noiseless_parabolas_give_the_law_exactly(compute: Compute) -> None:
    laws = fit_budgets(sweep(compute=compute), compute)
    assert laws.size.exponent == pytest.approx(SIZE.exponent, rel=1e-6)
    assert laws.size.factor == pytest.approx(SIZE.factor, rel=1e-4)
    for budget, flops in zip(laws.budgets, BUDGETS, strict=True):
        assert budget.flops == pytest.approx(flops)
        assert budget.loss == pytest.approx(2 + 1e3 / flops**0.17)
        x = math.log10(budget.size * 3)
        a, b, c = budget.curve
        assert a * x * x + b * x + c == pytest.approx(budget.loss + 0.3 * math.log10(3) ** 2)
        assert compute.flops(budget.size, budget.tokens) == pytest.approx(flops)
    if compute == SIX:
        assert laws.tokens.exponent == pytest.approx(1 - SIZE.exponent, rel=1e-6)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered, widths = 0, []
    for seed in range(30):
        alpha = fit_budgets(sweep(0.004, seed), SIX, seed=seed).size_exponent()
        assert alpha.interval is not None
        assert alpha.value == pytest.approx(SIZE.exponent, abs=0.1)
        covered += alpha.interval[0] <= SIZE.exponent <= alpha.interval[1]
        widths.append(alpha.interval[1] - alpha.interval[0])
    # 28.5 are expected; fewer than 24 of 30 would come by chance less than once in 500 times.
    assert covered >= 24
    assert 0.005 < np.mean(widths) < 0.15


def test_the_interval_of_a_prediction_grows_with_the_distance() -> None:
    laws = fit_budgets(sweep(0.004), SIX)

    def width(flops: float) -> float:
        found = laws.best_size(flops)
        assert found.interval is not None
        assert found.interval[0] < found.value < found.interval[1]
        return math.log(found.interval[1] / found.interval[0])

    assert width(2e19) < width(1e22) < width(1e25)


def test_a_seed_repeats_the_intervals() -> None:
    first, second = (fit_budgets(sweep(0.004), SIX, seed=3).size_exponent() for _ in range(2))
    assert first == second
    assert first != fit_budgets(sweep(0.004), SIX, seed=4).size_exponent()


def test_parabolas_through_three_points_leave_no_interval() -> None:
    laws = fit_budgets(sweep(spread=(0.5, 1, 2)), SIX)
    assert laws.size.exponent == pytest.approx(SIZE.exponent)
    assert laws.size_exponent().interval is None
    assert laws.best_tokens(1e20).interval is None


def test_least_compute_moves_the_law() -> None:
    critical = CriticalBatch(scale=2.1e8, exponent=0.21)
    plain_laws, least = fit_budgets(sweep(), SIX), fit_budgets(sweep(), SIX, critical)
    for before, after in zip(plain_laws.budgets, least.budgets, strict=True):
        ratio = 5e5 / critical.at(before.loss)
        assert after.least_flops == pytest.approx(before.flops / (1 + ratio))
        assert after.size == before.size
    x = np.log([budget.least_flops for budget in least.budgets])
    y = np.log([budget.size for budget in least.budgets])
    assert least.size.exponent == pytest.approx(np.polyfit(x, y, 1)[0])


def test_runs_of_about_the_same_compute_share_a_budget() -> None:
    runs = [measured("", 1e8, tokens, 3) for tokens in (1e9, 1.05e9, 1.2e9, 1.25e9, 2e9)]
    assert [len(group) for group in group_by_budget(runs[::-1], SIX)] == [2, 2, 1]


def test_what_has_no_lowest_point_is_named() -> None:
    runs = sweep()
    laws = fit_budgets([run for run in runs if run.name not in ("c0-x2", "c0-x4", "c0-x1.25",
                                                                "c0-x0.8")], SIX)  # fmt: skip
    assert len(laws.budgets) == 8
    ((en, zh),) = laws.skipped
    assert en == "5e+18 FLOPs: 2 sizes, a parabola needs 3; train other sizes with the same compute"
    assert "只有 2 种规模" in zh
    left = fit_budgets(sweep(spread=(0.02, 0.05, 0.1, 0.2))[:4] + runs[6:], SIX)
    assert "no lowest loss between" in left.skipped[0][0]
    assert left.skipped[0][0].endswith("train larger sizes")
    right = fit_budgets(sweep(spread=(5, 10, 20))[:3] + runs[6:], SIX)
    assert right.skipped[0][0].endswith("train smaller sizes")


def test_too_few_budgets_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        fit_budgets(sweep()[:12], SIX)
    assert caught.value.en.startswith("2 budgets with a lowest loss, power laws need 3; train")
    with pytest.raises(UsageError, match=r"^0 budgets .*\(5e\+18 FLOPs: 1 size, a parabola needs"):
        fit_budgets(sweep()[:1], SIX)
    with pytest.raises(UsageError, match="0 budgets"):
        fit_budgets([], SIX)


# ---------------------------------------------------------------- by all runs at once


@needs_scipy
def test_a_noiseless_surface_is_found_exactly() -> None:
    found = fit_surface(on_surface()).law
    for figure in ("floor", "size_factor", "size_exponent", "data_factor", "data_exponent"):
        assert getattr(found, figure) == pytest.approx(getattr(LAW, figure), rel=1e-3)


@needs_scipy
def test_a_noisy_surface_is_found_within_its_interval() -> None:
    found = fit_surface(on_surface(0.002, seed=1))
    for figure in ("floor", "size_exponent", "data_exponent"):
        estimate = found.estimate(figure)
        assert estimate.interval is not None
        assert estimate.interval[0] <= getattr(LAW, figure) <= estimate.interval[1]
        assert estimate.value == pytest.approx(getattr(LAW, figure), rel=0.2)
    growth = found.growth()
    assert growth.interval is not None
    assert growth.interval[0] <= LAW.growth() <= growth.interval[1]


@needs_scipy
def test_one_wild_run_does_not_bend_the_surface() -> None:
    runs = on_surface()
    runs[7] = replace(runs[7], loss=runs[7].loss * 1.5)
    assert fit_surface(runs).law.size_exponent == pytest.approx(LAW.size_exponent, rel=0.02)


def test_the_best_size_has_the_least_loss() -> None:
    for compute in (SIX, PAPER):
        best = LAW.best_size(1e20, compute)
        for factor in (0.9, 0.99, 1.01, 1.1):
            losses = [LAW.loss(n, compute.tokens(n, 1e20)) for n in (best, best * factor)]
            assert losses[0] < losses[1]
    # Where compute is proportional to N D the law's exponent is known in closed form.
    ratio = LAW.best_size(1e23, SIX) / LAW.best_size(1e20, SIX)
    assert math.log(ratio) / math.log(1e3) == pytest.approx(0.28 / 0.62, rel=1e-4)


def test_what_cannot_be_told_apart_is_refused() -> None:
    runs = on_surface()
    with pytest.raises(UsageError, match=r"^6 runs: E \+ A/N\^a \+ B/D\^b needs at least 7"):
        fit_surface(runs[:6])
    with pytest.raises(UsageError, match=r"^2 sizes: "):
        fit_surface(runs[:8])
    with pytest.raises(UsageError, match=r"^1 numbers of tokens: "):
        fit_surface([replace(run, tokens=1e9) for run in runs])
    with pytest.raises(UsageError, match="follows from the size in all runs"):
        fit_surface([replace(run, tokens=20 * run.parameters) for run in runs])


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(UsageError) as caught:
        fit_surface(on_surface())
    assert "pip install 'hunyuan[scaling]'" in caught.value.en
    assert "pip install 'hunyuan[scaling]'" in caught.value.zh


# ---------------------------------------------------------------- from folders


def write_run(
    folder: Path, size: int, tokens: int, loss: float, evals: tuple[str, ...] = ("books",)
) -> None:
    folder.mkdir(parents=True)
    first = {"kind": "start", "time": 0, "command": "", "version": "", "parameters": 4 * size}
    first |= {"active_parameters": size, "resumed_at_step": 0, "config": {}}
    lines: list[dict[str, Any]] = [first]
    for step in (5, 10):
        at = {"step": step, "tokens": tokens * step // 10, "time": step}
        more = {"learning_rate": 1e-3, "grad_norm": 1, "tokens_per_second": 1, "memory_bytes": 1}
        lines.append({"kind": "train", **at, "loss": loss + 0.5, **more})
        lines += [{"kind": "eval", **at, "name": n, "loss": loss + 10 - step} for n in evals]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def write_sweep(folder: Path, runs: list[Measurement]) -> None:
    for run in runs:
        write_run(folder / run.name, int(run.parameters), int(run.tokens), run.loss)


def test_runs_are_measured_by_their_last_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "deep", 10**6, 10**9, 3.0)
    (found,) = finished_runs(tmp_path).measurements
    assert found == Measurement(
        name="a/deep", parameters=1e6, tokens=1e9, loss=3.0, batch_tokens=1e8
    )
    write_run(tmp_path / "b", 10**6, 10**9, 3.0, evals=())
    both = finished_runs(tmp_path)
    assert both.loss_name is None
    assert [run.loss for run in both.measurements] == [3.5, 3.5]


def test_runs_that_do_not_count_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 10**6, 10**9, 3.0)
    write_run(tmp_path / "b", 10**6, 10**9, math.nan)
    write_run(tmp_path / "c", 10**6, 10**9, 3.0)
    path = tmp_path / "c" / "metrics.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    found = finished_runs(tmp_path)
    assert [run.name for run in found.measurements] == ["a"]
    assert "holds no training step yet" in found.passed_over[0][0]
    assert f"{tmp_path / 'b'}: loss nan" in found.passed_over[1][0]
    assert "损失 nan" in found.passed_over[1][1]


def test_which_loss_is_fitted_must_be_clear(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 10**6, 10**9, 3.0, ("books", "code"))
    write_run(tmp_path / "b", 10**6, 10**9, 3.0, ("books", "code", "web"))
    with pytest.raises(UsageError, match=r"2 held-out texts \(books, code\): choose one with --ev"):
        finished_runs(tmp_path)
    assert finished_runs(tmp_path, "code").loss_name == "code"
    with pytest.raises(UsageError, match=r"--eval web: .*/a never measured it; .* books, code"):
        finished_runs(tmp_path, "web")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="holds no training run with a logged step"):
        finished_runs(empty)
    with pytest.raises(UsageError, match="gone: is no folder"):
        finished_runs(tmp_path / "gone")


# ---------------------------------------------------------------- the command


@pytest.fixture
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", "en")


@pytest.mark.usefixtures("english")
def test_paper_on_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hunyuan(["scaling", "--paper"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "at C_min = 3.11e+24 FLOPs: N_opt = 58.1 B, D_opt = 5.64 T"
    monkeypatch.setenv("HUNYUAN_LANG", "zh")
    assert hunyuan(["scaling", "--paper"]) == 0
    assert capsys.readouterr().out.startswith("在 C_min = 3.11e+24 FLOPs 下：N_opt = 58.1 B")
    assert hunyuan(["scaling", "--paper", "--json", "--budget", "1e22"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == pytest.approx(3.2 * 1e22**0.5)


@pytest.mark.usefixtures("english")
def test_a_sweep_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path / "runs", sweep(0.001))
    given_ = ["scaling", str(tmp_path / "runs"), "--compute", "6nd", "--budget", "1e21"]
    assert hunyuan([*given_, "--json", "-o", str(tmp_path / "x.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budgets"]["alpha"]["value"] == pytest.approx(0.48, abs=0.02)
    low, high = found["budgets"]["prediction"]["size"]["interval"]
    assert low < SIZE.at(1e21) * 1.2
    assert high > SIZE.at(1e21) / 1.2
    assert len(found["runs"]) == 54
    assert found["loss"] == "books"
    assert (tmp_path / "x.html").stat().st_size < 1_000_000
    assert hunyuan(given_) == 0
    out = capsys.readouterr().out
    assert "by budget (9):" in out
    assert "note: 2.3e8 D" not in out
    assert hunyuan([*given_[:2], "--critical-batch", "2.1e8,0.21", "--cmin", "inverse"]) == 0


@pytest.mark.usefixtures("english")
def test_small_runs_are_told_that_the_constant_is_not_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = []
    for flops in (1e16, 3e16, 1e17):
        best = LAW.best_size(flops, PAPER)
        for factor in (0.5, 1, 2):
            size, tokens = best * factor, PAPER.tokens(best * factor, flops)
            small.append(measured(f"{flops}-{factor}", size, tokens, LAW.loss(size, tokens)))
    write_sweep(tmp_path, small)
    assert hunyuan(["scaling", str(tmp_path)]) == 0
    assert "note: 2.3e8 D is up to" in capsys.readouterr().out


@pytest.mark.usefixtures("english")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "RUNS_FOLDER is missing"),
        (["gone"], "gone: is no folder"),
        (["--paper", "gone"], "--paper reads no runs"),
        (["--paper", "--budget", "lots"], "--budget lots: must be a finite number above 0"),
        (["--paper", "--budget", "inf"], "--budget inf: must be a finite number above 0"),
        (["x", "--cmin", "inverse"], "--cmin inverse: needs the critical batch"),
        (["x", "--critical-batch", "3"], "--critical-batch 3: must be two numbers"),
        (["x", "--critical-batch", "3,-1"], "must be a finite number above 0"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hunyuan(["scaling", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.usefixtures("english")
def test_nothing_to_fit_names_both_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", 10**8, 10**10, 3.0)
    assert hunyuan(["scaling", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "nothing can be fitted: 0 budgets with a lowest loss" in error
    assert "and 1 runs: E + A/N^a + B/D^b needs at least 7" in error


def test_one_refused_fit_leaves_the_other(tmp_path: Path) -> None:
    write_sweep(tmp_path, sweep(spread=(0.5, 1, 2))[:9])
    runs = finished_runs(tmp_path)
    fits = fit(runs, SIX, None)
    found = plain(fits, None)
    assert found["budgets"]["alpha"]["interval"] is None
    surface = [replace(m, name=str(i)) for i, m in enumerate(on_surface())]
    if importlib.util.find_spec("scipy"):
        found = plain(fit(replace(runs, measurements=tuple(surface)), SIX, None), None)
        assert "reason" in found["budgets"]
        assert found["surface"]["a"]["value"] == pytest.approx(0.34, rel=1e-2)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "locale"), [(360, "zh-CN"), (1920, "en-US")])
def test_the_page_opens_without_complaint(tmp_path: Path, width: int, locale: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page is not looked at")
    write_sweep(tmp_path / "runs", sweep(0.001))
    target = tmp_path / "x.html"
    target.write_bytes(scaling_page(fit(finished_runs(tmp_path / "runs"), SIX, None), 1e21))
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        tab = browser.new_page(locale=locale, viewport={"width": width, "height": 900})
        complaints: list[str] = []
        tab.on("console", lambda m: complaints.append(m.text))
        tab.on("pageerror", lambda e: complaints.append(str(e)))
        tab.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
        tab.goto(target.as_uri())
        tab.wait_for_selector("svg.plot .axis-line", state="attached")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.inner_text("h1") == ("缩放定律" if locale == "zh-CN" else "Scaling laws")
        # Nine budgets of six runs and their lowest points, in the first chart.
        assert tab.locator("#budgets svg.plot >> nth=0 >> .dot").count() == 9 * 6 + 9
        assert "object" not in tab.inner_text("body")
        tab.click(".tongue")
        assert tab.inner_text("h1") == ("Scaling laws" if locale == "zh-CN" else "缩放定律")
        browser.close()
    assert complaints == []
