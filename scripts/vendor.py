"""Bring the page's third-party files from npm, or check that they are what npm serves.

    python scripts/vendor.py          write hunyuan/workbench/page/vendor/ and its manifest.json
    python scripts/vendor.py --check  compare every file with npm; exit code 1 on a difference

Files are copied byte for byte; nothing is built. npm checks each archive against the registry's
digest, which the manifest records beside the digest of each file.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "hunyuan" / "workbench" / "page" / "vendor"

KATEX_FONTS = (
    *("AMS-Regular", "Caligraphic-Bold", "Caligraphic-Regular", "Fraktur-Bold"),
    *("Fraktur-Regular", "Main-Bold", "Main-BoldItalic", "Main-Italic", "Main-Regular"),
    *("Math-BoldItalic", "Math-Italic", "SansSerif-Bold", "SansSerif-Italic"),
    *("SansSerif-Regular", "Script-Regular", "Size1-Regular", "Size2-Regular"),
    *("Size3-Regular", "Size4-Regular", "Typewriter-Regular"),
)


@dataclass(frozen=True)
class Package:
    """One version of an npm package; ``files`` maps paths inside it to names in vendor/."""

    name: str
    version: str
    licence: str
    files: dict[str, str]
    inside: str | None = None
    """The package whose file contains this one's code; then only the licence is copied."""


PACKAGES = (
    Package(
        "htm", "3.1.1", "Apache-2.0", {"preact/standalone.module.js": "preact.js", "LICENSE": ""}
    ),
    Package("preact", "10.5.9", "MIT", {"LICENSE": ""}, inside="htm"),
    Package(
        "markdown-it",
        "15.0.3",
        "MIT",
        {"dist/browser/markdown-it.esm.min.mjs": "markdown-it.js", "LICENSE": ""},
    ),
    Package("mdurl", "2.1.0", "MIT", {"LICENSE": ""}, inside="markdown-it"),
    Package("linkify-it", "6.1.0", "MIT", {"LICENSE": ""}, inside="markdown-it"),
    Package("uc.micro", "3.0.0", "MIT", {"LICENSE.txt": ""}, inside="markdown-it"),
    Package("entities", "8.1.0", "BSD-2-Clause", {"LICENSE": ""}, inside="markdown-it"),
    Package(
        "dompurify",
        "3.4.18",
        "MPL-2.0 OR Apache-2.0",
        {"dist/purify.es.mjs": "dompurify.js", "LICENSE": ""},
    ),
    Package(
        "katex",
        "0.19.1",
        "MIT",
        {
            "dist/katex.mjs": "katex/katex.js",
            "dist/katex.min.css": "katex/katex.css",
            **{
                f"dist/fonts/KaTeX_{font}.woff2": f"katex/fonts/KaTeX_{font}.woff2"
                for font in KATEX_FONTS
            },
            "LICENSE": "",
        },
    ),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "BSD-3-Clause",
        {"es/highlight.min.js": "highlight.js", "LICENSE": ""},
    ),
    Package(
        "diff",
        "9.0.0",
        "BSD-3-Clause",
        {
            "libesm/diff/base.js": "diff/base.js",
            "libesm/diff/array.js": "diff/array.js",
            "LICENSE": "",
        },
    ),
    Package(
        "echarts",
        "6.1.0",
        "Apache-2.0",
        {
            "dist/echarts.esm.min.mjs": "echarts.js",
            "LICENSE": "",
            "NOTICE": "",
            "licenses/LICENSE-d3": "",
        },
    ),
    Package(
        "uplot",
        "1.6.32",
        "MIT",
        {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": ""},
    ),
)


def target_of(package: Package, source: str) -> str:
    """Where a file of a package goes in vendor/; licences are named after their package."""
    named = package.files[source]
    if named:
        return named
    folder = package.name.lstrip("@").replace("/", "-")
    return f"licenses/{folder}/{Path(source).name}"


def fetch(package: Package, folder: Path) -> tuple[str, dict[str, bytes]]:
    """npm's digest of a package's archive, and the wanted files by their name in vendor/."""
    wanted = f"{package.name}@{package.version}"
    command = ["npm", "pack", wanted, "--json", "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"npm pack {wanted} failed:\n{done.stderr or done.stdout}")
    (packed,) = json.loads(done.stdout)
    archive = folder / packed["filename"].lstrip("@").replace("/", "-")
    files = {}
    with tarfile.open(archive) as tar:
        manifest = json.loads(_read(tar, "package.json"))
        if manifest["license"].strip("()") != package.licence:
            raise SystemExit(f"{wanted} is licensed {manifest['license']}, not {package.licence}")
        for source in package.files:
            files[target_of(package, source)] = _read(tar, source)
    return packed["integrity"], files


def entries(folder: Path) -> Iterator[tuple[dict[str, object], dict[str, bytes]]]:
    """For each package its part of the manifest and its files."""
    for package in PACKAGES:
        integrity, files = fetch(package, folder)
        entry: dict[str, object] = {
            "name": package.name,
            "version": package.version,
            "licence": package.licence,
            "integrity": integrity,
            "files": [
                {
                    "path": target_of(package, source),
                    "source": source,
                    "sha256": hashlib.sha256(files[target_of(package, source)]).hexdigest(),
                }
                for source in package.files
            ],
        }
        if package.inside:
            entry["inside"] = package.inside
        yield entry, files


def derive() -> dict[str, bytes]:
    """The whole vendor folder as npm gives it, manifest included, by path."""
    manifest = []
    derived: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for entry, files in entries(Path(folder)):
            manifest.append(entry)
            derived |= files
    text = json.dumps({"packages": manifest}, indent=2) + "\n"
    return {**derived, "manifest.json": text.encode()}


def present() -> dict[str, bytes]:
    """The vendor folder as it lies here, by path."""
    return {
        str(path.relative_to(VENDOR)): path.read_bytes()
        for path in VENDOR.rglob("*")
        if path.is_file()
    }


def main() -> int:
    """Write or compare; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    derived, here = derive(), present()
    changed = sorted(path for path in derived | here if derived.get(path) != here.get(path))
    if not check:
        for path in changed:
            target = VENDOR / path
            if path in derived:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(derived[path])
            else:
                target.unlink()
    for path in changed:
        sys.stdout.write(f"{path} {'differs' if check else 'written'}\n")
    sys.stdout.write(f"{len(derived)} files from {len(PACKAGES)} packages\n")
    return 1 if check and changed else 0


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    # Most archives keep their files under package/, a few under another name.
    for member in tar.getmembers():
        if member.isfile() and member.name.split("/", 1)[-1] == name:
            file = tar.extractfile(member)
            assert file is not None
            return file.read()
    raise SystemExit(f"{tar.name}: no {name}")


if __name__ == "__main__":
    sys.exit(main())
