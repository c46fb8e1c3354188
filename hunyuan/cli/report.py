"""``hunyuan report``: training runs or evaluations as one HTML page."""

import json
from pathlib import Path
from typing import Any

import click

from hunyuan.errors import language
from hunyuan.files import atomic_file, human_bytes


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Default: report.html in the folder of the run, or here if there are several.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the final figures as one JSON object.")
def report(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Draw training runs or evaluations as one HTML page that needs no network.

    RUN are folders of `hunyuan train`, drawn over one another, or of `hunyuan eval`, set beside
    published figures; the latter also become a Markdown file.
    """
    folders = list(dict.fromkeys(runs))
    if all((folder / "responses.jsonl").exists() for folder in folders):
        _evaluations(folders, output, as_json)
        return
    from hunyuan.report.page import names, report_page, summary
    from hunyuan.report.run import load_run

    loaded = [load_run(folder) for folder in folders]
    page = report_page(loaded)
    target = output or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    with atomic_file(target) as file:
        file.write(page)
    figures = dict(zip(names(loaded), map(summary, loaded), strict=True))
    if as_json:
        found = {"report": str(target), "bytes": len(page), "runs": figures}
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, each in figures.items():
        print(_line(name, each))
    print(f"{target} ({human_bytes(len(page))})")


def _evaluations(folders: list[Path], output: Path | None, as_json: bool) -> None:
    from hunyuan.evaluate.page import evaluation_markdown, evaluation_page
    from hunyuan.evaluate.run_folder import EvaluationRun

    opened = [EvaluationRun(folder) for folder in folders]
    target = output or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    page, text = evaluation_page(opened), evaluation_markdown(opened, language())
    for path, content in ((target, page), (target.with_suffix(".md"), text.encode())):
        with atomic_file(path) as file:
            file.write(content)
    if as_json:
        print(json.dumps({"report": str(target), "bytes": len(page)}, ensure_ascii=False))
    else:
        print(text)
        print(f"{target} ({human_bytes(len(page))})")


def _line(name: str, figures: dict[str, Any]) -> str:
    """What a run has reached, in one line."""
    chinese = language() == "zh"
    loss = figures["loss"]
    if chinese:
        known = f"训练损失 {loss:.4g}" if loss is not None else "训练损失不是数"
        parts = [f"{name}：{figures['step']:,} 步，{figures['tokens']:,} 个词元，{known}"]
        parts += [f"{key} {each['loss']:.4g}" for key, each in _measured(figures).items()]
        parts += [f"{figures['alarms']} 条警报"] * bool(figures["alarms"])
        return "，".join(parts)
    known = f"training loss {loss:.4g}" if loss is not None else "the training loss is no number"
    parts = [f"{name}: {figures['step']:,} steps, {figures['tokens']:,} tokens, {known}"]
    parts += [f"{key} {each['loss']:.4g}" for key, each in _measured(figures).items()]
    alarms = figures["alarms"]
    parts += [f"{alarms} alarm{'s' * (alarms > 1)}"] * bool(alarms)
    return ", ".join(parts)


def _measured(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in figures["evals"].items() if each["loss"] is not None}
