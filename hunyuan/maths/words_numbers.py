# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: units, percentages, statistics, number theory, counting, rounding."""

import re

from hunyuan.maths import numerals, slots, units
from hunyuan.maths.call import ToolCall, tool_call

N = r"([-+]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?)"

# -- units ---------------------------------------------------------------------------------------

AMOUNT = r"(.{0,30}?)"
NAME = r"([A-Za-z°℃℉μµ²³/^\d .-]{1,30}?|[\u4e00-\u9fff/²³]{1,8})"
CONVERSIONS = [
    rf"^(?:convert|change|express|turn)\s+{AMOUNT}\s*{NAME}\s+(?:to|into|in|as)\s+{NAME}$",
    rf"^how many\s+{NAME}\s+(?:are (?:there )?in|is|in|are|make up|make|equal|does it take to make)\s+{AMOUNT}\s*{NAME}(?:\s+have)?$",
    rf"^(?:how much is\s+)?{AMOUNT}\s*{NAME}\s+(?:is how many|is how much in|equals how many|in|to|into|is what in|as)\s+{NAME}$",
    rf"^(?:把|将)?\s*{AMOUNT}\s*(?:个)?{NAME}\s*(?:换算成|换算为|换成|转换成|转换为|转成|转为|转化为|化成|化为|换算到|折合成?|变成|用)\s*(?:多少个?|几个?)?\s*{NAME}(?:表示)?$",
    rf"^{AMOUNT}\s*(?:个)?{NAME}\s*(?:等于|是|合|有|相当于|为|=)\s*(?:多少个?|几个?)\s*{NAME}$",
    rf"^(?:多少|几)\s*(?:个)?{NAME}\s*(?:等于|是|合)\s*{AMOUNT}\s*{NAME}$",
]
CONVERSION = [re.compile(pattern, re.IGNORECASE) for pattern in CONVERSIONS]


def conversion(text: str) -> ToolCall | None:
    """``把 5 英里换算成公里``, ``how many feet are in 2 miles``."""
    for index, pattern in enumerate(CONVERSION):
        found = pattern.match(text)
        if not found:
            continue
        amount, source, target = (
            (found[2], found[3], found[1]) if index in (1, 5) else (found[1], found[2], found[3])
        )
        if call := _convert(f"{amount} {source}", target, explicit=index in (0, 3)):
            return call
    return None


def _convert(quantity: str, target: str, explicit: bool) -> ToolCall | None:
    """A quantity such as ``5 miles`` in another unit; the split is found by knowing the units."""
    quantity = quantity.strip()
    new = units.find(target)
    number = re.match(
        r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?:\s*/\s*\d+)?|(?:an?|one|each|per)\b|"
        rf"{numerals.ZH_NUMBER}|半",
        quantity,
        re.IGNORECASE,
    )
    amount = "1"
    name = quantity
    if number:
        amount, name = number[0], quantity[number.end() :].strip()
    else:
        said = numerals.digits(quantity)
        if said != quantity:
            return _convert(said, target, explicit)
    # 一两 is one liang: the last numeral may belong to the unit.
    if not name and len(amount) > 1:
        amount, name = amount[:-1], amount[-1]
    name = re.sub(r"^(?:of a |of an |of )", "", name).removeprefix("个").strip()
    old = units.find(name)
    value = "1/2" if amount == "半" else slots.number(amount)
    if value is None:
        return None
    if old is not None and new is not None:
        return tool_call("convert", value=value, source=name, target=target.strip())
    known_to_pint = re.compile(r"[a-zA-Z_]{3,30}")
    if (
        explicit
        and all(
            u is not None or known_to_pint.fullmatch(n.strip())
            for u, n in ((old, name), (new, target))
        )
        and (old or new)
    ):
        return tool_call(
            "convert", value=value, source=name.rstrip("s"), target=target.strip().rstrip("s")
        )
    return None


# -- percentages ---------------------------------------------------------------------------------

P = r"([-+]?\d+(?:\.\d+)?)\s*(?:%|percent|per cent)"
PERCENT: list[tuple[str, str, str, str]] = [
    # pattern, action, template of a, template of b
    (rf"^{P}\s+of\s+(?:the number |a number is )?[$¥￥€£]?{N}$", "of", "1", "2"),
    (rf"^{P}\s+of\s+(?:what(?: number)?|which number)\s+(?:is|equals)\s+{N}$", "whole", "2", "1"),
    (rf"^{N}\s+is\s+{P}\s+of\s+(?:what(?: number)?|which number)$", "whole", "1", "2"),
    (rf"^(?:what (?:percent(?:age)?|%) of\s+){N}\s+is\s+{N}$", "what", "2", "1"),
    (rf"^{N}\s+(?:is|as)\s+(?:what|a|how many)?\s*(?:percent(?:age)?|%|per cent)\s+of\s+{N}$", "what", "1", "2"),
    (rf"^{N}\s+out of\s+{N}\s+(?:as a|in|is what)\s+(?:percent(?:age)?|%)$", "what", "1", "2"),
    (rf"^(?:the )?(?:percent(?:age)?\s+)(?:change|increase|decrease|difference|growth)\s+(?:from|between)\s+{N}\s+(?:to|and)\s+{N}$", "change", "1", "2"),
    (rf"^(?:increase|raise)\s+{N}\s+by\s+{P}$", "increase", "1", "2"),
    (rf"^(?:decrease|reduce|lower|discount)\s+{N}\s+by\s+{P}$", "decrease", "1", "2"),
    (rf"^{N}\s+(?:increased|raised|plus)\s+(?:by\s+)?{P}$", "increase", "1", "2"),
    (rf"^{N}\s+(?:decreased|reduced|minus|less)\s+(?:by\s+)?{P}$", "decrease", "1", "2"),
    (rf"^{P}\s+off\s+(?:of\s+)?[$¥￥€£]?{N}$", "decrease", "2", "1"),
    (rf"^{N}\s*的\s*{P}$", "of", "2", "1"),
    (rf"^{N}\s*(?:占|是)\s*{N}\s*的?\s*(?:百分之几|百分之多少|百分比|多少百分比|百分率)$", "what", "1", "2"),
    (rf"^{N}\s*(?:占|是)\s*{N}\s*的\s*(?:%|几%)$", "what", "1", "2"),
    (rf"^(?:从\s*)?{N}\s*(?:增加|增长|上升|提高|涨|减少|下降|降低|降|变)?(?:到|至|为)\s*{N}\s*[,，]?\s*(?:增长|增加|上升|提高|减少|下降|降低|变化|涨|降)(?:了|率)?(?:是|为)?\s*(?:百分之几|百分之多少|多少百分比|的?百分比|率)?$", "change", "1", "2"),
    (rf"^{N}\s*[,，]?\s*(?:增加|增长|提高|上涨|上升|涨价|加价|涨)了?\s*{P}(?:\s*(?:后|之后))?\s*[,，]?\s*(?:的?价格|现价|售价)?\s*(?:是|为|得|变成)?$", "increase", "1", "2"),
    (rf"^{N}\s*[,，]?\s*(?:减少|降低|下降|下调|降价|便宜|打折|降)了?\s*{P}(?:\s*(?:后|之后))?\s*[,，]?\s*(?:的?价格|现价|售价)?\s*(?:是|为|得|变成)?$", "decrease", "1", "2"),
    (rf"^{N}\s*比\s*{N}\s*(?:多|大|高|增加|少|小|低)了?\s*(?:百分之几|百分之多少|多少百分比|百分比|几%)$", "change", "2", "1"),
    (rf"^(?:一个数|某数|什么数|哪个数|多少)\s*的\s*{P}\s*(?:是|等于|为)\s*{N}(?:[,，]?\s*(?:这个数|求?这个数|该数)?(?:是|为)?)?$", "whole", "2", "1"),
    (rf"^{N}\s*(?:是|等于)\s*(?:哪个数|什么数|多少|几)\s*的\s*{P}$", "whole", "1", "2"),
]  # fmt: skip
PERCENTAGES = [(re.compile(p, re.IGNORECASE), action, a, b) for p, action, a, b in PERCENT]
ZH_PERCENT = re.compile(rf"百分之({numerals.ZH_NUMBER}|\d+(?:\.\d+)?)")


def percentage(text: str) -> ToolCall | None:
    """``15% of 240``, ``240 的百分之十五``, ``30 占 120 的百分之几``, ``打八折``."""
    text = re.sub(r"百分之(?:几|多少)", "百分比", text)
    text = ZH_PERCENT.sub(
        lambda m: (m[1] if m[1][0].isdigit() else numerals.zh_number(m[1]) or m[1]) + "%", text
    )
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(\d)\s*(?:元|块钱?|人|个|kg|dollars?|yuan)(?![A-Za-z])", r"\1", text)
    text = re.sub(r"[$¥￥€£]\s*(?=\d)", "", text)
    text = re.sub(
        r"^(?:一?[件个台双本辆]?(?:商品|衣服|东西|产品|鞋子?|书)|原价|售价|定价|价格|原来)+\s*(?:的?(?:原价|售价|定价|价格)|是|为)*\s*[:：]?\s*(?=\d)",
        "",
        text,
    )
    text = re.sub(r"\s*(?:是|为|要|卖|付)?\s*(?:多少钱?|几)\s*(?:元|块)?$", "", text)
    text = text.strip(slots.EDGES)
    if re.search("[a-z]", text, re.IGNORECASE):
        text = re.sub(r"\b(\w+)(?= percent)", lambda m: numerals.en_number(m[1]) or m[1], text)
    for pattern, action, a, b in PERCENTAGES:
        if found := pattern.match(text):
            return tool_call("percent", action=action, a=found[int(a)], b=found[int(b)])
    if call := _price(text):
        return call
    if discount := re.search(
        r"打\s*([一二三四五六七八九\d](?:[点.]?[一二三四五六七八九\d])?)\s*折", text
    ):
        before, after = text[: discount.start()], text[discount.end() :]
        # "Then 20 off as well" is more than this rule knows.
        price = re.search(N, before) if len(re.findall(N, before)) == 1 else None
        if re.search(r"[\d一二三四五六七八九十]|再|原价(?:是|为)?多少", after):
            return None
        tenths = discount[1]
        if not tenths[0].isdigit():
            tenths = "".join(str(numerals.ZH_DIGITS.get(c, "")) for c in tenths if c != "点")
        digits = tenths.replace(".", "")
        if price and digits.isdigit():
            off = f"{digits}0" if len(digits) == 1 else digits
            if re.search(r"省|便宜|优惠了", after):
                off = str(100 - int(off))
            return tool_call("percent", action="of", a=off, b=price[1])
    return None


ONE_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent|per cent)", re.IGNORECASE)
MORE_TO_IT = re.compile(
    r"original|\bbefore\b|原价(?:是|为)?(?:多少|$)|原来(?:是|卖|要)?(?:多少|$)|\bwas it\b|\beach\b|every|twice|"
    r"half|另|再|每|一半|倍|years?|months?|年|月",
    re.IGNORECASE,
)
LESS = re.compile(
    r"(?:%|percent)\s*(?:off|discount|reduction|cheaper|less)|discount(?:ed)? (?:of|by|at)|(?:reduced|marked down|"
    r"lowered|drops?|dropped|fell|falls) (?:by )?|降价|降低|优惠|便宜|减价|下调|降了?",
    re.IGNORECASE,
)
GREATER = re.compile(
    r"(?:%|percent)\s*(?:sales |service )?(?:tax|vat|gst|tip|gratuity|markup|increase|raise)|(?:marked up|increased|"
    r"raised|rises?|rose|goes up|went up|grew) (?:by )?|涨价?|提价|加价|上涨|上调|增加|提高",
    re.IGNORECASE,
)
PART = re.compile(
    r"sav(?:e|ed|ings)|how much (?:is )?(?:the )?(?:discount|tax|tip|vat|gratuity)|(?:tip|tax|vat|gratuity|discount|"
    r"commission) (?:on|for|of)\b|省|(?:便宜|优惠|降|涨|减)了?多少|税(?:是|款)?多少|小费",
    re.IGNORECASE,
)


def _price(text: str) -> ToolCall | None:
    """``a jacket was $80, now 30% off``: one price, one percentage, and what happens to it."""
    percents = ONE_PERCENT.findall(text)
    prices = re.findall(N, ONE_PERCENT.sub(" ", text))
    if len(percents) != 1 or len(prices) != 1 or MORE_TO_IT.search(text):
        return None
    if PART.search(text):
        return tool_call("percent", action="of", a=percents[0], b=prices[0])
    less, greater = bool(LESS.search(text)), bool(GREATER.search(text))
    if less == greater:
        return None
    action = "decrease" if less else "increase"
    return tool_call("percent", action=action, a=prices[0], b=percents[0])


# -- statistics ----------------------------------------------------------------------------------

MEASURES: list[tuple[str, str, str]] = [
    ("sample_std", r"sample (?:standard deviation|std)", r"样本标准差"),
    ("sample_variance", r"sample variance", r"样本方差"),
    ("geometric_mean", r"geometric (?:mean|average)", r"几何平均数?值?"),
    ("harmonic_mean", r"harmonic (?:mean|average)", r"调和平均数?值?"),
    ("mean", r"(?:arithmetic )?(?:mean|average)(?: value)?", r"(?:算术)?(?:平均数|平均值|均值|平均分|平均)"),
    ("median", r"median", r"中位数"),
    ("mode", r"mode", r"众数"),
    ("std", r"(?:population )?(?:standard deviation|std(?:ev)?)", r"(?:总体)?标准差"),
    ("variance", r"(?:population )?variance", r"(?:总体)?方差"),
    ("quartiles", r"quartiles?", r"四分位数?"),
    ("range", r"range", r"极差|全距"),
    ("max", r"max(?:imum)?|largest(?: number)?|greatest(?: number)?", r"最大值|最大数|最大的数"),
    ("min", r"min(?:imum)?|smallest(?: number)?|least(?: number)?", r"最小值|最小数|最小的数"),
    ("summary", r"(?:summary|descriptive) statistics|statistics", r"描述统计|统计量|统计"),
    ("sum", r"(?:sum|total)", r"总和|的和"),
]  # fmt: skip
FRONT = [
    (
        action,
        re.compile(rf"^(?:the )?(?:{en})\s*(?:of|for|among|in|:|between)?\s*(.+)$", re.IGNORECASE),
    )
    for action, en, _ in MEASURES
]
BACK = [
    (
        action,
        re.compile(
            rf"^(?:数据|一组数据|数列|样本)?\s*(.+?)\s*(?:这[组几些].{{0,4}})?的?\s*(?:{zh})$"
        ),
    )
    for action, _, zh in MEASURES
]
FRONT_ZH = [
    (action, re.compile(rf"^(?:{zh})\s*(?:为|是)?[:：]?\s*(.+)$")) for action, _, zh in MEASURES
]
LIST = r"([\[(]?\s*[-\d.,\s/%]+?\s*[\])]?)"
PAIRS = [
    ("correlation", rf"correlation (?:coefficient )?(?:of|between)\s+(?:[xy]\s*=\s*)?{LIST}\s*(?:and|,|;|with)\s*(?:[xy]\s*=\s*)?{LIST}"),
    ("correlation", rf"(?:[xXyY]\s*=\s*)?{LIST}\s*(?:和|与|,|，|;|；)\s*(?:[xXyY]\s*=\s*)?{LIST}\s*的?(?:皮尔逊)?相关系数"),
    ("regression", rf"(?:linear )?regression (?:line |equation )?(?:of|for|through|with|on)\s+(?:[xy]\s*=\s*)?{LIST}\s*(?:and|,|;|on)\s*(?:[xy]\s*=\s*)?{LIST}"),
    ("regression", rf"(?:[xXyY]\s*=\s*)?{LIST}\s*(?:和|与|,|，|;|；)\s*(?:[xXyY]\s*=\s*)?{LIST}\s*的?(?:线性回归|回归直线|回归方程|一元线性回归)(?:方程)?"),
    ("regression", rf"(?:线性回归|回归直线|回归方程)(?:方程)?\s*[:：]?\s*(?:[xXyY]\s*=\s*)?{LIST}\s*(?:和|与|,|，|;|；)\s*(?:[xXyY]\s*=\s*)?{LIST}"),
    ("weighted_mean", rf"weighted (?:mean|average) of\s+{LIST}\s*with (?:the )?weights?\s*{LIST}"),
    ("weighted_mean", rf"{LIST}\s*(?:的)?[,，]?\s*(?:权重|权数)(?:为|是|分别为)?\s*{LIST}\s*的?加权平均数?值?"),
]  # fmt: skip
TWO = [(action, re.compile(rf"^(?:the )?{pattern}$", re.IGNORECASE)) for action, pattern in PAIRS]
PERCENTILE = [
    re.compile(r"^(?:the )?(\d+)(?:st|nd|rd|th)? percentile of (.+)$", re.IGNORECASE),
    re.compile(r"^(.+?)\s*的?第?\s*(\d+)\s*(?:百分位数?|分位数)$"),
]


def statistics(text: str) -> ToolCall | None:
    """``average of 3, 5, 8``, ``3, 5, 8 的中位数``."""
    for action, pattern in TWO:
        if found := pattern.match(text):
            first, second = slots.numbers(found[1]), slots.numbers(found[2])
            if first and second and len(first.split(",")) == len(second.split(",")) > 1:
                return tool_call("statistics", action=action, data=first, other=second)
    if call := _measures(text):
        return call
    if found := PERCENTILE[0].match(text):
        if data := slots.numbers(found[2]):
            return tool_call("statistics", action="percentile", data=data, other=found[1])
    elif (found := PERCENTILE[1].match(text)) and (data := slots.numbers(found[1])):
        return tool_call("statistics", action="percentile", data=data, other=found[2])
    for patterns in (FRONT, BACK, FRONT_ZH):
        for action, pattern in patterns:
            found = pattern.match(text)
            if found and (data := slots.numbers(found[1])) and _enough(action, data, found[1]):
                return tool_call("statistics", action=action, data=data)
    return None


MEASURE = re.compile(
    "|".join(f"(?P<m{i}>{en}|{zh})" for i, (_, en, zh) in enumerate(MEASURES)), re.IGNORECASE
)
ANY_MEASURE = "|".join(f"(?:{en}|{zh})" for _, en, zh in MEASURES)
SEVERAL = rf"(?P<names>(?:{ANY_MEASURE})(?:\s*(?:,\s*and|and|&|,|，|、|和|与|及|以及)\s*(?:the )?(?:{ANY_MEASURE}))+)"
MEASURES_OF = [
    re.compile(rf"^(?:the )?{SEVERAL}\s*(?:of|for|:|：|in)\s*(?P<data>.+)$", re.IGNORECASE),
    re.compile(rf"^(?:数据|一组数据|样本)?\s*(?P<data>.+?)\s*(?:这[组几些].{{0,4}})?的?\s*{SEVERAL}(?:分别)?(?:是|为)?$", re.IGNORECASE),
    re.compile(rf"^(?:for )?(?P<data>.+?)\s*[,，:：;；]\s*(?:find|求|计算|the|\s)*(?:其|它们?的)?{SEVERAL}$", re.IGNORECASE),
]  # fmt: skip


def _measures(text: str) -> ToolCall | None:
    """``mean and variance of 3, 5, 7``, ``3、5、7 的平均数和方差``."""
    for pattern in MEASURES_OF:
        found = pattern.match(text)
        listed = slots.numbers(found["data"]) if found else None
        if found and listed and "," in listed:
            places = [int((one.lastgroup or "m0")[1:]) for one in MEASURE.finditer(found["names"])]
            return tool_call(
                "statistics", action=", ".join(MEASURES[i][0] for i in places), data=listed
            )
    return None


def _enough(action: str, data: str, written: str) -> bool:
    """A sum of two numbers is arithmetic; 1 to 100 is a range, not two numbers."""
    count = data.count(",") + 1
    return count >= 2 or action in ("summary",) or ("[" in written and count >= 1)


# -- number theory -------------------------------------------------------------------------------

WHOLE = r"(\d[\d,]*)"
NUMBER_THEORY: list[tuple[str, str]] = [
    ("gcd", r"^(?:the )?(?:gcd|hcf|gcf|greatest common (?:divisor|factor|denominator)|highest common (?:factor|divisor))\s*(?:of|for|between)?\s*(.+)$"),
    ("gcd", r"^(.+?)\s*的?\s*(?:最大公约数|最大公因数|最大公因子)$"),
    ("gcd", r"^(?:最大公约数|最大公因数)\s*[:：]?\s*(.+)$"),
    ("lcm", r"^(?:the )?(?:lcm|least common (?:multiple|denominator)|lowest common (?:multiple|denominator))\s*(?:of|for|between)?\s*(.+)$"),
    ("lcm", r"^(.+?)\s*的?\s*(?:最小公倍数)$"),
    ("lcm", r"^(?:最小公倍数)\s*[:：]?\s*(.+)$"),
    ("factorize", rf"^(?:the )?(?:prime )?(?:factori[sz]ation|factori[sz]e|factor|prime factors|decomposition into primes)\s*(?:of|for)?\s*(?:the number )?{WHOLE}(?:\s+into (?:its )?(?:primes|prime factors))?$"),
    ("factorize", rf"^(?:把|将|对)?\s*{WHOLE}\s*(?:进行)?的?\s*(?:分解质因数|质因数分解|分解素因数|素因数分解|因数分解|分解因数|素因子分解|质因数|分解成质因数)$"),
    ("factorize", rf"^(?:分解质因数|质因数分解|素因数分解)\s*[:：]?\s*{WHOLE}$"),
    ("is_prime", rf"^(?:is|whether|check (?:if|whether)|test (?:if|whether))\s+(?:the number )?{WHOLE}\s+(?:is )?(?:a )?prime(?: number)?(?: or not)?$"),
    ("is_prime", rf"^(?:判断)?\s*{WHOLE}\s*(?:是不是|是否是?|是否为|是)\s*(?:一?个)?(?:质数|素数)(?:吗|么)?$"),
    ("divisors", rf"^(?:list )?(?:all )?(?:the )?(?:positive )?(?:divisors|factors)\s+(?:of|for)\s+{WHOLE}$"),
    ("divisors", rf"^{WHOLE}\s*的?\s*(?:所有|全部)?的?(?:正)?(?:因数|约数|因子)(?:有哪些|有什么|都有哪些|有)?$"),
    ("primes", rf"^(?:list )?(?:all )?(?:the )?(?:prime numbers|primes)\s+(?:up to|below|less than|under|smaller than|until|before)\s+{WHOLE}$"),
    ("primes", rf"^(?:list )?(?:all )?(?:the )?(?:prime numbers|primes)\s+(?:between|from)\s+{WHOLE}\s+(?:and|to)\s+{WHOLE}$"),
    ("primes", rf"^(?:列出)?\s*{WHOLE}\s*(?:以内|以下)的?\s*(?:所有|全部)?的?\s*(?:质数|素数)(?:有哪些|有)?$"),
    ("primes", rf"^(?:列出)?\s*(?:从)?\s*{WHOLE}\s*(?:到|至|和|与)\s*{WHOLE}\s*(?:之间)?的?\s*(?:所有|全部)?的?\s*(?:质数|素数)(?:有哪些|有)?$"),
    ("next_prime", rf"^(?:the )?(?:next|first|smallest|least) prime(?: number)?\s+(?:after|above|greater than|larger than|bigger than)\s+{WHOLE}$"),
    ("next_prime", rf"^(?:大于|比)\s*{WHOLE}\s*(?:大)?的\s*(?:最小|第一个|下一个)的?\s*(?:质数|素数)$"),
    ("nth_prime", r"^(?:the )?(\d+)(?:st|nd|rd|th)\s+prime(?: number)?$"),
    ("nth_prime", rf"^第\s*{WHOLE}\s*个\s*(?:质数|素数)$"),
    ("euler_phi", rf"^(?:euler'?s? (?:phi|totient)(?: function)?|phi|totient)\s*(?:of)?\s*\(?{WHOLE}\)?$"),
    ("euler_phi", rf"^{WHOLE}\s*的欧拉函数值?$"),
    ("modular_inverse", rf"^(?:the )?(?:modular )?(?:multiplicative )?inverse of\s+{WHOLE}\s+(?:mod|modulo)\s+{WHOLE}$"),
    ("modular_inverse", rf"^{WHOLE}\s*(?:模|mod)\s*{WHOLE}\s*的?\s*(?:乘法)?逆元?$"),
]  # fmt: skip
NUMBERS = [(action, re.compile(p, re.IGNORECASE)) for action, p in NUMBER_THEORY]
BASES = {"binary": 2, "hexadecimal": 16, "hex": 16, "octal": 8, "二进制": 2, "十六进制": 16,
         "16进制": 16, "2进制": 2, "八进制": 8, "8进制": 8, "decimal": 10, "十进制": 10, "10进制": 10}  # fmt: skip
BASE = "|".join(BASES)
INTO_BASE = [
    re.compile(rf"^(?:convert|write|express)?\s*(?:the )?(?:decimal )?(?:number )?(\d+)\s+(?:to|in|into|as)\s+(?:an? )?({BASE}|base[ -]?\d+)(?: number)?$", re.IGNORECASE),
    re.compile(rf"^(?:把|将)?\s*(?:十进制数?)?\s*(\d+)\s*(?:的|转换?[成为]?|换算[成为]|化[成为]|用|表示[成为]|转)\s*({BASE}|\d+\s*进制)(?:数|表示|形式)*$"),
]  # fmt: skip
FROM_BASE = [
    re.compile(rf"^(?:convert\s+)?(?:the )?({BASE})\s+(?:number )?([0-9a-f]+)\s+(?:to|in|into|as)\s+decimal$", re.IGNORECASE),
    re.compile(rf"^(?:convert\s+)?([0-9a-f]+)\s+(?:from|in)\s+({BASE})\s+to\s+decimal$", re.IGNORECASE),
    re.compile(rf"^(?:把|将)?\s*({BASE})数?\s*([0-9A-Fa-f]+)\s*(?:转换?[成为]?|换算[成为]|化[成为]|转|等于)?\s*(?:十进制|10进制)(?:数|表示|的?)*$"),
]  # fmt: skip
REMAINDER = [
    re.compile(rf"^(?:the )?remainder (?:when|of|if)\s+(\S+)\s+(?:is )?divided by\s+{WHOLE}$", re.IGNORECASE),
    re.compile(rf"^(\S+)\s*除以\s*{WHOLE}\s*的?余数?$"),
    re.compile(rf"^(\S+)\s*(?:对|模)\s*{WHOLE}\s*(?:取模|取余|求余)?$"),
]  # fmt: skip


def number_theory(text: str) -> ToolCall | None:
    """``12 和 18 的最大公约数``, ``is 97 prime``, ``255 in binary``."""
    for action, pattern in NUMBERS:
        found = pattern.match(text)
        if not found:
            continue
        listed = slots.numbers(" ".join(g.replace(",", ", ") if action in ("gcd", "lcm") else g.replace(",", "") for g in found.groups()))  # fmt: skip
        if (
            listed
            and (action not in ("gcd", "lcm") or "," in listed)
            and not set(listed) & set("./%")
        ):
            return tool_call("number", action=action, numbers=listed)
    for pattern in FROM_BASE:
        if found := pattern.match(text):
            base, digits = (
                (found[1], found[2]) if found[1].lower() in BASES else (found[2], found[1])
            )
            return tool_call(
                "number", action="from_base", numbers=f"{digits}, {BASES[base.lower()]}"
            )
    for pattern in INTO_BASE:
        if found := pattern.match(text):
            name = found[2].lower()
            base = BASES.get(name) or int(re.sub(r"\D", "", name) or 0)
            if 2 <= base <= 36 and base != 10:
                return tool_call("number", action="base", numbers=f"{found[1]}, {base}")
    for pattern in REMAINDER:
        if (found := pattern.match(text)) and (value := slots.number(found[1])):
            return tool_call("calculate", expression=f"mod({value}, {found[2]})")
    return None


# -- counting ------------------------------------------------------------------------------------

CHOOSE = [
    re.compile(r"^(?:in )?(?:how many|number of|the number of)\s*(?:different )?(?:ways|combinations|possibilities).{0,30}?(?:choos\w+|select\w*|pick\w*|form\w*)?.{0,12}?\b(\d+)\b.{0,30}?\b(?:from|out of|of|among)\b.{0,20}?\b(\d+)\b.{0,20}$", re.IGNORECASE),
    re.compile(r"^(?:choose|select|pick)\s+(\d+)\s+(?:\w+\s+)?(?:from|out of)\s+(\d+)(?:\s+\w+)?$", re.IGNORECASE),
    re.compile(r"^combinations? of (?P<n>\d+) (?:\w+ )?(?:taken|choose|at) (?P<k>\d+)(?: at a time)?$", re.IGNORECASE),
    re.compile(r"^(?:(?:the )?number of combinations of\s+)?(?P<n>\d+)\s+choose\s+(?P<k>\d+)$", re.IGNORECASE),
    re.compile(r"^(?:从)?\s*(?P<n>\d+)\s*[^\d，,]{0,8}?(?:中|里|当中)?[,，]?\s*(?:任|随机)?\s*(?:选|取|挑|抽)(?:出|择|选)?\s*(?P<k>\d+)\s*[^\d]{0,12}?[,，]?\s*(?:一共|共|总共)?有?(?:多少|几)?种?(?:不同的?)?(?:选法|取法|方法|组合|组合数|可能|情况|方式)?$"),
]  # fmt: skip
ARRANGE = [
    re.compile(r"^(?:permutations|arrangements) of (\d+)(?: (?!taken|at)\w+)?$", re.IGNORECASE),
    re.compile(r"^(?:in )?how many ways (?:can|to|are there to) (?:arrange )?(\d+) (?:different )?\w+ (?:be )?(?:arranged|lined up|line up|ordered|seated|stand|sit|in a (?:row|line)).{0,20}$", re.IGNORECASE),
    re.compile(r"^(?:in )?how many ways (?:can (?:you|we) |to |are there to )(?:arrange|order|line up|seat) (\d+) .{0,30}$", re.IGNORECASE),
    re.compile(r"^(\d+)\s*(?:个|位|名|本|件)?[^\d，,的]{0,6}(?:站成|排成|排|全排列|坐成)[^\d]{0,8}?[,，]?\s*(?:一共|共|总共)?有?(?:多少|几)?种?(?:不同的?)?(?:排法|站法|排列|方法|方式|坐法|可能|种)?(?:数)?$"),
    re.compile(r"^(\d+)\s*(?:个|位|名)?[^\d，,的]{0,6}的全排列(?:数)?(?:有多少种?)?$"),
]  # fmt: skip
PERMUTE = [
    re.compile(r"^permutations? of (?P<n>\d+) (?:\w+ )?(?:taken|at|choose) (?P<k>\d+)(?: at a time)?$", re.IGNORECASE),
    re.compile(r"^(?:从)?\s*(?P<n>\d+)\s*[^\d，,]{0,8}?(?:中|里)?[,，]?\s*(?:选|取|挑|抽)(?:出)?\s*(?P<k>\d+)\s*[^\d]{0,10}?(?:的排列数?|排成一[列排行]|排列|进行排列)[,，]?\s*(?:一共|共|总共)?有?(?:多少|几)?种?(?:不同的?)?(?:排法|方法|方式)?$"),
]  # fmt: skip


def combinatorics(text: str) -> ToolCall | None:
    """``从 10 个人中选 3 个有多少种选法``, ``10 choose 3``, ``arrange 5 books``."""
    for kind, patterns in (("permutations", PERMUTE), ("binomial", CHOOSE)):
        for pattern in patterns:
            if found := pattern.match(text):
                named = found.groupdict()
                k, n = (named["k"], named["n"]) if named else (found[1], found[2])
                if len(n) + len(k) < 12 and int(k) <= int(n):
                    return tool_call("calculate", expression=f"{kind}({n}, {k})")
    for pattern in ARRANGE:
        if (found := pattern.match(text)) and len(found[1]) < 6:
            return tool_call("calculate", expression=f"{found[1]}!")
    return None


# -- rounding and digits -------------------------------------------------------------------------

PLACES = [
    re.compile(r"^(?:round\s+)?(.+?)\s*,?\s*(?:rounded |correct |accurate )?to\s+(?P<n>\w+)\s+decimal(?:\s+places?|s)?$", re.IGNORECASE),
    re.compile(r"^(?:把|将)?\s*(.+?)\s*[,，]?\s*(?:的值)?\s*[,，(（]?\s*(?:四舍五入)?\s*(?:保留|精确到|取|到)\s*(?:小数点后)?\s*(?P<n>[\d一二两三四五六七八九十]+)\s*位(?:小数)?[)）]?$"),
]  # fmt: skip
DIGITS = [
    re.compile(r"^(.+?)\s*,?\s*to\s+(?P<n>\w+)\s+(?:significant )?(?:digits|figures|significant figures|places)$", re.IGNORECASE),
    re.compile(r"^(?:the )?first\s+(?P<n>\w+)\s+digits of\s+(.+)$", re.IGNORECASE),
    re.compile(r"^(.+?)\s*[,，]?\s*(?:的|保留|精确到|取)?\s*(?:前)?\s*(?P<n>[\d一二两三四五六七八九十百]+)\s*位(?:有效数字|数字|有效数)$"),
    re.compile(r"^(.+?)\s*的?\s*前\s*(?P<n>[\d一二两三四五六七八九十百]+)\s*位$"),
]  # fmt: skip
WHOLE_NUMBER = re.compile(
    r"^round\s+(.+?)\s+to (?:the nearest )?(?:integer|whole number|whole|one|unit)$|"
    r"^(?:把|将)?\s*(.+?)\s*(?:四舍五入到|四舍五入取)(?:个位|整数)$|^round\s+(.+)$",
    re.IGNORECASE,
)


FORM = re.compile(
    r"^(?:convert|write|express|turn)?\s*(.+?)\s+(?:as|to|into|in)\s+an?\s+(?:simple |simplified |decimal )?"
    r"(?:fraction|decimal|number|percentage|percent)$|"
    r"^(?:把|将)?\s*(.+?)\s*(?:化成|化为|写成|转换?[成为]|变成)\s*(?:最简)?(?:分数|小数)(?:形式)?$",
    re.IGNORECASE,
)
"""A number has both forms in every answer."""


def rounding(text: str) -> ToolCall | None:
    """``pi to 50 digits``, ``sqrt(2) 保留三位小数``."""
    if (found := FORM.match(text)) and (value := slots.number(found[1] or found[2])):
        return tool_call("calculate", expression=value)
    for patterns, places in ((PLACES, True), (DIGITS, False)):
        for pattern in patterns:
            found = pattern.match(text)
            if not found:
                continue
            count = numerals.digits(found["n"])
            body = next(g for g in found.groups() if g != found["n"])
            value = slots.expression(re.sub(r"(?:的值|的近似值|的结果|的)$", "", body.strip()))
            if value and count.isdigit() and int(count) <= 1000:
                if places:
                    return tool_call("calculate", expression=f"round({value}, {count})")
                return tool_call("calculate", expression=value, digits=count)
    if (found := WHOLE_NUMBER.match(text)) and (value := slots.number(next(g for g in found.groups() if g))):  # fmt: skip
        return tool_call("calculate", expression=f"round({value})")
    return None
