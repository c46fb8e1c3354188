"""What a model of a size is good for, place by place, said honestly and in both languages.

From its parameters and languages, not from its name: a reader should know before trying whether a
model of half a billion parameters is worth asking for a report. Where tools or quoted passages
carry a place, that is said too, because there a small model does well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Words = dict[str, str]
"""``{"en": ..., "zh": ...}``."""

PLACES = ("chat", "write", "maths", "knowledge", "code")


@dataclass(frozen=True)
class _Size:
    below: float
    """Parameters."""

    words: dict[str, tuple[str, str]]


_SIZES = (
    _Size(
        3e8,
        {
            "chat": ("Short small talk; what it states is often wrong.",
                     "适合简短闲聊；所述内容常有错误。"),
            "write": ("Rewording a sentence or two; longer texts lose their thread.",
                      "适合改写一两句话；较长的文字容易跑题。"),
            "maths": ("Reliable for notation and simple questions: the tools compute, "
                      "and read what the model cannot.",
                      "算式和简单问题可靠：由工具计算，模型读不懂的由规则解析。"),
            "knowledge": ("Finds the passages; read those rather than its summary.",
                          "能找到相关段落；请以原文为准，不要依赖它的概括。"),
            "code": ("Hardly: a few lines at best.", "能力有限：至多写几行程序。"),
        },
    ),
    _Size(
        1e9,
        {
            "chat": ("Everyday questions and short texts; check its facts.",
                     "适合日常问题和短文；事实请核对。"),
            "write": ("Polishing, shortening and translating paragraphs; short drafts.",
                      "适合润色、缩写和翻译段落，以及简短的初稿。"),
            "maths": ("Reliable for questions in words and notation: the tools compute.",
                      "文字题和算式都可靠：由工具计算。"),
            "knowledge": ("Answers from your documents with citations; simple questions.",
                          "能依据您的文档回答简单问题并注明出处。"),
            "code": ("Short programs; run them before you trust them.",
                     "适合短小的程序；请先运行再采用。"),
        },
    ),
    _Size(
        4e9,
        {
            "chat": ("Most everyday questions; check facts that matter.",
                     "能应对大多数日常问题；重要事实请核对。"),
            "write": ("Drafts of a page, and edits that keep your meaning.",
                      "能写一页左右的初稿，修改时能保持原意。"),
            "maths": ("Word problems of a few steps; the tools compute.",
                      "能处理几步的应用题；由工具计算。"),
            "knowledge": ("Answers that join several passages, with citations.",
                          "能综合多个段落回答并注明出处。"),
            "code": ("Functions and small programs, and fixing their errors.",
                     "能写函数和小程序，并修正其中的错误。"),
        },
    ),
    _Size(
        3e10,
        {
            "chat": ("Long conversations and good general knowledge.",
                     "适合长对话，常识较好。"),
            "write": ("Reports and letters of several pages in a steady tone.",
                      "能写数页的报告和信函，语气稳定。"),
            "maths": ("Multi-step word problems; the tools compute.",
                      "能处理多步应用题；由工具计算。"),
            "knowledge": ("Careful answers over many documents, with citations.",
                          "能依据大量文档谨慎作答并注明出处。"),
            "code": ("Programs of several functions, explanations, tests.",
                     "能写多函数程序、讲解代码和编写测试。"),
        },
    ),
    _Size(
        float("inf"),
        {
            "chat": ("Demanding conversations and broad knowledge.", "能胜任复杂对话，知识面广。"),
            "write": ("Long texts in any form, with nuance.", "能写各种体裁的长文，表达细致。"),
            "maths": ("Hard word problems; the tools compute.", "能处理较难的应用题；由工具计算。"),
            "knowledge": ("Synthesis over many documents, with citations.",
                          "能综合大量文档作答并注明出处。"),
            "code": ("Larger programs, reviews and refactoring.", "能写较大的程序，做评审和重构。"),
        },
    ),
)  # fmt: skip

_UNKNOWN = {
    "chat": ("Its size is not known; try it on a question you know the answer to.",
             "规模未知；请先用您知道答案的问题试试。"),
    "write": ("Its size is not known; compare its edits with your text.",
              "规模未知；请将修改与原文对照。"),
    "maths": ("The tools compute, whatever the model.", "无论模型如何，都由工具计算。"),
    "knowledge": ("Citations are checked, whatever the model.", "无论模型如何，引文都会核对。"),
    "code": ("Its size is not known; run its programs before you trust them.",
             "规模未知；请先运行程序再采用。"),
}  # fmt: skip

_CODER = (
    ("Trained on code: short programs and fixes; run them first.",
     "专门学习过代码：适合短小程序和改错；请先运行。"),
    ("Trained on code: programs and fixes above its size.",
     "专门学习过代码：写程序和改错的能力高于其规模。"),
)  # fmt: skip


def good_for(parameters: int | None, languages: Sequence[str] | None) -> dict[str, Words]:
    """One line for each place; ``languages`` as the catalogue has them, None if not known."""
    if parameters is None:
        words = dict(_UNKNOWN)
    else:
        words = dict(next(size for size in _SIZES if parameters < size.below).words)
        if languages and "code" in languages and 3e8 <= parameters < 3e10:
            words["code"] = _CODER[parameters >= 1e9]
    if languages and "zh" not in languages:
        words = {
            place: (f"{en} English only.", f"{zh}仅支持英文。") for place, (en, zh) in words.items()
        }
    return {place: {"en": words[place][0], "zh": words[place][1]} for place in PLACES}
