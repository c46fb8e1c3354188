"""Known formulas, found by description in either language."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hunyuan.maths.call import CallError
from hunyuan.maths.grammar import Name, Relation, Tree, normalise, parse, parse_list
from hunyuan.maths.show import plain as tree_plain


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula with its names explained; ``plain`` is empty where it is not a computation."""

    id: str
    topic: str
    en: str
    zh: str
    latex: str
    plain: str
    variables: tuple[tuple[str, str, str], ...]
    """(name, English, Chinese)"""

    words: frozenset[str]
    """What it is found by: English words and pairs of Chinese characters."""

    def json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "id": self.id,
            "topic": self.topic,
            "en": self.en,
            "zh": self.zh,
            "latex": self.latex,
            "plain": self.plain,
            "variables": [{"name": name, "en": en, "zh": zh} for name, en, zh in self.variables],
        }


@cache
def table() -> dict[str, Formula]:
    """All formulas by id."""
    text = (Path(__file__).parent / "formulas.toml").read_text(encoding="utf-8")
    found = {}
    for topic, entries in tomllib.loads(text).items():
        for entry in entries:
            words = _words(f"{entry['en']} {entry['zh']} {entry['also']}")
            found[entry["id"]] = Formula(
                entry["id"],
                topic,
                entry["en"],
                entry["zh"],
                entry["tex"],
                entry.get("plain", ""),
                tuple((name, en, zh) for name, en, zh in entry["vars"]),
                frozenset(words),
            )
    return found


NOISE = frozenset(
    {
        *(
            "of",
            "the",
            "a",
            "an",
            "for",
            "is",
            "what",
            "formula",
            "equation",
            "write",
            "give",
            "me",
        ),
        *("show", "law", "rule", "theorem", "in", "latex", "find", "from", "to", "and", "please"),
        *("how", "compute", "calculate", "with", "by", "area", "s", "two"),
        *("公式", "的公", "什么", "么是", "是什", "写出", "定理", "方程", "定律", "给出", "请写"),
        *("计算", "求出"),
    }
)
STEM = re.compile(r"(?:'s|’s|s)$")


def _words(text: str) -> set[str]:
    lowered = text.lower()
    words = {STEM.sub("", w) for w in re.findall(r"[a-zéö][a-zéö'’\-]*|\d+", lowered)}
    for run in re.findall(r"[\u4e00-\u9fff]+", lowered):
        bare = run.replace("的", "")
        words.update(bare[i : i + 2] for i in range(len(bare) - 1))
    return words


WEAK = {"area": 0.8, "公式": 0.1, "equation": 0.1, "formula": 0.1, "law": 0.15, "rule": 0.15,
        "theorem": 0.15, "定理": 0.15, "方程": 0.2, "定律": 0.15}  # fmt: skip


def search(description: str, limit: int = 8) -> list[tuple[float, Formula]]:
    """The formulas that fit a description, best first, with a score from 0 to 1."""
    asked = _words(description) - (NOISE - WEAK.keys())
    if not asked:
        return []
    exact = re.sub(r"\s|的|公式|formula|the ", "", description.lower())
    scored = []
    for formula in table().values():
        titles = [
            re.sub(r"\s|的|公式|formula|the ", "", t.lower()) for t in (formula.en, formula.zh)
        ]
        common = asked & formula.words
        weight = sum(WEAK.get(word, 1.0) for word in common)
        if not common:
            continue
        total = sum(WEAK.get(word, 1.0) for word in asked)
        own = min(
            sum(WEAK.get(w, 1.0) for w in _words(formula.en)),
            sum(WEAK.get(w, 1.0) for w in _words(formula.zh)),
        )
        score = 0.75 * weight / total + 0.25 * min(1.0, weight / max(own, 0.5))
        if exact in titles:
            score = 1.0
        scored.append((score, formula))
    scored.sort(key=lambda pair: (-pair[0], len(pair[1].en)))
    return scored[:limit]


def best(description: str, least: float = 0.7) -> Formula | None:
    """The formula that clearly fits, or None."""
    found = search(description, 2)
    return found[0][1] if found and found[0][0] >= least else None


def get(name: str) -> Formula:
    """A formula by its id; `CallError` where there is none."""
    formula = table().get(name)
    if formula is None:
        raise CallError(
            f"there is no formula {name[:40]!r} in the table", f"公式表中没有 {name[:40]!r}"
        )
    return formula


def with_values(
    name: str, values: str, target: str
) -> tuple[Formula, str | None, dict[str, Tree], str]:
    """(formula, expression or None, the given values, the wanted name).

    The expression gives the wanted quantity where it stands alone on the left; None where the
    formula is to be solved for it.
    """
    formula = get(name)
    if not formula.plain:
        raise CallError(f"{formula.en} is shown, not computed", f"{formula.zh}只供查阅，不做计算")
    equation = parse(formula.plain)
    assert isinstance(equation, Relation)
    assert isinstance(equation.left, Name)
    names = {variable for variable, _, _ in formula.variables}
    given: dict[str, Tree] = {}
    for item in parse_list(normalise(values)) if values.strip() else ():
        if not isinstance(item, Relation) or not isinstance(item.left, Name):
            raise CallError(
                f"values={values[:40]!r}: write them as r = 3, h = 2",
                f"values={values[:40]!r}：请写成 r = 3, h = 2 的形式",
            )
        if item.left.name not in names:
            raise CallError(
                f"{formula.en} has no {item.left.name}; its names are {', '.join(sorted(names))}",
                f"{formula.zh}中没有 {item.left.name}；可用的有 {', '.join(sorted(names))}",
            )
        given[item.left.name] = item.right
    missing = names - given.keys()
    wanted = target or (equation.left.name if equation.left.name in missing else "")
    if not wanted and len(missing) == 1:
        wanted = next(iter(missing))
    if wanted == equation.left.name:
        return formula, tree_plain(equation.right), given, wanted
    if wanted not in names:
        raise CallError(
            f"say which quantity of {formula.en} is wanted: {', '.join(sorted(missing))}",
            f"请说明要求{formula.zh}中的哪个量：{', '.join(sorted(missing))}",
        )
    return formula, None, given, wanted
