"""What the documentation site needs besides its plugins; MkDocs calls it (``hooks``).

Pages stand in a repository too, so they name their translation and the README by file; on the site
both are elsewhere. Inline scripts become files, so that the server's strict content policy holds.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

_TOP = re.compile(r"^\[(?:中文|English)\]\([^)]*\).*\n", re.MULTILINE)
_CHINESE_PAGE = re.compile(r"(\]\([^):#\s]+)\.zh\.(md|svg|png)")
_README = re.compile(r"\]\((?:\.\./)+README(?:\.zh)?\.md(#[^)]*)?\)")
_HAN = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
_BROKEN_CHINESE = re.compile(rf"(?<={_HAN})\n *(?={_HAN})")
"""The end of a line within Chinese text, of which HTML would make a space."""
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_FROM_ROOT = re.compile(r'href="/([^"/][^"]*)?"')
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_ALTERNATE = re.compile(r'<link [^>]*rel="?alternate"?[^>]*>')
_STYLE_ELEMENT = re.compile(r"<style>.*?</style>", re.DOTALL)


@event_priority(100)
def on_config(config: Any) -> Any:
    """Pages that the navigation does not name stand at its end, so that none is lost."""
    named = str(config.nav)
    docs = Path(config.docs_dir)
    rest = [
        path.relative_to(docs).as_posix()
        for path in sorted(docs.rglob("*.md"))
        if not path.name.endswith(".zh.md") and path.parent.name != "reference"
    ]
    if more := [name for name in rest if f"'{name}'" not in named]:
        config.nav.append({"More": more})
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page without its line of languages, its links as the site has them."""
    markdown = _TOP.sub("", markdown, count=1)
    depth = page.file.src_uri.count("/")
    markdown = _README.sub("](" + "../" * depth + "index.md)", markdown)
    markdown = markdown.replace(".en.png)", ".png)")
    markdown = _CHINESE_PAGE.sub(r"\1.\2", markdown)
    return "".join(
        part if part.startswith("```") else _BROKEN_CHINESE.sub("", part)
        for part in _FENCED.split(markdown)
    )


def on_post_page(output: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page with its inline scripts in files beside it, named by their content."""
    up = "../" * page.url.count("/") or "./"
    folder = Path(config.site_dir) / "assets" / "inline"

    def moved(match: re.Match[str]) -> str:
        code = match[1].encode()
        name = hashlib.sha256(code).hexdigest()[:16] + ".js"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(code)
        return f'<script src="{up}assets/inline/{name}"></script>'

    output = _FROM_ROOT.sub(lambda match: f'href="{up}{match[1] or ""}"', output)
    # Alternates are for search engines; the theme would ask for a map of each as if it were a site.
    return _INLINE.sub(moved, _STYLE_ELEMENT.sub("", _ALTERNATE.sub("", output)))


def on_post_template(output: str, *, template_name: str, **_: Any) -> str:
    """No page of errors: it cannot know below which address the site is served."""
    return "" if template_name == "404.html" else output


def on_post_build(*, config: Any, **_: Any) -> None:
    """No source maps, which are half of the site and serve the theme's authors."""
    for path in Path(config.site_dir).rglob("*.map"):
        path.unlink()
