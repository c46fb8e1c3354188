"""The documentation at ``/docs``: the built site if there is one, else how to build it."""

from html import escape
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from hunyuan.serve.errors import language_of

PACKAGED = Path(__file__).parent / "site"
"""Where a wheel carries the site."""

BUILT = Path(__file__).parents[2] / "build" / "site"
"""Where `make docs` builds it in a checkout."""

_MISSING = {
    "en": (
        "The documentation is not built here",
        "In the folder of the project run",
        "then load this page again. The same texts are in",
    ),
    "zh": ("此处尚未构建文档", "请在项目目录中运行", "然后重新加载本页。同样的文字在"),
}


def site_folder() -> Path | None:
    """The folder with the built site, if there is one."""
    for folder in (PACKAGED, BUILT):
        if (folder / "index.html").is_file():
            return folder
    return None


def docs_router(folder: Path | None = None) -> APIRouter:
    """The routes of the documentation.

    ``folder`` is a built site; None looks for one at every request, so that one that is built
    while the server runs is shown.
    """
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    def entrance() -> Response:
        return RedirectResponse("/docs/")

    @routes.get("/docs/{path:path}")
    async def page(path: str, request: Request) -> Response:
        site = folder or site_folder()
        if site is None:
            if path not in ("", "zh/"):
                raise HTTPException(404)
            return _not_built("zh" if path else language_of(request.headers))
        files = StaticFiles(directory=site, html=True)
        return await files.get_response(path or ".", request.scope)

    return routes


def _not_built(lang: str) -> Response:
    """A page without style or script that says how to build the site."""
    title, run, then = (escape(text) for text in _MISSING[lang])
    readme, code = ("README.zh.md", "zh") if lang == "zh" else ("README.md", "en")
    return HTMLResponse(
        f'<!doctype html><html lang="{code}"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{run}</p><pre>make docs</pre>"
        f"<p>{then} <code>{readme}</code>, <code>docs/</code>.</p></html>",
        status_code=404,
    )
