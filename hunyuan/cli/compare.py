"""``hunyuan compare``: which differences between two evaluations are real."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from hunyuan.cli.columns import aligned
from hunyuan.errors import language


@click.command()
@click.argument("first", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--flips", type=click.IntRange(0), default=5, show_default=True, help="List so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every flip.")
def compare(first: Path, second: Path, flips: int, as_json: bool) -> None:
    """Compare two folders of `hunyuan eval` item by item."""
    from hunyuan.evaluate.compare import compare as run
    from hunyuan.evaluate.run_folder import EvaluationRun

    differences = run(EvaluationRun(first), EvaluationRun(second))
    if as_json:
        print(json.dumps([asdict(each) for each in differences], ensure_ascii=False))
        return
    chinese = language() == "zh"
    head = (
        ("评测", "题数", "前", "后", "差", "p", "")
        if chinese
        else ("benchmark", "items", "first", "second", "change", "p", "")
    )
    rows = [head]
    for each in differences:
        verdict = ("显著" if chinese else "significant") if each.significant else ""
        change = f"{each.after - each.before:+.4f} ± {1.96 * each.stderr:.4f}"
        figures = (f"{each.before:.4f}", f"{each.after:.4f}", change, f"{each.p:.3g}")
        rows.append((each.benchmark, str(each.items), *figures, verdict))
    print("\n".join(aligned(rows)))
    for each in differences:
        if each.flips and flips:
            count = len(each.flips)
            print(f"\n{each.benchmark}: {count} " + ("题结果不同" if chinese else "items flipped"))
            for flip in each.flips[:flips]:
                print(f"  {flip.task}[{flip.doc_id}]  {flip.before:g} -> {flip.after:g}")
