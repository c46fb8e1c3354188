"""Retrieval and answers: speed over many passages and pages, and questions with known answers.

    python benchmarks/knowledge.py speed
    python benchmarks/knowledge.py answers --model qwen2.5-coder-0.5b-instruct
    python benchmarks/knowledge.py answers --model smollm2-135m-instruct
    python benchmarks/knowledge.py answers --model none
    python benchmarks/knowledge.py answers --set real --pack FOLDER --model NAME

``speed`` searches 100,000 synthetic passages and imports 1,000 pages of PDF. ``answers`` starts
``hunyuan serve`` on a folder of its own, adds the documents of tests/data/knowledge and asks its
questions by /workbench/knowledge/ask; every citation is compared with the source that the server
shows for it. With ``none`` no model writes, only the documents are quoted. Writes
benchmarks/results/knowledge-NAME.json.

The set ``real`` is 128 questions about twelve long documents that others wrote
(tests/data/knowledge-real, see its README). Those that may not be shipped are taken from a folder
of JSON lines (``--pack``) and compared with their hashes; without it their questions are left out.
Half of the questions served for tuning; the other half, drawn beforehand, is reported apart.
``--data FOLDER`` keeps what was imported for the next run.
"""

import argparse
import gzip
import hashlib
import json
import random
import re
import resource
import statistics
import string
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from provenance import RESULTS, provenance

from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.retriever import Entry, fuse
from hunyuan.knowledge.sqlite_index import SqliteIndex
from hunyuan.knowledge.words import query_terms

DATA = Path(__file__).parents[1] / "tests" / "data" / "knowledge"
REAL = DATA.parent / "knowledge-real"
ROOT = "/workbench/knowledge"
PASSAGES = 100_000
PAGES = 1000
DIMENSIONS = 384


# ------------------------------------------------------------ speed


def speed() -> dict[str, Any]:
    """Search and import, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = search_speed(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        found |= import_speed(Path(folder))
    return found


def search_speed(folder: Path) -> dict[str, Any]:
    """Milliseconds of a hybrid search, by words alone and by vectors alone."""
    rng = random.Random(1)
    write, ask = zipf_texts(rng)
    index = SqliteIndex(folder / "index.db")
    start = time.perf_counter()
    for document in range(PASSAGES // 1000):
        ids = [f"d{document}.{i}" for i in range(1000)]
        index.upsert([Entry(id, "c", f"d{document}", write()) for id in ids])
        vectors = np.random.default_rng(document).standard_normal((1000, DIMENSIONS))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = vectors.astype(np.float32)
        index.embed(f"d{document}", "m", dict(zip(ids, rows, strict=True)))
    built = time.perf_counter() - start
    vector = np.random.default_rng(7).standard_normal(DIMENSIONS).astype(np.float32)
    vector /= np.linalg.norm(vector)
    first = timed(lambda: index.search("c", [], vector, "m", 60))
    questions = [query_terms(ask()) for _ in range(60)]
    times: dict[str, list[float]] = {"hybrid": [], "words": [], "vectors": []}
    for terms in questions:
        times["hybrid"].append(timed(lambda t=terms: fuse(index.search("c", t, vector, "m", 60))))
        times["words"].append(timed(lambda t=terms: index.search("c", t, None, None, 60)))
        times["vectors"].append(timed(lambda: index.search("c", [], vector, "m", 60)))
    index.close()
    return {
        "passages": PASSAGES,
        "index_seconds": round(built, 1),
        "index_megabytes": round((folder / "index.db").stat().st_size / 1e6),
        "first_search_ms": round(first, 1),
        **{
            f"{name}_ms": {
                "median": round(statistics.median(values), 1),
                "p95": round(sorted(values)[int(0.95 * len(values))], 1),
                "worst": round(max(values), 1),
            }
            for name, values in times.items()
        },
    }


def import_speed(folder: Path) -> dict[str, Any]:
    """Seconds until 1,000 pages of PDF can be asked, without vectors."""
    rng = random.Random(2)
    write, _ = zipf_texts(rng)
    # Chinese passages leave nothing of themselves in Helvetica.
    data = text_pdf([" ".join(write() for _ in range(6)) for _ in range(PAGES)])
    with KnowledgeBase(folder / "k.db", folder / "files") as base:
        collection = base.create_collection("c").id
        start = time.perf_counter()
        with base.upload(collection, "book.pdf") as upload:
            upload.write(data)
            document, _ = upload.finish()
        while base.document(document.id).state in ("waiting", "reading"):
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        document = base.document(document.id)
    assert document.state == "ready", document.error_en
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "pdf_pages": document.pages,
        "pdf_characters": document.characters,
        "pdf_passages": document.chunks,
        "pdf_import_seconds": round(seconds, 1),
        "pdf_reader_megabytes": round(used),
    }


def zipf_texts(rng: random.Random) -> tuple[Callable[[], str], Callable[[], str]]:
    """Makers of passages (half Chinese) and of questions, with words as frequent as in language."""
    characters = [chr(0x4E00 + i) for i in range(3000)]
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))) for _ in range(9**5)]
    by_character = list(accumulate(1 / (i + 2) for i in range(len(characters))))
    by_word = list(accumulate(1 / (i + 2) for i in range(len(words))))

    def text(size: int) -> str:
        if rng.random() < 0.5:
            return "".join(rng.choices(characters, cum_weights=by_character, k=size))
        return " ".join(rng.choices(words, cum_weights=by_word, k=(2 * size) // 3))

    return lambda: text(210), lambda: text(12)


def text_pdf(pages: list[str]) -> bytes:
    """A PDF with lines of Helvetica; what is not Latin is left out."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 "]
    objects[2] += "/BaseFont /Helvetica >>"
    bodies: list[bytes] = [o.encode() for o in objects]
    for text in pages:
        words = text.encode("ascii", "ignore").decode().split() or ["empty"]
        lines = [" ".join(words[i : i + 12]) for i in range(0, len(words), 12)]
        shown = "BT /F 10 Tf 50 780 Td 12 TL " + " ".join(f"({line}.) Tj T*" for line in lines)
        packed = zlib.compress((shown + " ET").encode())
        head = b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(packed)
        number = len(bodies) + 1
        bodies.append(head + packed + b"\nendstream")
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F 3 0 R >> >> >>" % number
        )
    kids = b" ".join(b"%d 0 R" % n for n in range(5, len(bodies) + 1, 2))
    bodies[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages))
    data, places = b"%PDF-1.7\n", []
    for number, body in enumerate(bodies, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF\n"
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    return data + head + table + end % (len(bodies) + 1, len(data))


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


# ------------------------------------------------------------ answers


@contextmanager
def server(model: str, data: Path | None = None) -> Iterator[str]:
    """The address of a server with a model, or with an upstream that does not exist."""
    nobody = ["--upstream", "http://127.0.0.1:9/v1", "--upstream-model", "none"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hunyuan", "serve", "--port", "0"]
        command += ["--data", str(data or folder), *(nobody if model == "none" else [model])]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                ports = [
                    port for port in re.findall(r"http://127\.0\.0\.1:(\d+)", line) if port != "9"
                ]
                if ports:
                    yield f"http://127.0.0.1:{ports[0]}"
                    return
            sys.exit("the server did not start")
        finally:
            process.terminate()
            process.wait(timeout=30)


def events(client: httpx2.Client, method: str, path: str, body: Any = None) -> list[dict[str, Any]]:
    """All events of a stream."""
    with client.stream(method, ROOT + path, json=body) as reply:
        reply.raise_for_status()
        lines = [line for line in reply.iter_lines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def answers(model: str) -> dict[str, Any]:
    """Every question of the set that was written for the tests."""
    documents = {
        path.name: path.read_bytes()
        for path in sorted(DATA.iterdir())
        if path.name not in ("questions.jsonl", "README.md")
    }
    asked = [json.loads(line) for line in (DATA / "questions.jsonl").open(encoding="utf-8")]
    return summary(ask_all(model, documents, asked, None))


def real_answers(
    model: str, pack: Path | None, data: Path | None, split: str | None
) -> dict[str, Any]:
    """The set ``real``, each half apart, and where the errors come from."""
    documents = real_documents(pack)
    asked = [
        question
        for line in (REAL / "questions.jsonl").open(encoding="utf-8")
        if (question := json.loads(line))["document"] in (None, *documents)
        and (split is None or question["split"] == split)
    ]
    found = ask_all(model, documents, asked, data)
    return {
        "documents": sorted(documents),
        "table": table(found),
        **{
            half: real_summary([one for one in found if one["split"] == half])
            for half in ("tuning", "held-out")
            if any(one["split"] == half for one in found)
        },
    }


def real_documents(pack: Path | None) -> dict[str, bytes]:
    """The documents at hand, by name, each with the hash that the manifest gives."""
    documents = {}
    for entry in json.loads((REAL / "manifest.json").read_text(encoding="utf-8")):
        if "pack" not in entry:
            data = (REAL / entry["name"]).read_bytes()
        elif pack is None:
            continue
        else:
            data = packed(pack / entry["pack"], entry["titles"], headed=entry["headed"]).encode()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            sys.exit(f"{entry['name']}: not the file the questions were written for")
        documents[entry["name"]] = data
    return documents


def packed(path: Path, titles: list[str], *, headed: bool) -> str:
    """Documents of a file of JSON lines, under their titles where they are several."""
    texts: dict[str, list[str]] = {title: [] for title in titles}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["title"] in texts:
                texts[row["title"]].append(row["text"])
    if not headed:
        return "".join(text for found in texts.values() for text in found)
    return "\n\n".join(f"# {title}\n\n{text}" for title in titles for text in texts[title])


def ask_all(
    model: str, documents: dict[str, bytes], asked: list[dict[str, Any]], data: Path | None
) -> list[dict[str, Any]]:
    """Add the documents and put every question."""
    with server(model, data) as address, httpx2.Client(base_url=address, timeout=900) as client:
        kept = client.get(ROOT).json()["collections"]
        made = client.post(f"{ROOT}/collections", json={"name": "benchmark"}) if not kept else None
        id = kept[0]["id"] if made is None else made.json()["id"]
        for name, content in documents.items():
            client.put(
                f"{ROOT}/collections/{id}/documents",
                params={"name": name},
                content=content,
                headers={"Content-Type": "application/octet-stream"},
            ).raise_for_status()
        events(client, "GET", f"/collections/{id}/progress")
        found = []
        for place, question in enumerate(asked, start=1):
            found.append(one_answer(client, id, question))
            print(f"{place}/{len(asked)}", end="\r", file=sys.stderr, flush=True)
        return found


def table(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each half and language."""
    rows = []
    for half in ("tuning", "held-out"):
        for language in ("en", "zh"):
            own = [o for o in found if o["split"] == half and o["language"] == language]
            if own:
                rows.append({"half": half, "language": language, **counts(own)})
    return rows


def counts(found: list[dict[str, Any]]) -> dict[str, int]:
    """Right, wrong and refused of what has an answer; refused and answered of what has none."""
    having = Counter(one["outcome"] for one in found if one["document"])
    lacking = Counter(one["outcome"] for one in found if not one["document"])
    return {
        "right": having["correct"],
        "wrong": having["wrong"],
        "refused": having["refused"],
        "rightly_refused": lacking["correct"],
        "answered_without_answer": lacking["wrong"],
    }


def real_summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of one half, recall at each step, citations, and every failure."""
    answerable = [one for one in found if one["document"]]
    citations: Counter[str] = Counter()
    for one in found:
        citations.update(one["citations"])

    def share(those: Callable[[dict[str, Any]], bool]) -> float:
        return round(sum(map(those, answerable)) / len(answerable), 3)

    seconds = sorted(one["seconds"] for one in found)
    return {
        **counts(found),
        "recall": {
            f"passages_at_{k}": share(lambda o, k=k: o["rank"] is not None and o["rank"] <= k)  # type: ignore[misc]
            for k in (1, 3, 8)
        }
        | {
            "first_quote": share(lambda o: o["quoted"] == 1),
            "three_quotes": share(lambda o: o["quoted"] is not None),
        },
        "citations": dict(citations),
        "summaries": dict(Counter(one["summary"] for one in found)),
        "mode": found[0]["mode"],
        "seconds_median": round(seconds[len(seconds) // 2], 2),
        "failures": [
            {
                k: one[k]
                for k in ("id", "question", "outcome", "rank", "quoted", "confidence", "said")
            }
            for one in found
            if one["outcome"] != "correct"
        ],
    }


def one_answer(client: httpx2.Client, id: str, question: dict[str, Any]) -> dict[str, Any]:
    """How one question went."""
    start = time.perf_counter()
    body = {"question": question["question"], "collection": id}
    said = events(client, "POST", "/ask", body)
    seconds = time.perf_counter() - start
    result = next((event for event in said if event["type"] == "result"), said[-1])
    passages = result.get("passages", [])
    wanted = question["answer"]
    rank = next(
        (
            place
            for place, passage in enumerate(passages, start=1)
            if passage["name"] == question["document"] and has(wanted, passage["text"])
        ),
        None,
    )
    quotes = " ".join(
        quote["text"]
        for quote in result.get("quotes", [])
        if passages[quote["passage"] - 1]["name"] == question["document"]
    )
    sentences = result.get("sentences", [])
    told = " ".join(s["text"] for s in sentences if s["status"] in ("supported", "matched"))
    return {
        **question,
        "outcome": outcome(question, result["kind"], quotes),
        "summary": outcome(question, "cited" if told else "not_found", told),
        "rank": rank,
        "quoted": next(
            (
                place
                for place, quote in enumerate(result.get("quotes", []), start=1)
                if passages[quote["passage"] - 1]["name"] == question["document"]
                and has(wanted, quote["text"])
            ),
            None,
        ),
        "confidence": result.get("confidence"),
        "statuses": [sentence["status"] for sentence in sentences],
        "citations": citations(client, result),
        "mode": result.get("mode"),
        "translated": result.get("translation") is not None,
        "seconds": seconds,
        "said": " ".join(sentence["text"] for sentence in sentences),
    }


def outcome(question: dict[str, Any], kind: str, text: str) -> str:
    """``correct``, ``wrong`` or ``refused``; refusing what has no answer is correct."""
    if kind == "not_found":
        return "refused" if question["document"] else "correct"
    return "correct" if question["document"] and has(question["answer"], text) else "wrong"


def has(answers: list[str], text: str) -> bool:
    """Whether one of the accepted strings stands in a text, whatever the commas and spaces."""
    return any(bare(answer) in bare(text) for answer in answers)


def bare(text: str) -> str:
    """Without commas between digits and white space, which a page breaks where it likes."""
    return "".join(text.replace(",", "").split())


def citations(client: httpx2.Client, result: dict[str, Any]) -> dict[str, int]:
    """Quotes that stand in the source that the server shows, and those that do not."""
    counts: Counter[str] = Counter()
    for quote in result.get("quotes", []):
        passage = result["passages"][quote["passage"] - 1]
        path = f"{ROOT}/documents/{passage['document']}/pages/{passage['page']}"
        units = client.get(path).json()["text"].encode("utf-16-le")
        start, end = quote["span"]
        shown = units[2 * start : 2 * end].decode("utf-16-le")
        same = "".join(shown.split()) == "".join(quote["text"].split())
        counts["verified" if same and quote["verified"] else "false"] += 1
    for sentence in result.get("sentences", []):
        for citation in sentence["citations"]:
            counts["summary_verified" if citation["verified"] else "summary_marked"] += 1
    return dict(counts)


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all questions."""
    answerable = [one for one in found if one["document"]]
    ranks = [one["rank"] for one in answerable]
    total: Counter[str] = Counter()
    for one in found:
        total.update(one["citations"])
    seconds = sorted(one["seconds"] for one in found)
    return {
        "asked": len(found),
        "without_answer": len(found) - len(answerable),
        "quotes": dict(Counter(one["outcome"] for one in found)),
        "summaries": dict(Counter(one["summary"] for one in found)),
        "by_language": {
            language: dict(Counter(o["outcome"] for o in found if o["language"] == language))
            for language in ("en", "zh")
        },
        "sentences": dict(Counter(status for one in found for status in one["statuses"])),
        "citations": dict(total),
        "recall_at_5": round(sum(rank is not None for rank in ranks) / len(ranks), 3),
        "mrr": round(sum(1 / rank for rank in ranks if rank) / len(ranks), 3),
        "mode": found[0]["mode"],
        "seconds_median": round(seconds[len(seconds) // 2], 2),
        "seconds_95": round(seconds[int(0.95 * len(seconds))], 2),
        "not_correct": [
            {key: one[key] for key in ("question", "outcome", "said")}
            for one in found
            if one["outcome"] != "correct"
        ],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("speed", "answers"))
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--set", choices=("written", "real"), default="written")
    parser.add_argument("--pack", type=Path, help="folder of documents that are not shipped")
    parser.add_argument("--data", type=Path, help="data folder to keep")
    parser.add_argument("--split", choices=("tuning", "held-out"), help="only one half")
    options = parser.parse_args()
    name = "speed" if options.what == "speed" else options.model.replace("/", "-")
    if options.what == "speed":
        found = speed()
    elif options.set == "written":
        found = answers(options.model)
    else:
        name = f"real-{name}"
        found = real_answers(options.model, options.pack, options.data, options.split)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"knowledge-{name}.json"
    path.write_text(json.dumps(provenance() | found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
