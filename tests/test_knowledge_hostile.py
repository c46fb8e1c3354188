"""Files and questions made to do harm, each with its outcome. The import lives on after each."""

import io
import json
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import FOLDER, add, settled

from hunyuan.errors import UsageError
from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.document import Limits
from hunyuan.knowledge.words import query_terms

LIMITS = Limits(
    file_bytes=8_000_000,
    pages=200,
    characters=2_000_000,
    unpacked_bytes=20_000_000,
    memory_bytes=512 * 1024**2,
    seconds=8.0,
    seconds_a_page=4.0,
)


def pdf(*objects: bytes, trailer: bytes = b"<< /Root 1 0 R >>") -> bytes:
    """A PDF of numbered objects with a right table of their places."""
    data = b"%PDF-1.7\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"trailer\n%s\nstartxref\n%d\n%%%%EOF\n" % (trailer, start)


def stream(content: bytes, extra: bytes = b"") -> bytes:
    packed = zlib.compress(content, 9)
    head = b"<< /Length %d /Filter /FlateDecode %s>>" % (len(packed), extra)
    return head + b"\nstream\n" + packed + b"\nendstream"


def page_pdf(content: bytes, pages: int = 1) -> bytes:
    """Pages that all show the same content."""
    kids = b" ".join(b"%d 0 R" % (5 + i) for i in range(pages))
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
    page += b"/Resources << /Font << /F 3 0 R >> >> >>"
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, pages),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        stream(content),
        *[page] * pages,
    )


def encrypted_pdf() -> bytes:
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [] /Count 0 >>",
        b"<< /Filter /Standard /V 1 /R 2 /Length 40 /P -4 "
        b"/O <%s> /U <%s> >>" % (b"41" * 32, b"42" * 32),
        trailer=b"<< /Root 1 0 R /Encrypt 3 0 R /ID [<00112233> <00112233>] >>",
    )


def looped_pdf() -> bytes:
    """A tree of pages that is its own child."""
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 1000000 >>",
    )


def packed(files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


CONTENT_TYPES = (
    b'<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
    b'content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-'
    b'package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
    b'<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
    b'officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    b'<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
    b'relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/'
    b'2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>'
)


def docx(document: bytes, **more: bytes) -> bytes:
    return packed(
        {
            "[Content_Types].xml": CONTENT_TYPES,
            "_rels/.rels": RELATIONS,
            "word/document.xml": document,
            **more,
        }
    )


WORD = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
LAUGHS = b"".join(
    b'<!ENTITY e%d "%s">' % (i, (b"&e%d;" % (i - 1)) * 10 if i else b"ha" * 10) for i in range(10)
)
ENTITIES = (
    b"<!DOCTYPE d [%s]><w:document %s><w:body><w:p><w:r><w:t>&e9;</w:t></w:r></w:p></w:body>"
    b"</w:document>" % (LAUGHS, WORD)
)
SECRET = (
    b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><w:document %s><w:body><w:p><w:r>'
    b"<w:t>before &x; after</w:t></w:r></w:p></w:body></w:document>" % WORD
)
REAL_PDF = (FOLDER / "handbook.en.pdf").read_bytes()

FAILS = {
    "encrypted pdf": ("x.pdf", encrypted_pdf(), "is encrypted"),
    "truncated pdf": ("x.pdf", REAL_PDF[: len(REAL_PDF) // 3], "damaged|no text"),
    "pdf that is something else": ("x.pdf", b"MZ\x90\x00 not a pdf at all", "is not a PDF"),
    "pdf header and rubbish": ("x.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 99, "damaged"),
    "pdf without text": ("x.pdf", page_pdf(b"0 0 m 100 100 l S"), "no text"),
    "pdf without pages": (
        "x.pdf",
        pdf(b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>"),
        "no text|damaged",
    ),
    "pdf with a looped page tree": ("x.pdf", looped_pdf(), "too large|no text|damaged"),
    "pdf of too many pages": ("x.pdf", page_pdf(b"BT /F 9 Tf (a) Tj ET", 201), "too large"),
    "pdf that unpacks to a gigabyte": (
        "x.pdf",
        page_pdf(b"q " * 250_000_000),
        "broke down|more than",
    ),
    "pdf with a page of endless text": (
        "x.pdf",
        page_pdf(b"BT /F 1 Tf " + b"(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) Tj " * 900_000 + b"ET"),
        "took more than|too large|more than|broke down",
    ),
    "docx that is a bomb": (
        "x.docx",
        docx(b"<w:document/>", **{"word/media/a.xml": b"0" * 30_000_000}),
        "too large",
    ),
    "docx of too many entries": (
        "x.docx",
        packed({f"{i}": b"" for i in range(10_001)}, zipfile.ZIP_STORED),
        "too large",
    ),
    "docx that is no archive": ("x.docx", b"PK\x03\x04" + b"\0" * 99, "damaged"),
    "docx in the old or encrypted form": (
        "x.docx",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 999,
        "old Office format",
    ),
    "docx without a document": ("x.docx", packed({"a/../../b.txt": b"x"}), "damaged"),
    "docx with exploding entities": ("x.docx", docx(ENTITIES), "damaged|more than|no text"),
    "xlsx that is a bomb": ("x.xlsx", packed({"a": b"0" * 30_000_000}), "too large"),
    "xlsx that is a docx": ("x.xlsx", docx(b"<w:document/>"), "damaged"),
    "json nested without end": ("x.json", b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
    "json with a number of a million digits": ("x.json", b'{"a": ' + b"9" * 10**6 + b"}", "JSON"),
    "json that is none": ("x.json", b"{'a': 1}", "not valid JSON"),
    "binary named as text": ("x.txt", bytes(range(256)) * 300, "not a text"),
    "pdf named as text": ("x.txt", REAL_PDF, "is a PDF|not a text"),
    "text of too many characters": ("x.txt", b"word " * 500_000, "too large"),
    "html of scripts only": ("x.html", b"<script>alert(1)</script>" * 9, "holds no text"),
    "nothing": ("x.txt", b"", "holds no text"),
    "white space": ("x.md", b" \n\t" * 999, "holds no text"),
    "invisible characters": ("x.txt", "\u200b\u202e\u2066".encode() * 99, "holds no text"),
}


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(tmp_path / "k.db", tmp_path / "files", limits=LIMITS) as made:
        yield made


@pytest.mark.parametrize("case", FAILS)
def test_a_hostile_file_fails_with_one_line_and_the_next_is_read(
    base: KnowledgeBase, case: str
) -> None:
    name, data, said = FAILS[case]
    assert len(data) < LIMITS.file_bytes
    collection = base.create_collection("c").id
    add(base, collection, name, data)
    add(base, collection, "good.txt", b"The lighthouse is 47 metres high.")
    bad, good = settled(base, collection, 40)
    assert bad.state == "failed", bad
    assert bad.error_en is not None
    assert bad.error_zh is not None
    assert re.search(said, bad.error_en), bad.error_en
    for line in (bad.error_en, bad.error_zh):
        assert name in line
        assert "\n" not in line
        assert len(line) < 400
    assert re.search("[\u4e00-\u9fff]", bad.error_zh)
    assert good.state == "ready"
    hits = base.search(collection, "lighthouse").hits
    assert [hit.passage.document.id for hit in hits] == [good.id]


def has(text: str) -> Callable[[str], bool]:
    return lambda read: text in read


HARMLESS: dict[str, tuple[str, bytes, Callable[[str], bool]]] = {
    "a script in html": (
        "x.html",
        b"<p>Fine <img src=x onerror=alert(1)> text <a href='javascript:alert(2)'>link</a>",
        lambda read: "Fine" in read and "alert" not in read,
    ),
    "html that never closes anything": (
        "x.html",
        b"<div>" * 100_000 + b"deep" + b"<b" * 1000,
        has("deep"),
    ),
    "html in comments and cdata": (
        "x.html",
        b"<!-- hidden <p>hidden --> <![CDATA[ x ]]> <p>shown<!--",
        lambda read: "shown" in read and "hidden" not in read,
    ),
    "docx that asks for a file": (
        "x.docx",
        docx(SECRET),
        lambda read: "root:" not in read and "before" in read,
    ),
    "one line of a million characters": ("x.txt", b"x" * 1_000_000, lambda read: len(read) > 9e5),
    "a csv cell of a million characters": (
        "x.csv",
        b'a,b\n1,"' + b"y" * 1_000_000 + b'"\n',
        lambda read: "b: yyy" in read,
    ),
    "a csv of formulas": ("x.csv", b"a,b\n=cmd|'/c calc'!A1,@SUM(1)\n", has("=cmd|")),
    "sql in text": ("x.txt", b"'; DROP TABLE document; -- \" OR 1=1", has("DROP TABLE")),
    "direction marks": (
        "x.txt",
        "abc\u202etxt.exe\u202c def\u200bghi".encode(),
        has("abctxt.exe defghi"),
    ),
    "lone surrogates and nulls in json": (
        "x.json",
        b'{"a": "x\\ud800y\\u0000z"}',
        has("a: xyz"),
    ),
    "an encoding that unpacks": (
        "x.html",
        b"<meta charset='zip'><p>plain",
        has("plain"),
    ),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_hostile_file_is_read_as_plain_data(base: KnowledgeBase, case: str) -> None:
    name, data, holds = HARMLESS[case]
    collection = base.create_collection("c").id
    add(base, collection, name, data)
    document = settled(base, collection)[0]
    assert document.state == "ready", document.error_en
    read = "".join(base.page(document.id, i + 1) for i in range(document.pages))
    assert holds(read), read[:500]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd.txt",
        "..\\..\\windows\\system32\\a.txt",
        "/etc/cron.d/x.txt",
        "a\0b.txt",
        "con\n\r.txt",
        "‮txt.fdp.txt",
        "x" * 190 + ".txt",
        "'; DROP TABLE document; --.txt",
        "<img src=x onerror=alert(1)>.txt",
    ],
)
def test_a_name_is_only_a_name(base: KnowledgeBase, tmp_path: Path, name: str) -> None:
    collection = base.create_collection("c").id
    document = add(base, collection, name, b"plain text")
    assert settled(base, collection)[0].state == "ready"
    assert "/" not in document.name
    assert "\\" not in document.name
    assert document.name.isprintable()
    # Whatever it is called, it lies under its hash.
    assert [p.name for p in (tmp_path / "files").iterdir()] == [document.sha256]


@pytest.mark.parametrize(
    "name", ["", "..", ".", "/", "x" * 300 + ".txt", "a.txt/", "a.sh", "a.pdf.exe"]
)
def test_a_name_that_is_none_is_refused(base: KnowledgeBase, tmp_path: Path, name: str) -> None:
    collection = base.create_collection("c").id
    with pytest.raises(UsageError):
        base.upload(collection, name)
    assert list((tmp_path / "files").iterdir()) == []


QUESTIONS = [
    '"',
    "'",
    "NEAR(a b)",
    "words:*",
    "a AND OR NOT",
    "scope : c",
    "^ * ( ) { } : - +",
    'lighthouse" OR words : "x',
    "'; DROP TABLE entry; --",
    "\0\ud800\U0010ffff",
    "？" * 2000,
    "a " * 5000,
    "天" * 5000,
    "",
    " ",
    "%s %d {} {0} \\x00",
]


def test_questions_are_never_syntax(base: KnowledgeBase) -> None:
    mine, other = base.create_collection("mine").id, base.create_collection("other").id
    add(base, mine, "a.txt", b"The lighthouse is 47 metres high.")
    add(base, other, "b.txt", b"A secret of the other collection: lighthouse words scope.")
    settled(base, mine)
    settled(base, other)
    for question in QUESTIONS:
        hits = base.search(mine, question).hits
        assert {hit.passage.document.name for hit in hits} <= {"a.txt"}, question
    assert len(base.search(mine, "lighthouse").hits) == 1
    for question in QUESTIONS:
        for term in query_terms(question):
            assert '"' not in term
            assert "'" not in term


def test_the_process_that_reads_cannot_write_and_has_its_memory_limited(tmp_path: Path) -> None:
    """Shown by what a reader sees: the limits that its process set itself."""
    script = (
        "import json, os, resource, sys\n"
        "import hunyuan.knowledge.inside as inside\n"
        "def read(path, name, kind, limits):\n"
        "    try:\n"
        "        os.write(os.open(sys.argv[5], os.O_CREAT | os.O_WRONLY), b'x')\n"
        "    except OSError as error:\n"
        "        print(json.dumps({'write': type(error).__name__}))\n"
        "    print(json.dumps({'memory': resource.getrlimit(resource.RLIMIT_AS)[0]}))\n"
        "    return iter(())\n"
        "inside.read = read\n"
        "inside.main(sys.argv[1:5])\n"
    )
    limits = json.dumps({"memory_bytes": 400_000_000})
    done: Any = subprocess.run(
        [sys.executable, "-c", script, "x", "x", "text", limits, str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert '"memory": 400000000' in done.stdout, done.stderr
    assert '"write": "OSError"' in done.stdout
    assert (tmp_path / "out").read_bytes() == b""
