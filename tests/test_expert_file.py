"""The file of experts: its layout, its hashes, and writing that survives being killed."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import write_random_checkpoint
from test_native import ISAS

from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.load import load_packed
from hunyuan.cli.main import cli
from hunyuan.errors import BadDataError, DiskFullError, HunyuanError, UsageError
from hunyuan.formats import expert_file
from hunyuan.formats.expert_file import (
    ExpertFileWriter,
    ExpertLayout,
    read_expert_file,
)
from hunyuan.formats.gguf import GGMLType
from hunyuan.model.config import preset
from hunyuan.native.experts import (
    expert_layout,
    extent_hash,
    pack_extent,
    read_expert_matrix,
    sequential_read,
)
from hunyuan.native.library import ISA_VARIABLE, unavailable
from hunyuan.native.quantize import quantize

pytestmark = pytest.mark.skipif(bool(unavailable()), reason="the kernels are not compiled")

CONFIG = replace(
    preset("tiny"),
    **{"hidden": 256, "head_dim": 32, "heads": 4, "kv_heads": 2, "ffn": 96},
    layers=2,
    experts=4,
)
TYPES = (GGMLType.Q4_K, GGMLType.Q4_K, GGMLType.Q4_1)
LAYOUT = ExpertLayout(
    layers=2, experts=3, hidden=8, ffn=8, types=TYPES, sizes=(100, 64, 5000), packing=1
)


def extent(number: int) -> bytes:
    return bytes([number]) * LAYOUT.length


def write(folder: Path, numbers: range, source: str = "s") -> None:
    with ExpertFileWriter(folder, LAYOUT, source) as writer:
        for number in numbers:
            if divmod(number, 3) not in writer.done:
                writer.append(*divmod(number, 3), extent(number), f"{number:016x}")
        if len(writer.done) == LAYOUT.extents:
            writer.finish()


def whole(folder: Path) -> tuple[bytes, bytes]:
    assert sorted(path.name for path in folder.iterdir()) == ["experts.bin", "experts.json"]
    return (folder / "experts.bin").read_bytes(), (folder / "experts.json").read_bytes()


def test_extents_are_aligned_and_found_again(tmp_path: Path) -> None:
    assert LAYOUT.starts == (0, 128, 192)
    assert LAYOUT.length == 8192
    write(tmp_path, range(6))
    file = read_expert_file(tmp_path)
    assert file.layout == LAYOUT
    assert file.hashes == tuple(range(6))
    assert all(offset % 4096 == 0 for offset in file.offsets)
    data = file.path.read_bytes()
    assert len(data) == file.nbytes
    for number, offset in enumerate(file.offsets):
        assert data[offset : offset + LAYOUT.length] == extent(number)


def test_extents_may_come_in_any_order(tmp_path: Path) -> None:
    with ExpertFileWriter(tmp_path, LAYOUT, "s") as writer:
        for number in (4, 0, 5, 1, 3, 2):
            writer.append(*divmod(number, 3), memoryview(extent(number)), f"{number:016x}")
        writer.finish()
    file = read_expert_file(tmp_path)
    data = file.path.read_bytes()
    for number, offset in enumerate(file.offsets):
        assert data[offset] == number
        assert file.hashes[number] == number


@pytest.mark.parametrize("torn", ["", '{"layer": 1, "exp', "x"])
def test_a_killed_writer_is_taken_up_where_it_was(tmp_path: Path, torn: str) -> None:
    """Half an extent, half a journal line: neither survives."""
    write(tmp_path / "at once", range(6))
    write(tmp_path / "twice", range(4))
    assert not (tmp_path / "twice" / "experts.bin").exists()
    with (tmp_path / "twice" / expert_file.PARTIAL).open("ab") as file:
        file.write(b"half an extent")
    with (tmp_path / "twice" / expert_file.JOURNAL).open("a") as journal:
        journal.write(torn)
    with ExpertFileWriter(tmp_path / "twice", LAYOUT, "s") as writer:
        assert writer.done == {divmod(number, 3) for number in range(4)}
    write(tmp_path / "twice", range(6))
    assert whole(tmp_path / "twice") == whole(tmp_path / "at once")


@pytest.mark.parametrize("moment", ["named", "indexed"])
def test_killed_while_finishing(tmp_path: Path, moment: str) -> None:
    write(tmp_path / "at once", range(6))
    write(tmp_path / "twice", range(5))
    folder = tmp_path / "twice"
    journal = folder / expert_file.JOURNAL
    with ExpertFileWriter(folder, LAYOUT, "s") as writer:
        writer.append(1, 2, extent(5), f"{5:016x}")
        lines = journal.read_text()
        writer.finish()
    journal.write_text(lines)
    if moment == "named":
        (folder / "experts.json").unlink()
    write(folder, range(6))
    assert whole(folder) == whole(tmp_path / "at once")


def test_another_conversion_is_not_continued(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    with pytest.raises(UsageError, match="another conversion"):
        ExpertFileWriter(tmp_path, LAYOUT, "other")
    with pytest.raises(UsageError, match="another conversion"):
        ExpertFileWriter(tmp_path, replace(LAYOUT, packing=2), "s")
    write(tmp_path, range(6))
    with pytest.raises(UsageError, match="another conversion"):
        ExpertFileWriter(tmp_path, LAYOUT, "other")


def test_a_full_disk_keeps_what_is_written(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    write(tmp_path, range(2))
    with ExpertFileWriter(tmp_path, LAYOUT, "s") as writer:
        own, writer._data = writer._data, full.open("wb", buffering=0)
        with pytest.raises(DiskFullError):
            writer.append(0, 2, extent(2), "2")
        assert writer.done == {(0, 0), (0, 1)}
        own.close()
    write(tmp_path, range(6))
    assert read_expert_file(tmp_path).hashes == tuple(range(6))


# ---------------------------------------------------------------- packing and hashing


def blocks_of_expert(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((96, 256), (96, 256), (256, 96))
    parts = zip(shapes, TYPES, strict=True)
    return [quantize(torch.randn(shape, generator=generator), kind) for shape, kind in parts]


def test_packing_is_the_same_for_every_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = expert_layout(CONFIG, TYPES)
    found = []
    for isa in ISAS:
        monkeypatch.setenv(ISA_VARIABLE, isa)
        out = torch.full((layout.length,), 7, dtype=torch.uint8)
        pack_extent(layout, *blocks_of_expert(0), out)
        found.append(extent_hash(out))
    assert len(set(found)) == 1
    # The layout of files that exist: when this changes, so must HY_PACKING_VERSION.
    assert (layout.packing, layout.starts) == (1, (0, 14208, 28416))
    assert not out[layout.starts[2] + layout.sizes[2] :].any()


def test_the_hash_is_xxh64_over_pieces() -> None:
    xxhash = pytest.importorskip("xxhash")
    generator = np.random.default_rng(0)
    for size in (4096, (4 << 20) - 4096, 4 << 20, (8 << 20) + 4096, 1, 31, 63, 77):
        data = generator.integers(0, 256, size, np.uint8).tobytes()
        pieces = [data[at : at + (4 << 20)] for at in range(0, size, 4 << 20)]
        inner = b"".join(xxhash.xxh64(piece).intdigest().to_bytes(8, "little") for piece in pieces)
        found = extent_hash(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        assert found == xxhash.xxh64(inner).hexdigest()


def test_reading_in_order_is_measured(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(16 << 20))
    assert sequential_read(tmp_path / "f") > 1e6
    (tmp_path / "f").write_bytes(b"short")
    for name in ("f", "missing"):
        with pytest.raises(HunyuanError, match="cannot be read or is too short"):
            sequential_read(tmp_path / name)


# ---------------------------------------------------------------- converting


@pytest.mark.parametrize("scheme", ["q4", "q8"])
def test_converted_weights_are_those_of_a_folder(tmp_path: Path, scheme: Any) -> None:
    source = write_random_checkpoint(tmp_path / "m", CONFIG)
    convert(source, tmp_path / "whole", quantize=scheme)
    convert(source, tmp_path / "disk", quantize=scheme, experts_on_disk=True, verify=True)
    whole, disk = open_checkpoint(tmp_path / "whole"), open_checkpoint(tmp_path / "disk")
    assert disk.experts is not None
    assert set(whole.pieces) - set(disk.pieces) == {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight"
        for layer in range(2)
        for expert in range(4)
        for name in expert_file.PROJECTIONS
    }
    for leaf in whole.pieces:
        assert disk.stored_type(leaf) == whole.stored_type(leaf)
        assert torch.equal(disk.read(leaf), whole.read(leaf)), leaf
    with pytest.raises(UsageError, match="convert the model it was made from"):
        convert(tmp_path / "disk", tmp_path / "again", quantize=scheme)


def test_an_altered_extent_is_named_when_converting_back(tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "m", CONFIG)
    convert(source, tmp_path / "disk", quantize="q4", experts_on_disk=True)
    experts = open_checkpoint(tmp_path / "disk").experts
    assert experts is not None
    with experts.path.open("r+b") as file:
        file.seek(experts.offsets[5] + 9)
        file.write(b"altered")
    read_expert_matrix(experts, 1, 0, "up_proj")
    with pytest.raises(BadDataError, match=f"layer 1 expert 1 has hash .*{experts.hashes[5]:016x}"):
        read_expert_matrix(experts, 1, 1, "up_proj")


KILLED = """
import os, signal, sys
from pathlib import Path
from hunyuan.checkpoint.convert import convert
from hunyuan.formats.expert_file import ExpertFileWriter

append = ExpertFileWriter.append

def killed(self, layer, expert, extent, hash):
    if len(self.done) == 5:
        self._data.write(extent[:1000])
        self._data.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, layer, expert, extent, hash)

ExpertFileWriter.append = killed
convert(Path(sys.argv[1]), Path(sys.argv[2]), quantize="q4", experts_on_disk=True)
"""


def test_a_killed_conversion_goes_on(tmp_path: Path) -> None:
    """Killed in the middle of the sixth expert; the second run quantises only what is missing."""
    source = write_random_checkpoint(tmp_path / "m", CONFIG)
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "disk")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "disk").exists()
    journal = tmp_path / ".disk.hunyuan.partial" / expert_file.JOURNAL
    assert len(journal.read_text().splitlines()) == 1 + 5
    seen: list[int] = []
    convert(
        source,
        tmp_path / "disk",
        quantize="q4",
        experts_on_disk=True,
        progress=lambda done, total: seen.append(done),
    )
    others = len(open_checkpoint(tmp_path / "disk").pieces)
    assert len(seen) == 3 * (8 - 5) + others
    assert seen[-1] == CONFIG.total_parameters
    assert not journal.exists()
    convert(source, tmp_path / "at once", quantize="q4", experts_on_disk=True)
    for name in ("experts.bin", "experts.json", "model.safetensors", "config.json"):
        assert (tmp_path / "disk" / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()
    load_packed(tmp_path / "disk")


def test_the_command_converts(tmp_path: Path) -> None:
    source = str(write_random_checkpoint(tmp_path / "m", CONFIG))
    options = ["--quantize", "q4", "--experts-on-disk", "--json"]
    run = CliRunner().invoke(cli, ["convert", source, str(tmp_path / "d"), *options])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["target"] == str(tmp_path / "d")
    assert (tmp_path / "d" / "experts.bin").stat().st_size == open_checkpoint(
        tmp_path / "d"
    ).experts.nbytes  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("d", ["--experts-on-disk"], "add --quantize q4 or q8"),
        ("d.gguf", ["--experts-on-disk", "--quantize", "q4"], "a folder to write"),
    ],
)
def test_what_has_no_meaning_is_refused(
    tmp_path: Path, target: str, options: list[str], words: str
) -> None:
    source = str(write_random_checkpoint(tmp_path / "m", CONFIG))
    run = CliRunner().invoke(cli, ["convert", source, str(tmp_path / target), *options])
    assert isinstance(run.exception, UsageError)
    assert words in run.exception.en
