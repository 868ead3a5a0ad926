"""Numbers in words (American English). Digits come in as strings, so nothing is too long."""

from __future__ import annotations

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = (
    " thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion "
    "undecillion"
).split(" ")
# Longer numbers are read digit by digit.
MAX_DIGITS = 3 * len(SCALES)
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
ROMAN = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}


def digits(text: str) -> str:
    """Digit by digit: "042" → "zero four two"."""
    return " ".join(ONES[int(digit)] for digit in text)


def _below_thousand(value: int) -> str:
    words = []
    if value >= 100:
        words.append(f"{ONES[value // 100]} hundred")
        value %= 100
    if value >= 20:
        words.append(TENS[value // 10] + (f"-{ONES[value % 10]}" if value % 10 else ""))
    elif value or not words:
        words.append(ONES[value])
    return " ".join(words)


def cardinal(text: str) -> str:
    """ "1234" → "one thousand two hundred thirty-four"; with leading zeros or past MAX_DIGITS, digit by digit."""
    if len(text) > MAX_DIGITS or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    groups = []
    while text:
        text, group = text[:-3], text[-3:]
        groups.append(int(group))
    words = [
        f"{_below_thousand(group)} {scale}".strip()
        for group, scale in zip(reversed(groups), reversed(SCALES[: len(groups)]), strict=True)
        if group
    ]
    return " ".join(words) or "zero"


def to_ordinal(words: str) -> str:
    """ "twenty-two" → "twenty-second"."""
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    head, last = words[:cut], words[cut:]
    if last in ORDINALS:
        return head + ORDINALS[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def ordinal(text: str) -> str:
    """ "22" → "twenty-second"."""
    return to_ordinal(cardinal(text.lstrip("0") or "0"))


def to_plural(words: str) -> str:
    """ "nineteen ninety" → "nineteen nineties", "six" → "sixes"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "s")) else "s")


def pairs(text: str) -> str:
    """Three or four digits as years and models are read: "1905" → "nineteen oh five", "747" → "seven forty-seven"."""
    high, low = text[:-2], text[-2:]
    if low == "00":
        return f"{cardinal(high)} hundred" if high[-1] != "0" else f"{cardinal(high[:-1])} thousand"
    return f"{cardinal(high)} {'oh ' + ONES[int(low[1])] if low[0] == '0' else cardinal(low)}"


def year(text: str) -> str:
    """ "1999" → "nineteen ninety-nine", "2005" → "two thousand five", "476" → "four seventy-six"."""
    if len(text) == 4 and text[0] != "0" and text[1] == "0" and text[2] == "0":
        return cardinal(text)
    return pairs(text) if len(text) in (3, 4) and text[0] != "0" else cardinal(text)


def decimal(whole: str, fraction: str) -> str:
    """ "3", "14" → "three point one four"."""
    return f"{cardinal(whole or '0')} point {digits(fraction)}"


def number(text: str) -> str:
    """With commas and a decimal point: "1,234.5" → "one thousand two hundred thirty-four point five"."""
    whole, point, fraction = text.replace(",", "").partition(".")
    return decimal(whole, fraction) if point and fraction else cardinal(whole)


def from_roman(text: str) -> int | None:
    """Value of a canonical capital roman numeral below 4000, else None."""
    if not text or len(text) > 15 or set(text) - set(ROMAN):
        return None
    values = [ROMAN[letter] for letter in text]
    total = sum(-value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True))
    return total if to_roman(total) == text else None


def to_roman(value: int) -> str:
    """Canonical roman numeral of 1..3999."""
    parts = []
    for size, one, five, ten in ((1000, "M", "", ""), (100, "C", "D", "M"), (10, "X", "L", "C"), (1, "I", "V", "X")):
        digit, value = divmod(value, size)
        if size == 1000:
            parts.append(one * digit)
        else:
            parts.append(
                ("", one, 2 * one, 3 * one, one + five, five, five + one, five + 2 * one, five + 3 * one, one + ten)[
                    digit
                ]
            )
    return "".join(parts)
