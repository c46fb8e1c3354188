"""The table of shared results, from results/community/*.json, in both languages.

    python scripts/community_table.py          write docs/community.md and docs/community.zh.md
    python scripts/community_table.py --check  exit code 1 where they are not what the rows say

Rows that do not pass `hunyuan share --check` are refused.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from hunyuan.errors import Language
from hunyuan.evaluate.shared import problems, read_rows, repeated, table
from hunyuan.files import atomic_file

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "results" / "community"
PAGES: dict[Language, Path] = {
    "en": ROOT / "docs" / "community.md",
    "zh": ROOT / "docs" / "community.zh.md",
}

TEXTS: dict[Language, str] = {
    "en": """# Shared results

<!-- Written by scripts/community_table.py from results/community/*.json; not by hand. -->

Results that people measured on their own machines and shared, as [described here](results.md).
Each row was checked for its form and for figures that contradict one another; the project has not
run it again. The command below each row does, on the weights with that hash. `±` is the 95 %
interval from the sampling of items alone.

{table}
""",
    "zh": """# 共享的结果

<!-- 由 scripts/community_table.py 根据 results/community/*.json 写出；请勿手工修改。 -->

各位使用者在自己的机器上测得并共享的结果，格式见[此处](results.zh.md)。每一行都校验过形式以及数字
之间是否矛盾；本项目没有重新运行。用表后对应的命令和同一哈希的权重即可重新运行。`±` 是仅由抽题带来的
95 % 区间。

{table}
""",
}


def checked_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder; exits naming the file, the row and the reason where one is wrong."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        for number, row in enumerate(read_rows(path), 1):
            if found := problems(row):
                sys.exit(f"{path} row {number}: {found[0].en}")
            rows.append(row)
    if again := repeated(rows):
        sys.exit(again[0].en)
    return rows


def main() -> None:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    rows = checked_rows(ROWS)
    for lang, path in PAGES.items():
        text = TEXTS[lang].format(table=table(rows, lang))
        if not check:
            with atomic_file(path) as file:
                file.write(text.encode())
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path}: is out of date; run python scripts/community_table.py")


if __name__ == "__main__":
    main()
