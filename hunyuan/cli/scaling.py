"""``hunyuan scaling``: how loss, size and data go together in a folder of runs."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hunyuan.errors import UsageError, language
from hunyuan.files import atomic_file, human_bytes

if TYPE_CHECKING:
    from hunyuan.report.scaling import CriticalBatch


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[RUNS_FOLDER]")
@click.option("--paper", is_flag=True, help="Work out the Hunyuan-Large report's own optimum.")
@click.option("--eval", "loss_name", metavar="NAME", help="Held-out text whose loss is fitted.")
@click.option(
    "--compute",
    type=click.Choice(["paper", "6nd"]),
    default="paper",
    show_default=True,
    help="C = 9.59 N D + 2.3e8 D, or C = 6 N D.",
)
@click.option(
    "--critical-batch",
    metavar="SCALE,EXPONENT",
    help="B_crit(L) = SCALE / L^(1 / EXPONENT) in tokens, such as 2.1e8,0.21: fit C_min.",
)
@click.option(
    "--cmin",
    type=click.Choice(["printed", "inverse"]),
    help="With --critical-batch: C / (1 + B/B_crit), the default, or C / (1 + B_crit/B).",
)
@click.option("--budget", metavar="FLOPS", help="Also tell the best size for this compute.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.html", help="Draw a page."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def scaling(
    folder: Path | None,
    paper: bool,
    loss_name: str | None,
    compute: str,
    critical_batch: str | None,
    cmin: str | None,
    budget: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Fit scaling laws to the training runs below RUNS_FOLDER.

    By budget: parabolas of the loss in log N, then N = a C^alpha and D = b C^beta. By all runs at
    once: L = E + A/N^a + B/D^b, which needs SciPy. N counts active parameters.
    """
    from hunyuan.report.finished import finished_runs
    from hunyuan.report.scaling import PAPER, SIX
    from hunyuan.report.scaling_page import fit, plain, scaling_page

    flops = None if budget is None else _number("budget", budget)
    if paper:
        _refuse_with_paper(folder, loss_name, critical_batch, cmin, output)
        _print_paper(flops, as_json)
        return
    if folder is None:
        raise UsageError(
            "RUNS_FOLDER is missing; give a folder of training runs, or --paper",
            "缺少 RUNS_FOLDER；请给出训练运行的目录，或使用 --paper",
        )
    critical = _critical_batch(critical_batch, cmin)
    fits = fit(finished_runs(folder, loss_name), PAPER if compute == "paper" else SIX, critical)
    if output is not None:
        page = scaling_page(fits, flops)
        with atomic_file(output) as file:
            file.write(page)
    found = plain(fits, flops)
    if as_json:
        print(json.dumps({**found, "page": output and str(output)}, ensure_ascii=False))
        return
    _print_fits(found)
    if output is not None:
        print(f"{output} ({human_bytes(len(page))})")


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(
            f"--{name} {text}: must be a finite number above 0, such as 1e21",
            f"--{name} {text}：必须是大于 0 的有限数，例如 1e21",
        )
    return value


def _critical_batch(text: str | None, form: str | None) -> "CriticalBatch | None":
    from hunyuan.report.scaling import CriticalBatch

    if text is None:
        if form is not None:
            raise UsageError(
                f"--cmin {form}: needs the critical batch; add --critical-batch SCALE,EXPONENT",
                f"--cmin {form}：需要临界批量；请加上 --critical-batch SCALE,EXPONENT",
            )
        return None
    parts = text.split(",")
    if len(parts) != 2:
        raise UsageError(
            f"--critical-batch {text}: must be two numbers with a comma, such as 2.1e8,0.21",
            f"--critical-batch {text}：必须是以逗号分隔的两个数，例如 2.1e8,0.21",
        )
    scale, exponent = (_number("critical-batch", part) for part in parts)
    return CriticalBatch(
        scale=scale, exponent=exponent, form="inverse" if form == "inverse" else "printed"
    )


def _refuse_with_paper(*others: Any) -> None:
    if any(other is not None for other in others):
        raise UsageError(
            "--paper reads no runs; give it alone or with --budget and --json",
            "--paper 不读取任何运行；请单独使用，或只加 --budget 与 --json",
        )


def _print_paper(flops: float | None, as_json: bool) -> None:
    from hunyuan.report.paper import paper_numbers

    found = paper_numbers(flops)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    best = f"{found.size / 1e9:.1f} B", f"{found.tokens / 1e12:.2f} T"
    if language() == "zh":
        print(f"在 C_min = {found.flops:.3g} FLOPs 下：N_opt = {best[0]}，D_opt = {best[1]}")
        print("  N_opt = 5.9e-3 C_min^0.5305，D_opt = 3.2 C_min^0.50")
        print(f"由 D_opt = 5.6 T 反推：C_min = {found.flops_by_tokens:.3g}")
        print(f"由 C = 9.59 N D + 2.3e8 D，N = 58.1 B，D = 5.6 T：C = {found.flops_of_pair:.3g}")
        print(f"实际训练 52 B、7 T：C = {found.flops_chosen:.3g}")
        return
    print(f"at C_min = {found.flops:.3g} FLOPs: N_opt = {best[0]}, D_opt = {best[1]}")
    print("  N_opt = 5.9e-3 C_min^0.5305, D_opt = 3.2 C_min^0.50")
    print(f"back from D_opt = 5.6 T: C_min = {found.flops_by_tokens:.3g}")
    print(f"C = 9.59 N D + 2.3e8 D of 58.1 B and 5.6 T: {found.flops_of_pair:.3g}")
    print(f"trained were 52 B and 7 T: C = {found.flops_chosen:.3g}")


def _print_fits(found: dict[str, Any]) -> None:
    chinese = language() == "zh"
    lang = "zh" if chinese else "en"
    for part in (*found["passed_over"], *found["budgets"].get("skipped", ())):
        print(f"{'未计入' if chinese else 'passed over'}: {part[lang]}")
    if found["fixed_share"] > 0.5:
        print(_fixed_share_note(found["fixed_share"], chinese))
    runs, loss = len(found["runs"]), found["loss"]
    print(f"{runs} 次运行，损失：{loss}" if chinese else f"{runs} runs, loss: {loss}")
    for part, lines in ((found["budgets"], _budget_lines), (found["surface"], _surface_lines)):
        if "reason" in part:
            reason = part["reason"][lang]
            print(f"未拟合：{reason}" if chinese else f"not fitted: {reason}")
        else:
            print("\n".join(lines(part, found["flops"], chinese)))


def _fixed_share_note(share: float, chinese: bool) -> str:
    if chinese:
        return (
            f"注意：2.3e8 D 最多占这些运行计算量的 {share:.0%}；该常数属于报告自己的模型，"
            "--compute 6nd 不含此项"
        )
    return (
        f"note: 2.3e8 D is up to {share:.0%} of the compute of these runs; the constant belongs "
        "to the report's own models, --compute 6nd leaves it out"
    )


def _budget_lines(part: dict[str, Any], flops: float | None, chinese: bool) -> list[str]:
    count = len(part["budgets"])
    return [
        f"按预算（{count} 个）：" if chinese else f"by budget ({count}):",
        f"  N_opt = {part['a']:.4g} C^{_shown(part['alpha'], chinese)}",
        f"  D_opt = {part['b']:.4g} C^{_shown(part['beta'], chinese)}",
        *_prediction_lines(part, flops, chinese),
    ]


def _surface_lines(part: dict[str, Any], flops: float | None, chinese: bool) -> list[str]:
    return [
        ("全部运行一起" if chinese else "all runs at once") + ": L = E + A/N^a + B/D^b",
        *(f"  {name} = {_shown(part[name], chinese)}" for name in "EABab"),
        f"  N_opt ~ C^{_shown(part['alpha'], chinese)}",
        *_prediction_lines(part, flops, chinese),
    ]


def _prediction_lines(part: dict[str, Any], flops: float | None, chinese: bool) -> list[str]:
    if not part["prediction"]:
        return []
    size, tokens = (_shown(part["prediction"][key], chinese) for key in ("size", "tokens"))
    place = f"在 {flops:.3g} FLOPs 下" if chinese else f"at {flops:.3g} FLOPs"
    return [f"  {place}: N = {size}", f"  {place}: D = {tokens}"]


def _shown(estimate: dict[str, Any], chinese: bool) -> str:
    text = f"{estimate['value']:.4g}"
    if estimate["interval"] is None:
        return f"{text}{'（无区间）' if chinese else ' (no interval)'}"
    low, high = estimate["interval"]
    return f"{text} ({low:.4g} – {high:.4g})"
