"""``hunyuan list``: what can be pulled, and what is here."""

import json

import click

from hunyuan.catalogue.entries import default_name, entries
from hunyuan.catalogue.store import installed
from hunyuan.errors import language
from hunyuan.files import human_bytes


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(as_json: bool) -> None:
    """The models that can be pulled, and those on this machine."""
    here = {model.entry.name: model for model in installed()}
    if as_json:
        rows = [
            {
                "name": model.name,
                "title": model.title,
                "parameters": model.parameters,
                "download_bytes": model.download_bytes,
                "context": model.context,
                "languages": list(model.languages),
                "licence": model.licence.name,
                "default": model.name == default_name(),
                "path": str(here[model.name].path) if model.name in here else None,
            }
            for model in entries()
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return
    present, default = ("已安装", "默认") if language() == "zh" else ("installed", "default")
    width = max(len(model.name) for model in entries())
    for model in entries():
        marks = [present] * (model.name in here) + [default] * (model.name == default_name())
        row = (
            f"{model.name:{width}}  {human_bytes(model.download_bytes):>8}  "
            f"{'+'.join(model.languages):10}  {model.licence.name[:28]:28}  {', '.join(marks)}"
        )
        print(row.rstrip())
