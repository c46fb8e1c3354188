"""What a model writes, shown in a real Chromium: hostile output, formulas, code."""

from typing import Any

import pages
import pytest
from pages import Served, answered, ask, last_answer, opened

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser
browser, served, page = pages.browser, pages.served, pages.page

CODE = "Look:\n\n```python\nprint('海')\n```\n\nDone."
HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>
[a](javascript:window.hacked=3) [b](data:text/html,x) ![c](http://127.0.0.1:9/x.png)
<iframe src="/"></iframe> <b onclick="hacked=4">bold</b> $\\href{javascript:window.hacked=5}{x}$
$\\htmlStyle{color:red}{y}$ <style>body{display:none}</style> **fine**

```<b>
</code></pre><svg onload="window.hacked=6">
```

| <i>t</i> | x |
|---|---|
| <a href="javascript:hacked=7">u</a> | [v](vbscript:x) |
"""


def test_hostile_output_stays_text(browser: Any, served: Served) -> None:
    served.backend.answers = [HOSTILE, HOSTILE]
    with opened(browser, served.address) as page:
        ask(page, "<b>bold</b>")
        answered(page)
        expect(page.locator(".bubble")).to_have_text("<b>bold</b>")
        assert "onerror=" in last_answer(page).inner_text()
        found = page.evaluate(
            """() => {
              const all = [...document.querySelectorAll('.prose *')];
              const handled = (n) => [...n.attributes].some((a) => a.name.startsWith('on'));
              const links = all.filter((n) => n.localName === 'a');
              return {
                names: [...new Set(all.map((n) => n.localName))],
                handlers: all.filter(handled).length,
                links: links.map((n) => [n.getAttribute('href'), n.rel]),
                hacked: window.hacked ?? null,
              };
            }"""
        )
        assert not {"img", "script", "svg", "iframe", "style", "object"} & set(found["names"])
        assert "strong" in found["names"]
        assert (found["handlers"], found["hacked"]) == (0, None)
        for href, rel in found["links"]:
            assert href.startswith("http"), href
            assert "noopener" in rel


FORMULAS = [
    ("a $x^2$ b", 1, "inline"),
    (r"a \(x^2\) b", 1, "inline"),
    ("$$\nx = 1\n= 2\n$$", 1, "display"),
    ("\\[\n\\frac{1}{2}\n\\]", 1, "display"),
    ("so $$x$$ it is", 1, "display"),
    ("- item\n  $$\n  y\n  $$\n- next", 1, "display"),
    ("It costs $5 and $10.", 0, ""),
    ("from $1,000 to $2,000, or $3", 0, ""),
    ("between $5-$10", 0, ""),
    ("价格是$5，比$3贵", 0, ""),
    ("价格是 $5 元，共 $30 元", 0, ""),
    ("$20 per seat$", 0, ""),
    ("质量为 $m = 5\\ \\text{千克}$ 的球", 1, "inline"),
    ("an escaped \\$x\\$ sign", 0, ""),
    ("`$x$` and $y$", 1, "inline"),
]


def test_formulas_are_drawn_and_prices_are_not(page: Any) -> None:
    found = page.evaluate(
        """async (texts) => {
          const { html, render } = await import('/static/vendor/preact.js');
          const { Markdown } = await import('/static/lib/markdown.js');
          const shown = [];
          for (const text of texts) {
            const box = document.createElement('div');
            document.body.append(box);
            render(html`<${Markdown} text=${text} />`, box);
            const places = [...box.querySelectorAll('[data-tex]')];
            const kind = places[0]?.dataset.display ? 'display' : 'inline';
            shown.push([places.length, places.length ? kind : '']);
            box.remove();
          }
          return shown;
        }""",
        [text for text, _, _ in FORMULAS],
    )
    assert [tuple(one) for one in found] == [(count, kind) for _, count, kind in FORMULAS]


def test_a_formula_that_cannot_be_read_stays_as_its_source(page: Any, served: Served) -> None:
    served.backend.answers = [r"good $\frac{1}{2}$, bad $\frac{1}{$"]
    ask(page, "x")
    answered(page)
    expect(page.locator(".prose .katex")).to_have_count(1)
    expect(page.locator(".prose .formula-inline.source")).to_have_text(r"\frac{1}{")


def test_letter_by_letter_ends_like_at_once(page: Any) -> None:
    text = CODE + "\n\n1. a\n2. b\n\n| x | y |\n|--|--|\n| $a$ | 2 |\n\n\\[\nz\n\\]\n\nend `c`"
    grown, whole, kept = page.evaluate(
        """async (text) => {
          const { html, render } = await import('/static/vendor/preact.js');
          const { Markdown } = await import('/static/lib/markdown.js');
          const draw = (box, text, streaming) =>
            render(html`<${Markdown} text=${text} streaming=${streaming} />`, box);
          const [a, b] = [document.createElement('div'), document.createElement('div')];
          document.body.append(a, b);
          let first = null;
          let kept = true;
          for (let n = 1; n <= text.length; n += 1) {
            draw(a, text.slice(0, n), true);
            if (n === 10) first = a.firstChild.firstChild;
            if (n > 10) kept &&= a.firstChild.firstChild === first;
          }
          draw(a, text, false);
          draw(b, text, false);
          const settled = new Promise((resolve) => setTimeout(resolve, 600));
          await settled;
          return [a.innerHTML, b.innerHTML, kept];
        }""",
        text,
    )
    assert grown == whole
    assert kept, "the first paragraph was made anew while the rest grew"


def test_code_is_copied_and_run(browser: Any, served: Served) -> None:
    served.backend.answers = [CODE, "```python\n1/0\n```", "```js\n1\n```"]
    with opened(browser, served.address, permissions=["clipboard-read", "clipboard-write"]) as page:
        ask(page, "code")
        answered(page)
        block = page.locator(".code-block").last
        block.get_by_role("button", name="Copy").click()
        expect(page.locator(".toast")).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == "print('海')"
        block.get_by_role("button", name="Run").click()
        expect(block.locator(".code-output pre")).to_have_text("海\n")
        ask(page, "more")
        answered(page)
        block = page.locator(".code-block").last
        block.get_by_role("button", name="Run").click()
        expect(block.locator(".code-output pre.bad")).to_contain_text("ZeroDivisionError")
        ask(page, "other")
        answered(page)
        assert page.locator(".code-block").last.get_by_role("button", name="Run").count() == 0
