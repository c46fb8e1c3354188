"""``hunyuan pull``: download a model by name."""

import sys

import click

from hunyuan.catalogue.entries import Entry, default_name
from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import language

_PHASES = {
    "waiting": "等待另一个进程",
    "resolving": "查找",
    "downloading": "下载",
    "unpacking": "解包",
    "verifying": "校验",
}


@click.command()
@click.argument("name", default=default_name())
@click.option("--accept-licence", is_flag=True, help="Accept the licence without being asked.")
@click.option("--verify", is_flag=True, help="Read an installed model again and check its hash.")
@click.option("--offline", is_flag=True, help="Use no network; fail if the model is not here.")
def pull(name: str, accept_licence: bool, verify: bool, offline: bool) -> None:
    """Download the model NAME (see `hunyuan list`); by default the one that `make run` serves.

    Resumes where an earlier run stopped, and checks the result against a pinned hash.
    """
    from hunyuan.catalogue.pull import pull as run
    from hunyuan.catalogue.transfer import Progress

    drawn: dict[tuple[str, str], ProgressLine] = {}

    def show(progress: Progress) -> None:
        key = (progress.phase, progress.source)
        if key not in drawn:
            for line in drawn.values():
                line.close()
            phase = _PHASES[progress.phase] if language() == "zh" else progress.phase
            drawn[key] = ProgressLine(f"{phase} ({progress.source})", quiet_seconds=0.5)
        if progress.total:
            drawn[key].update(progress.done, progress.total)

    def agreed(model: Entry) -> bool:
        licence = model.licence
        notice = licence.notice_zh if language() == "zh" else licence.notice_en
        click.echo(f"{model.title}: {licence.name}\n{notice}\n{licence.url}", err=True)
        if accept_licence:
            return True
        question = "接受该许可证？" if language() == "zh" else "Do you accept this licence?"
        return sys.stdin.isatty() and click.confirm(question, default=False, err=True)

    try:
        path = run(name, progress=show, accept_licence=agreed, offline=offline, verify=verify)
    finally:
        for line in drawn.values():
            line.close()
    print(path)
