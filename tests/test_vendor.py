"""The page's third-party files are what their manifest says, and what npm serves."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "hunyuan" / "workbench" / "page" / "vendor"
PACKAGES = json.loads((VENDOR / "manifest.json").read_text(encoding="utf-8"))["packages"]


def test_every_file_is_listed_with_its_hash() -> None:
    listed = {file["path"]: file["sha256"] for package in PACKAGES for file in package["files"]}
    present = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert present == listed


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package["name"])
def test_every_package_has_a_version_and_a_free_licence(package: dict[str, object]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(package["version"]))
    assert str(package["integrity"]).startswith("sha512-")
    free = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MPL-2.0"}
    assert set(str(package["licence"]).split(" OR ")) <= free
    paths = [file["path"] for file in package["files"]]  # type: ignore[attr-defined]
    texts = [VENDOR / path for path in paths if path.startswith("licenses/")]
    assert texts, "no licence text"
    assert all(len(path.read_text(encoding="utf-8")) > 100 for path in texts)


def test_modules_import_only_their_neighbours() -> None:
    """A bare import would need a bundler or an import map."""
    for path in VENDOR.rglob("*.js"):
        code = path.read_text(encoding="utf-8")
        for name in re.findall(r"^import\b[^;\n]*?['\"]([^'\"]+)['\"]", code, re.MULTILINE):
            assert name.startswith("."), path
            assert (path.parent / name).is_file(), f"{path} imports {name}"


def test_npm_serves_the_same_files() -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the vendored files are not compared with it")
    asked = subprocess.run(
        ["npm", "view", "htm@3.1.1", "version"], capture_output=True, text=True, timeout=60
    )
    if asked.returncode:
        pytest.skip("npm reaches no registry: the vendored files are not compared with it")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "vendor.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
