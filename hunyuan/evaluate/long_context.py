"""Long-context tasks made on the spot, in English and Chinese: what RULER measures (Hsieh et al.
2024), from sentences of our own, so nothing has to be downloaded and no model has read them.

A prompt of a wanted length in tokens is noise with something to find in it:

    needle   one number among noise              keys    the number of one key among many keys
    values   the four numbers of one key         trace   every variable that ends up with a value
    words    the three most frequent words

Everything follows from the seed, so two models are asked the same as long as their tokenizers are
the same; the score is the share of expected texts that the answer contains.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

from hunyuan.errors import Language

Kind = Literal["needle", "keys", "values", "trace", "words"]
KINDS: tuple[Kind, ...] = ("needle", "keys", "values", "trace", "words")

_SUBJECTS = {
    "en": [
        "farmer",
        "sailor",
        "teacher",
        "baker",
        "painter",
        "carpenter",
        "librarian",
        "gardener",
        "fisher",
        "tailor",
    ],
    "zh": ["农夫", "水手", "老师", "面包师", "画家", "木匠", "图书管理员", "园丁", "渔夫", "裁缝"],
}
_VERBS = {
    "en": [
        "carries",
        "repairs",
        "watches",
        "paints",
        "counts",
        "cleans",
        "measures",
        "borrows",
        "finds",
        "follows",
    ],
    "zh": ["搬运", "修理", "观看", "粉刷", "清点", "打扫", "测量", "借走", "找到", "跟随"],
}
_OBJECTS = {
    "en": [
        "basket",
        "lamp",
        "boat",
        "ladder",
        "clock",
        "window",
        "letter",
        "bridge",
        "barrel",
        "wagon",
    ],
    "zh": ["篮子", "油灯", "小船", "梯子", "时钟", "窗户", "信件", "小桥", "木桶", "马车"],
}
_TIMES = {
    "en": [
        "in the morning",
        "before noon",
        "after the rain",
        "at dusk",
        "every winter",
        "on market day",
    ],
    "zh": ["在早晨", "在中午之前", "在雨后", "在黄昏", "每年冬天", "在赶集的日子"],
}
_KEYS = {
    "en": [
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "harbor",
        "indigo",
        "jasper",
        "kelp",
        "lagoon",
        "maple",
        "nectar",
        "opal",
        "prairie",
        "quartz",
        "river",
        "summit",
        "timber",
        "umber",
        "valley",
        "willow",
        "zephyr",
    ],
    "zh": [
        "琥珀",
        "白桦",
        "雪松",
        "河口",
        "余烬",
        "峡湾",
        "树林",
        "海港",
        "靛蓝",
        "碧玉",
        "海藻",
        "泻湖",
        "枫树",
        "花蜜",
        "蛋白石",
        "草原",
        "石英",
        "河流",
        "山巅",
        "木材",
        "赭石",
        "山谷",
        "柳树",
        "微风",
    ],
}
_TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "noise": "The {0} {1} the {2} {3}. ",
        "needle": "The secret number of {0} is {1}. ",
        "first": "Variable {0} is {1}. ",
        "copy": "Variable {0} is the same as variable {1}. ",
        "begin": "Read the text, then answer the question.\n\n",
        "one": "\n\nQuestion: What is the secret number of {0}?\n"
        "Answer: The secret number of {0} is",
        "all": "\n\nQuestion: What are all the secret numbers of {0}?\n"
        "Answer: The secret numbers of {0} are",
        "trace": "\n\nQuestion: Which variables have the value {0}?\n"
        "Answer: The variables with the value {0} are",
        "words": "\n\nQuestion: Which three words occur most often in the list?\n"
        "Answer: The three most frequent words are",
        "list": "Here is a list of words: ",
        "comma": ", ",
    },
    "zh": {
        "noise": "{0}{3}{1}{2}。",
        "needle": "{0}的秘密数字是{1}。",
        "first": "变量{0}等于{1}。",
        "copy": "变量{0}与变量{1}相同。",
        "begin": "请阅读下文，然后回答问题。\n\n",
        "one": "\n\n问题：{0}的秘密数字是多少？\n回答：{0}的秘密数字是",
        "all": "\n\n问题：{0}的所有秘密数字是哪些？\n回答：{0}的秘密数字有",
        "trace": "\n\n问题：哪些变量的值是{0}？\n回答：值为{0}的变量有",
        "words": "\n\n问题：列表中出现最多的三个词是什么？\n回答：出现最多的三个词是",
        "list": "以下是一组词：",
        "comma": "、",
    },
}


def make_prompt(
    kind: Kind, language: Language, length: int, seed: int, count: Callable[[str], int]
) -> dict[str, Any]:
    """A prompt of about ``length`` tokens, as ``count`` counts them, and what must be answered.

    The prompt is never longer than ``length``.
    """
    generator = random.Random(f"{kind}/{language}/{length}/{seed}")
    hidden, question, answers = _task(kind, language, length, generator)
    texts = _TEXTS[language]
    frame = count(texts["begin"] + "".join(hidden) + question)
    if kind == "words":
        body = _word_list(language, length - frame, answers, generator, count)
    else:
        body = _haystack(language, length - frame, hidden, generator, count)
    return {
        "prompt": texts["begin"] + body + question,
        "answers": answers,
        "length": length,
        "language": language,
    }


def _task(
    kind: Kind, language: Language, length: int, generator: random.Random
) -> tuple[list[str], str, list[str]]:
    """What is hidden, the question, and the expected texts."""
    texts = _TEXTS[language]
    keys = generator.sample(_KEYS[language], len(_KEYS[language]))
    if kind == "words":
        return [], texts["words"], keys[:3]
    if kind == "trace":
        value = str(generator.randint(10_000, 99_999))
        names = [f"{a}{generator.randint(10, 99)}" for a in generator.sample("ABCDEFGHJKMNP", 6)]
        chain = [texts["first"].format(names[0], value)]
        chain += [texts["copy"].format(names[i], names[i - 1]) for i in range(1, 4)]
        other = str(generator.randint(1_000, 9_999))
        chain += [texts["first"].format(names[4], other), texts["copy"].format(names[5], names[4])]
        return chain, texts["trace"].format(value), names[:4]
    numbers = [str(generator.randint(1_000_000, 9_999_999)) for _ in range(len(keys))]
    if kind == "values":
        needles = [texts["needle"].format(keys[0], number) for number in numbers[:4]]
        return needles, texts["all"].format(keys[0]), numbers[:4]
    many = len(keys) if kind == "keys" and length >= 2_000 else 8 if kind == "keys" else 1
    needles = [texts["needle"].format(keys[i], numbers[i]) for i in range(many)]
    return needles, texts["one"].format(keys[0]), numbers[:1]


def _noise(language: Language, generator: random.Random) -> Iterator[str]:
    while True:
        parts = (_SUBJECTS, _VERBS, _OBJECTS, _TIMES)
        yield _TEXTS[language]["noise"].format(*(generator.choice(p[language]) for p in parts))


def _haystack(
    language: Language,
    room: int,
    hidden: list[str],
    generator: random.Random,
    count: Callable[[str], int],
) -> str:
    """Noise of at most ``room`` tokens with the hidden sentences in it, in their order."""
    noise = _filled(_noise(language, generator), room, count)
    places = sorted(generator.randint(0, len(noise)) for _ in hidden)
    for offset, (place, sentence) in enumerate(zip(places, hidden, strict=True)):
        noise.insert(place + offset, sentence)
    return "".join(noise).rstrip()


def _word_list(
    language: Language,
    room: int,
    frequent: list[str],
    generator: random.Random,
    count: Callable[[str], int],
) -> str:
    comma = _TEXTS[language]["comma"]
    others = [key for key in _KEYS[language] if key not in frequent]

    def words() -> Iterator[str]:
        while True:
            # Three of ten words are frequent ones, each as often as the others together are rare.
            source = frequent if generator.random() < 0.45 else others
            yield generator.choice(source) + comma

    head = _TEXTS[language]["list"]
    return (head + "".join(_filled(words(), room - count(head), count))).removesuffix(comma)


def _filled(pieces: Iterator[str], room: int, count: Callable[[str], int]) -> list[str]:
    """As many pieces as fit, counted together now and then and not one by one."""
    kept: list[str] = []
    sample = [next(pieces) for _ in range(50)]
    each = count("".join(sample)) / len(sample)
    kept += sample
    while count("".join(kept)) < room:
        missing = room - count("".join(kept))
        kept += [next(pieces) for _ in range(max(1, int(missing / each)))]
    while kept and count("".join(kept)) > room:
        excess = count("".join(kept)) - room
        del kept[-max(1, int(excess / each)) :]
    return kept
