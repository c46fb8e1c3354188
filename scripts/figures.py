"""Draw the figures of the architecture page, in both languages: one geometry, two sets of words.

python scripts/figures.py [FOLDER]
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

OUT = Path(__file__).parents[1] / "docs" / "figures"
FONT = "system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
INK, GREY, BLUE, AMBER, VIOLET, RED = (
    "#0f172a",
    "#475569",
    "#0284c7",
    "#d97706",
    "#7c3aed",
    "#dc2626",
)


class Drawing:
    """Shapes collected into one SVG with a title."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'role="img" font-family="{FONT}" font-size="15" fill="{INK}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]
        for name, colour in (("grey", GREY), ("amber", AMBER), ("red", RED)):
            self._parts.append(
                f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
                f'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="{colour}"/>'
                "</marker>"
            )

    def box(self, x: int, y: int, w: int, h: int, colour: str, fill: str = "#f8fafc") -> None:
        """A rounded rectangle."""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{fill}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )

    def bar(self, x: int, y: int, w: float, colour: str) -> None:
        """A bar of a chart."""
        self._parts.append(f'<rect x="{x}" y="{y}" width="{w:.1f}" height="16" fill="{colour}"/>')

    def text(
        self, x: int, y: int, words: str, *, size: int = 15, colour: str = INK, at: str = "middle"
    ) -> None:
        """A line of text."""
        self._parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{at}">'
            f"{escape(words)}</text>"
        )

    def arrow(self, path: str, *, colour: str = "grey", dashed: bool = False) -> None:
        """A line with a head."""
        stroke = {"grey": GREY, "amber": AMBER, "red": RED}[colour]
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="1.6"{dash} '
            f'marker-end="url(#{colour})"/>'
        )

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>"]) + "\n"


def router(lang: str) -> str:
    """Eight tokens, four experts of two slots: the example of the text."""
    say = {
        "en": (
            "Eight tokens, four experts with two slots each",
            "tokens",
            "the router's first choice",
            "expert",
            "every token also passes the shared expert",
            "C, E and H find expert 0 full. Recycle",
            ": each takes a random free slot, with its own",
            "probability for that expert (drop: no expert at all)",
            "free",
        ),
        "zh": (
            "八个词元，四个专家，每个两个名额",
            "词元",
            "路由器的首选",
            "专家",
            "每个词元还都经过共享专家",
            "C、E、H 发现专家 0 已满。",
            "随机补偿：各取一个随机空位，权重为该词元对那个专家",
            "自己的概率（丢弃模式：没有路由专家）",
            "空",
        ),
    }[lang]
    d = Drawing(900, 430, say[0])
    d.text(30, 34, say[0], size=18, at="start")
    d.text(30, 72, say[1], colour=GREY, size=13, at="start")
    d.text(30, 128, say[2], colour=GREY, size=13, at="start")
    choice = dict(zip("ABCDEFGH", (0, 0, 0, 1, 0, 2, 1, 0), strict=True))
    place = {"A": (0, 0), "B": (0, 1), "D": (1, 0), "G": (1, 1), "F": (2, 0)}
    recycled = {"E": (2, 1), "C": (3, 0), "H": (3, 1)}
    left, wide = 220, 160
    for i, (token, chosen) in enumerate(choice.items()):
        x = left + 80 * i + 20
        full = token in recycled
        d.box(x - 20, 52, 40, 32, RED if full else BLUE, "#fee2e2" if full else "#e0f2fe")
        d.text(x, 74, token)
        d.text(x, 128, str(chosen), colour=RED if full else INK)
        d.arrow(f"M{x} 86V110", colour="red" if full else "grey")
    for expert in range(4):
        x = left + wide * expert
        d.box(x - 10, 232, 150, 92, VIOLET, "#f5f3ff")
        d.text(x + 65, 253, f"{say[3]} {expert}")
        for slot in range(2):
            d.box(x + 6 + 66 * slot, 266, 56, 44, VIOLET, "#fff")
    for token, (expert, slot) in (place | recycled).items():
        index = "ABCDEFGH".index(token)
        start, end = left + 80 * index + 20, left + wide * expert + 34 + 66 * slot
        moved = token in recycled
        d.text(end, 294, token, colour=RED if moved else INK)
        colour = "red" if moved else "grey"
        d.arrow(f"M{start} 138C{start} 190 {end} 180 {end} 264", colour=colour, dashed=moved)
    d.text(30, 360, say[4], at="start", size=14)
    d.text(30, 384, say[5] + say[6], at="start", size=14, colour=RED)
    d.text(30, 406, say[7], at="start", size=14, colour=RED)
    return str(d)


def pair(lang: str) -> str:
    """Two layers, one cache slot."""
    say = {
        "en": (
            "Two layers share one cache slot",
            "even layer",
            "odd layer",
            "own queries",
            "makes K and V",
            "no K, no V of its own",
            "one slot of the cache: K and V of each token",
            "write",
            "read",
            "experts",
            "attention",
        ),
        "zh": (
            "两层共用一个缓存槽",
            "偶数层",
            "奇数层",
            "自己的查询",
            "计算 K 与 V",
            "没有自己的 K 与 V",
            "一个缓存槽：每个词元的 K 与 V",
            "写入",
            "读取",
            "专家",
            "注意力",
        ),
    }[lang]
    d = Drawing(900, 300, say[0])
    d.text(30, 34, say[0], size=18, at="start")
    d.box(250, 60, 400, 56, AMBER, "#fef3c7")
    d.text(450, 94, say[6])
    for x, name, kind in ((60, say[1], say[4]), (500, say[2], say[5])):
        d.text(x, 178, name, at="start")
        d.box(x, 190, 200, 70, BLUE, "#e0f2fe")
        d.text(x + 100, 214, say[10])
        d.text(x + 100, 234, say[3], size=13, colour=GREY)
        d.text(x + 100, 252, kind, size=13, colour=GREY)
        d.box(x + 230, 190, 110, 70, VIOLET, "#f5f3ff")
        d.text(x + 285, 230, say[9])
        d.arrow(f"M{x + 202} 225H{x + 226}")
    d.arrow("M402 225H496")
    d.arrow("M842 225H880")
    d.arrow("M120 188V88H246", colour="amber")
    d.text(130, 140, say[7], size=13, colour=GREY, at="start")
    d.arrow("M300 118C300 150 230 150 225 186", colour="amber")
    d.text(292, 150, say[8], size=13, colour=GREY, at="start")
    d.arrow("M600 118V186", colour="amber")
    d.text(608, 156, say[8], size=13, colour=GREY, at="start")
    return str(d)


def key_norm(lang: str) -> str:
    """Why the gain of the key norm goes to the query."""
    say = {
        "en": (
            "The gain of the key norm moves to the query",
            "as released: each layer its own gain on K",
            "here: K without a gain, the gain in the query",
            "two layers, two different K: nothing to share",
            "two layers, one K: half the cache, same logits",
            "cache",
            "layer",
        ),
        "zh": (
            "键归一化的增益移到查询上",
            "发布的代码：每层在 K 上乘自己的增益",
            "此处：K 不带增益，增益并入查询",
            "两层两个不同的 K：无从共享",
            "两层同一个 K：缓存减半，logits 相同",
            "缓存",
            "层",
        ),
    }[lang]
    d = Drawing(900, 330, say[0])
    d.text(30, 34, say[0], size=18, at="start")
    for x, head, foot in ((30, say[1], say[3]), (470, say[2], say[4])):
        d.text(x, 72, head, at="start", size=14, colour=GREY)
        d.text(x, 270, foot, at="start", size=14)
    for i, y in enumerate((90, 170)):
        d.text(30, y + 36, f"{say[6]} {i}", at="start", size=13)
        d.box(90, y + 8, 90, 46, BLUE, "#e0f2fe")
        d.text(135, y + 36, f"q{i}")
        d.text(200, y + 36, "·")
        d.box(220, y + 8, 180, 46, AMBER, "#fef3c7")
        d.text(310, y + 36, f"{say[5]}: w{i} ⊙ k")
        d.text(470, y + 36, f"{say[6]} {i}", at="start", size=13)
        d.box(530, y + 8, 110, 46, BLUE, "#e0f2fe")
        d.text(585, y + 36, f"w{i} ⊙ q{i}")
        d.text(660, y + 36, "·")
        d.arrow(f"M718 {y + 31}H674", colour="amber")
    d.box(722, 118, 140, 86, AMBER, "#fef3c7")
    d.text(792, 166, f"{say[5]}: k")
    d.text(450, 308, "q · (w ⊙ k) = (w ⊙ q) · k", size=17)
    return str(d)


def memory(lang: str) -> str:
    """Bytes of the cache, from the shape of Hunyuan-Large."""
    layers, heads, kv_heads, width, context = 64, 80, 8, 80, 262_144
    say = {
        "en": (
            "Keys and values of Hunyuan-Large, bfloat16 (calculated)",
            "multi-head attention",
            "grouped queries: 8 of 80 heads",
            "and pairs of layers share",
            "bytes a token",
            "at 262,144 tokens",
        ),
        "zh": (
            "Hunyuan-Large 的键与值，bfloat16（计算值）",
            "多头注意力",
            "分组查询：80 头中的 8 个",
            "且每两层共享",
            "每词元字节",
            "262,144 个词元时",
        ),
    }[lang]
    d = Drawing(900, 200, say[0])
    d.text(30, 34, say[0], size=18, at="start")
    d.text(700, 66, say[4], size=13, colour=GREY, at="end")
    d.text(870, 66, say[5], size=13, colour=GREY, at="end")
    full = 2 * 2 * layers * heads * width
    for i, (name, share, colour) in enumerate(
        (
            (say[1], 1.0, "#cbd5e1"),
            (say[2], kv_heads / heads, "#94a3b8"),
            (say[3], kv_heads / heads / 2, AMBER),
        )
    ):
        y = 84 + 36 * i
        d.text(30, y + 14, name, at="start", size=14)
        d.bar(290, y, 300 * share, colour)
        d.text(700, y + 14, f"{full * share:,.0f}", at="end", size=14)
        d.text(870, y + 14, f"{full * share * context / 1e9:.1f} GB", at="end", size=14)
    return str(d)


FIGURES = {"router": router, "pair": pair, "key-norm": key_norm, "memory": memory}


def write(folder: Path) -> None:
    """Write every figure in both languages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        for lang, ending in (("en", "svg"), ("zh", "zh.svg")):
            (folder / f"{name}.{ending}").write_text(draw(lang), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else OUT)
