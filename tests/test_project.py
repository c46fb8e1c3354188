"""Promises about the project itself: what a wheel holds, what the documents say, what is read."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest

from hunyuan.cli.main import VERBS
from hunyuan.engine.request import SamplingParams
from hunyuan.model.config import ModelConfig, Rope, Routing, presets
from hunyuan.native.library import unavailable

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "hunyuan").rglob("*.py"))


def test_the_wheel_holds_the_data_files_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "hunyuan").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    assert not {n for n in names if n.startswith(("tests/", "benchmarks/", "docs/"))}


def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """Else their tests would be skipped, and nobody would notice."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: the kernels are not compiled, torch computes everything")
    assert unavailable() is None


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_readmes_name_every_verb_and_only_files_that_exist(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    for verb in VERBS:
        assert f"`{verb}`" in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target
    for folder in re.findall(r"^  (\w+)/ ", text, re.MULTILINE):
        assert (ROOT / "hunyuan" / folder).is_dir(), folder


def test_readmes_show_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        found = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
        return [re.sub(r"\s+#.*", "", command) for command in found]

    assert commands("README.md") == commands("README.zh.md")


@pytest.mark.parametrize("kind", [ModelConfig, Rope, Routing, SamplingParams])
def test_every_field_is_documented_and_read(kind: type) -> None:
    """A setting that nothing reads is a lie; reads inside its own class do not count."""
    home = Path(sys.modules[kind.__module__].__file__ or "")
    tree = ast.parse(home.read_text(encoding="utf-8"))
    (own,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind.__name__]
    documented = {
        first.target.id
        for first, second in zip(own.body, own.body[1:], strict=False)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
    }
    read: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            inside = source == home and own.lineno <= getattr(node, "lineno", 0) <= own.end_lineno
            if isinstance(node, ast.Attribute) and not inside:
                read.add(node.attr)
    for field in fields(kind):
        assert field.name in documented, f"{field.name} has no docstring"
        assert field.name in read, f"{field.name} is read by nothing"


def test_presets_are_named_in_the_help_of_info() -> None:
    text = (ROOT / "hunyuan" / "cli" / "info.py").read_text(encoding="utf-8")
    for name in presets():
        assert name in text


def literal(node: ast.expr) -> str:
    """What is written out in a text, without the values put in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(p.value) for p in parts if isinstance(p, ast.Constant))


def test_errors_are_written_in_both_languages() -> None:
    """Beside every English sentence that is raised stands a Chinese one, not the same again."""
    kinds = {"HunyuanError", "UsageError", "DoesNotFitError", "BadDataError"}
    seen = 0
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in kinds or len(node.args) != 2:
                continue
            english, chinese = map(literal, node.args)
            if len(re.findall("[a-z]", english)) < 10:
                continue  # put together from texts written elsewhere
            seen += 1
            assert re.search("[\u4e00-\u9fff]", chinese), f"{source}:{node.lineno}"
            assert not re.search("[\u4e00-\u9fff]", english), f"{source}:{node.lineno}"
    assert seen > 50
