"""Licences of everything the project needs at run time, as a bill of materials.

    python scripts/licences.py                 print them, one line each
    python scripts/licences.py -o FILE         write a bill of materials (CycloneDX 1.6, JSON)
    python scripts/licences.py --check         exit code 1 where a licence is not allowed

Looked at are the distributions installed here that hunyuan and its extras require (without `dev`),
and the libraries of the page in hunyuan/workbench/page/vendor. scripts/licences.toml says which
licences are allowed and which packages a person has reviewed.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hunyuan.files import atomic_file

ROOT = Path(__file__).parents[1]
RULES = Path(__file__).with_suffix(".toml")
VENDOR = ROOT / "hunyuan" / "workbench" / "page" / "vendor" / "manifest.json"
PROJECT = ROOT / "pyproject.toml"
NOT_AT_RUN_TIME = {"dev"}
_UNSTATED = "UNKNOWN"
"""What older setuptools wrote where a package said nothing."""

_LONGEST = 80
"""Characters of a licence's name; what is longer is a text."""


@dataclass(frozen=True)
class Component:
    """One package."""

    ecosystem: str
    """``pypi`` or ``npm``."""

    name: str
    version: str
    licence: str
    """An SPDX expression, or what the package says where that is none; empty: it says nothing."""

    requires: tuple[str, ...] = ()

    @property
    def purl(self) -> str:
        """Its package URL: ``pkg:pypi/numpy@2.0``."""
        return f"pkg:{self.ecosystem}/{self.name.replace('@', '%40')}@{self.version}"


@dataclass(frozen=True)
class Rules:
    """What is allowed."""

    allowed: frozenset[str]
    spelled: Mapping[str, str]
    reviewed: Mapping[str, Mapping[str, str]]

    def problem(self, component: Component) -> str | None:
        """Why a component may not be used; None if it may."""
        review = self.reviewed.get(component.name)
        if review is not None:
            return None if review.get("reason") else f"{component.name}: reviewed without a reason"
        if not component.licence:
            return f"{component.name} {component.version}: states no licence; review it"
        if not allows(component.licence, self.allowed):
            return f"{component.name} {component.version}: {component.licence} is not allowed"
        return None


def rules(path: Path = RULES) -> Rules:
    """The rules of a file."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    return Rules(frozenset(found["allowed"]), found["spelled"], found.get("reviewed", {}))


def allows(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression can be met by allowed licences alone.

    All parts of an ``AND`` must be allowed, one of an ``OR``; ``AND`` binds closer.
    """
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)

    def either() -> bool:
        found = both()
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            found = both() or found
        return found

    def both() -> bool:
        found = one()
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            found = one() and found
        return found

    def one() -> bool:
        if not tokens or tokens[0] in (")", "AND", "OR"):
            return False
        token = tokens.pop(0)
        if token == "(":
            found = either()
            return bool(tokens) and tokens.pop(0) == ")" and found
        if len(tokens) > 1 and tokens[0].upper() == "WITH":
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in allowed

    return either() and not tokens


def licence_of(found: Distribution, spelled: Mapping[str, str]) -> str:
    """The licence a distribution states: an expression, a known spelling, or its first words.

    A licence in its own words counts before the classifiers, which know only families; several
    classifiers are read as all of them.
    """
    metadata = cast(Message, found.metadata)
    if expression := metadata.get("License-Expression"):
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    if text == _UNSTATED:
        text = ""
    # Some put the whole text there, which begins with its name.
    title = text.split("\n")[0].strip()
    if title in spelled:
        return spelled[title]
    if text == title and 0 < len(text) <= _LONGEST:
        return text
    kinds = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    return " AND ".join(dict.fromkeys(spelled.get(kind, kind) for kind in kinds))


def python_components(spelled: Mapping[str, str]) -> list[Component]:
    """hunyuan and all installed distributions that it and its extras need, by name."""
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    # As the sources say: an editable installation may be older than an extra.
    waiting = [
        (need.name, frozenset(need.extras))
        for extra, lines in extras.items()
        if extra not in NOT_AT_RUN_TIME
        for need in map(Requirement, lines)
    ]
    waiting.append(("hunyuan", frozenset(extras.keys() - NOT_AT_RUN_TIME)))
    seen: dict[str, set[str]] = {}
    found: dict[str, Distribution] = {}
    while waiting:
        name, wanted = waiting.pop()
        key = canonicalize_name(name)
        new = wanted - seen.get(key, set())
        if key in found and not new:
            continue
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        seen.setdefault(key, set()).update(wanted)
        waiting += [
            (need.name, frozenset(need.extras)) for need in _needs(found[key], frozenset(seen[key]))
        ]
    return [
        Component(
            "pypi",
            key,
            each.version,
            licence_of(each, spelled),
            tuple(
                sorted(
                    {canonicalize_name(n.name) for n in _needs(each, frozenset(seen[key]))}
                    & found.keys()
                )
            ),
        )
        for key, each in sorted(found.items())
    ]


def _needs(found: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for line in found.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras | {""}):
            yield need


def page_components(path: Path = VENDOR) -> list[Component]:
    """The libraries of the page, as their manifest lists them."""
    packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
    return [Component("npm", p["name"], p["version"], p["licence"]) for p in packages]


def bill(components: Sequence[Component], limits: Rules) -> dict[str, Any]:
    """A CycloneDX 1.6 document; its root is the first component."""
    root, *others = components
    at = {component.name: component.purl for component in components}
    needs = {c.purl: [at[name] for name in c.requires] for c in components}
    needs[root.purl] += [c.purl for c in others if c.ecosystem == "npm"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**_entry(root, limits), "type": "application"}},
        "components": [{**_entry(c, limits), "type": "library"} for c in others],
        "dependencies": [{"ref": ref, "dependsOn": on} for ref, on in needs.items()],
    }


def _entry(component: Component, limits: Rules) -> dict[str, Any]:
    review = limits.reviewed.get(component.name)
    licence = review["licence"] if review else component.licence
    entry: dict[str, Any] = {
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
        "licenses": [{"expression": licence}] if licence else [],
    }
    if review:
        entry["properties"] = [{"name": "hunyuan:licence-review", "value": review["reason"]}]
    return entry


def main() -> None:
    """Print, write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    limits = rules()
    everything = python_components(limits.spelled)
    # The project first: it is what the bill is of.
    everything.sort(key=lambda component: component.name != "hunyuan")
    everything += page_components()
    if given.out is not None:
        with atomic_file(given.out) as file:
            file.write((json.dumps(bill(everything, limits), indent=1) + "\n").encode())
    elif not given.check:
        for c in everything:
            mark = " (reviewed)" if c.name in limits.reviewed else ""
            sys.stdout.write(f"{c.ecosystem:5} {c.name:28} {c.version:16} {c.licence}{mark}\n")
    if given.check and (wrong := [p for c in everything if (p := limits.problem(c))]):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
