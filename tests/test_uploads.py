"""Files on their way in: counted, on the disk, gone afterwards; tables read beside the server."""

import asyncio
import hashlib
import io
import os
import random
import re
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import APIRouter, Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import app_of, http, listening

from hunyuan.charts.apart import read_table_apart
from hunyuan.charts.table import TableError, read_table
from hunyuan.workbench.streaming import WorkbenchRoute
from hunyuan.workbench.uploads import received

LIMIT = 8 << 20


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Tells what it received; ``?fail`` breaks while the file is there."""
    router = APIRouter(route_class=WorkbenchRoute)

    @router.put("/file")
    async def put(request: Request, fail: bool = False) -> dict[str, object]:
        async with received(request, LIMIT, tmp_path) as upload:
            assert upload.path.parent == tmp_path
            if fail:
                raise ZeroDivisionError
            data = await asyncio.to_thread(upload.path.read_bytes)
            return {"size": upload.size, "same": upload.sha256 == hashlib.sha256(data).hexdigest()}

    with listening(app_of(router)) as found:
        yield found


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, LIMIT])
def test_a_body_arrives_whole_and_leaves_nothing(address: str, tmp_path: Path, size: int) -> None:
    with http(address) as client:
        data = os.urandom(size)
        assert client.put("/file", content=data).json() == {"size": size, "same": True}
        assert client.put("/file", params={"fail": True}, content=data).status_code == 500
    assert list(tmp_path.iterdir()) == []


def endless() -> Iterator[bytes]:
    """Says no length beforehand."""
    for _ in range(LIMIT // 65536 + 1):
        yield bytes(65536)


def test_one_byte_too_many_is_refused(address: str, tmp_path: Path) -> None:
    with http(address) as client:
        for body in (bytes(LIMIT + 1), endless()):
            refused = client.put("/file", content=body, headers={"Accept-Language": "zh"})
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (413, "request_too_large")
            assert "8 MiB" in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_are_not_held_in_memory(tmp_path: Path) -> None:
    together = 8
    all_here = asyncio.Barrier(together)
    router = APIRouter(route_class=WorkbenchRoute)

    @router.put("/file")
    async def put(request: Request) -> int:
        async with received(request, LIMIT, tmp_path) as upload:
            await all_here.wait()
            return upload.size

    with listening(app_of(router)) as found, http(found) as client:
        body = bytes(LIMIT)  # the clients share it
        tracemalloc.start()
        try:
            with ThreadPoolExecutor(together) as pool:
                sent = pool.map(lambda _: client.put("/file", content=body).json(), range(together))
                assert list(sent) == [LIMIT] * together
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # Each holds a piece and its copy at the most; bodies would be 64 MiB.
    assert peak < 4 * together << 20


# ---------------------------------------------------------------- tables


def workbook(rows: int, columns: int) -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("one")
    sheet.append([f"h{i}" for i in range(columns)])
    numbers = random.Random(0)
    for _ in range(rows):
        sheet.append([numbers.random() if i else "text" for i in range(columns)])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_a_workbook_is_read_the_same_apart(tmp_path: Path) -> None:
    data = workbook(50, 4)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert read_table_apart(path, "book.xlsx", "one") == read_table("book.xlsx", data, "one")
    with pytest.raises(TableError, match="sheet='two'"):
        read_table_apart(path, "book.xlsx", "two")


@given(st.lists(st.lists(st.text(max_size=4), min_size=1, max_size=3), max_size=4))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_table_is_read_the_same_apart(tmp_path: Path, rows: list[list[str]]) -> None:
    data = "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")
    path = tmp_path / "file"
    path.write_bytes(data)
    try:
        expected = read_table("x", data)
    except TableError as error:
        with pytest.raises(TableError, match=f"^{re.escape(error.en)}"):
            read_table_apart(path, "x")
    else:
        assert read_table_apart(path, "x") == expected


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)  # nobody ever writes to it
    begun = time.monotonic()
    with pytest.raises(TableError, match="more than 1 s"):
        read_table_apart(path, "x", seconds=1)
    assert time.monotonic() - begun < 5


def test_a_reader_that_dies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="broke down"):
        read_table_apart(tmp_path / "absent", "x")


def test_the_work_is_done_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(workbook(3000, 20))
    before = os.times()
    assert read_table_apart(path, "x").rows == 3000
    after = os.times()
    # Processor time, so whatever else this machine does makes no difference.
    assert 4 * (after.user - before.user) < after.children_user - before.children_user
