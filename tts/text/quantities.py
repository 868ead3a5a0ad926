"""Amounts: money, measures, percentages, ranges, fractions, ordinals, decades, years, and every other number."""

from __future__ import annotations

import re

from melstate.tts.text import numbers
from melstate.tts.text.rules import NUMBER, START, Rule, spell

# Sign: one, many, one hundredth, many hundredths.
MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₩": ("won", "won", "", ""),
    "₺": ("lira", "lira", "", ""),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "¢": ("cent", "cents", "", ""),
}
COUNTRIES = {
    "US": "U S", "U.S.": "U S", "C": "Canadian", "CA": "Canadian", "A": "Australian", "AU": "Australian",
    "NZ": "New Zealand", "HK": "Hong Kong",
}  # fmt: skip
CODES = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "RUB": "₽"}
SCALES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
    "tn": "trillion",
}
# Symbol: one, many. Symbols are told apart by case.
UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "um": "micrometer",
    "mi": "mile", "yd": "yard", "yds": "yard", "kg": "kilogram", "kgs": "kilogram", "g": "gram", "mg": "milligram",
    "ug": "microgram", "mcg": "microgram", "lb": "pound", "lbs": "pound", "lb.": "pound", "lbs.": "pound",
    "oz": "ounce",
    "oz.": "ounce", "L": "liter", "l": "liter", "mL": "milliliter", "ml": "milliliter", "cl": "centiliter",
    "gal": "gallon",
    "gal.": "gallon", "qt": "quart", "pt": "pint", "tsp": "teaspoon", "tbsp": "tablespoon", "tsp.": "teaspoon",
    "tbsp.": "tablespoon", "h": "hour", "hr": "hour",
    "hrs": "hour", "hr.": "hour", "hrs.": "hour", "min": "minute", "mins": "minute", "min.": "minute", "sec": "second",
    "secs": "second", "sec.": "second", "s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond",
    "wk": "week", "wks": "week", "yr": "year", "yrs": "year", "yrs.": "year", "Hz": "hertz", "kHz": "kilohertz",
    "MHz": "megahertz", "GHz": "gigahertz", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt",
    "kWh": "kilowatt hour", "V": "volt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliamp", "mAh": "milliamp hour",
    "J": "joule", "kJ": "kilojoule", "N": "newton", "Pa": "pascal", "kPa": "kilopascal", "KB": "kilobyte",
    "kB": "kilobyte",
    "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte", "kbps": "kilobit per second",
    "Mbps": "megabit per second", "Gbps": "gigabit per second", "dB": "decibel", "mph": "mile per hour",
    "mpg": "mile per gallon",
    "kph": "kilometer per hour", "km/h": "kilometer per hour", "m/s": "meter per second",
    "km/s": "kilometer per second",
    "rpm": "revolution per minute", "fps": "frame per second", "cal": "calorie", "kcal": "kilocalorie", "px": "pixel",
    "ha": "hectare", "m^2": "square meter", "km^2": "square kilometer", "cm^2": "square centimeter",
    "m^3": "cubic meter", "cm^3": "cubic centimeter", "cc": "cubic centimeter", "sq ft": "square foot",
    "sq. ft.": "square foot",
    "sqft": "square foot", "sq mi": "square mile", "sq km": "square kilometer", "ft": "foot", "ft.": "foot",
    "in.": "inch",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "° C": "degree Celsius", "° F": "degree Fahrenheit",
    "°": "degree",
    "ppm": "part per million", "psi": "pound per square inch", "hp": "horsepower",
}  # fmt: skip
PER = {
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "d": "day", "wk": "week", "mo": "month",
    "yr": "year", "kg": "kilogram", "lb": "pound", "oz": "ounce", "g": "gram", "L": "liter", "l": "liter",
    "gal": "gallon",
    "km": "kilometer", "mi": "mile", "m": "meter", "ft": "foot", "mL": "milliliter", "dL": "deciliter",
    **{unit: unit for unit in "second minute hour day week month year person night unit share pound mile".split()},
}  # fmt: skip
# Before these a four-digit number is a year; before a plural noun otherwise an amount.
YEAR_BEFORE = frozenset(
    "in since until till by before after during from to the of early late mid circa around year and or between "
    "winter spring "
    "summer autumn fall ad".split()
)
VERB_S = frozenset("was is has as does its this his us thus plus yes versus across".split())
IRREGULAR_PLURALS = frozenset("people men women children feet teeth mice sheep fish".split())

_PER = "|".join(sorted(map(re.escape, PER), key=len, reverse=True))
_UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_SIGN = "[" + "".join(MONEY) + "]"


def _plural(unit: str) -> str:
    """ "mile per hour" → "miles per hour", "square foot" → "square feet"."""
    if unit in ("hertz", "kilohertz", "megahertz", "gigahertz", "horsepower"):
        return unit
    head, per, rest = unit.partition(" per ")
    words = head.split(" ")
    position = 0 if words[0] == "degree" else -1
    words[position] = {"foot": "feet", "inch": "inches"}.get(words[position], words[position] + "s")
    return " ".join(words) + per + rest


def _money(sign: str, amount: str, scale: str, *, singular: bool = False) -> str:
    one, many, cent, cents = MONEY[sign]
    whole, _, fraction = amount.replace(",", "").partition(".")
    if scale or (fraction and (len(fraction) != 2 or not cent)):
        said = f"{numbers.number(amount)} {scale}".rstrip()
        return f"{said} {one if singular else many}"
    units = int(whole[:7] or "0")
    parts = []
    if units or not int(fraction or "0"):
        parts.append(f"{numbers.cardinal(whole or '0')} {one if singular or whole == '1' else many}")
    if int(fraction or "0"):
        parts.append(f"{numbers.cardinal(fraction.lstrip('0'))} {cent if fraction == '01' else cents}")
    return " and ".join(parts)


def _scale(text: str | None) -> str:
    return SCALES.get((text or "").lower(), (text or "").lower())


def _sign_first(match: re.Match[str]) -> str:
    article, minus, country, sign, amount, last, scale, per = match.groups()
    rest = match.string[match.end() : match.end() + 2]
    singular = bool(article) and (rest[:1] == "-" or (rest[:1] == " " and rest[1:].islower())) and not per
    money = _money(sign, last or amount, _scale(scale), singular=singular)
    if country:
        head, _, tail = money.rpartition(" ")
        money = f"{head} {COUNTRIES[country]} {tail}"
    if last:
        money = f"{numbers.number(amount)} to {money}"
    return (article or "") + ("minus " if minus else "") + money + (f" per {PER[per]}" if per else "")


def _sign_last(match: re.Match[str]) -> str:
    amount, scale, sign = match.groups()
    return _money(CODES.get(sign, sign), amount, _scale(scale))


def _measure(match: re.Match[str]) -> str:
    minus, amount, joint, unit, per = match.groups()
    if unit == "s" and not joint:
        return match.group()
    singular = joint == "-" or amount == "1"
    said = UNITS[unit] if singular else _plural(UNITS[unit])
    # The full stop of an abbreviated unit may be the sentence's own.
    end = "." if unit.endswith(".") and not match.string[match.end() :].strip("\"') ") else ""
    return ("minus " if minus else "") + f"{numbers.number(amount)} {said}" + (f" per {PER[per]}" if per else "") + end


def _range(match: re.Match[str]) -> str:
    first, mark, last = match.groups()
    minus = mark == " - " and "=" in match.string[match.end() : match.end() + 40]
    return f"{first} minus {last}" if minus else f"{first} to {last}"


def _fraction(match: re.Match[str]) -> str:
    whole, top, bottom, unit = match.groups()
    if unit:
        return f"{_say_fraction(whole, top, bottom)} {_plural(UNITS[unit]) if whole else UNITS[unit]}"
    return _say_fraction(whole, top, bottom)


def _say_fraction(whole: str | None, top: str, bottom: str) -> str:
    if not whole and (top, bottom) in (("24", "7"), ("9", "11"), ("50", "50"), ("20", "20")):
        return f"{numbers.cardinal(top)} {numbers.cardinal(bottom)}"
    above, below = int(top), int(bottom)
    if not (2 <= below <= 100 and (above < below or below <= 10) and above):
        said = f"{numbers.cardinal(top)} over {numbers.cardinal(bottom)}"
        return f"{numbers.cardinal(whole)} {said}" if whole else said
    name = {2: "half", 4: "quarter"}.get(below) or numbers.ordinal(bottom)
    if above > 1:
        name = "halves" if below == 2 else numbers.to_plural(name)
    said = f"{numbers.cardinal(top)} {name}"
    if whole:
        return f"{numbers.cardinal(whole)} and {'a' if above == 1 else numbers.cardinal(top)} {name}"
    return said


def _ordinal(match: re.Match[str]) -> str:
    return numbers.ordinal(match.group(1).replace(",", ""))


def _many(match: re.Match[str]) -> str:
    digits = match.group(1)
    if len(digits) == 4 and digits[3] == "0":
        return numbers.to_plural(numbers.year(digits))
    return numbers.to_plural(numbers.pairs(digits) if len(digits) == 3 else numbers.cardinal(digits))


def _short_year(match: re.Match[str]) -> str:
    digits = match.group(1)
    return f"oh {numbers.ONES[int(digits[1])]}" if digits[0] == "0" else numbers.cardinal(digits)


def _year(match: re.Match[str]) -> str:
    digits = match.group(1)
    before = match.string[max(0, match.start() - 20) : match.start()].rstrip(" ,(").rpartition(" ")[2].lower()
    after = re.match(r" ([a-z]{1,30})(?![A-Za-z])", match.string[match.end() : match.end() + 32])
    if not "1010" <= digits <= "2099":
        return digits
    if after and before not in YEAR_BEFORE:
        noun = after.group(1)
        if (noun.endswith("s") and noun not in VERB_S and not noun.endswith("ss")) or noun in IRREGULAR_PLURALS:
            return digits
    return numbers.year(digits)


def _era(match: re.Match[str]) -> str:
    before, digits, after = match.groups()
    said = numbers.year(digits) if len(digits) > 2 else numbers.cardinal(digits)
    return f"{spell(before.replace('.', ''))} {said}" if before else f"{said} {spell(after.replace('.', ''))}"


def _number(match: re.Match[str]) -> str:
    """A number; where letters touch it, apart from them."""
    text = match.string
    left = " " if match.start() and text[match.start() - 1].isalnum() else ""
    right = " " if text[match.end() : match.end() + 1].isalpha() else ""
    said = (
        f"point {numbers.digits(match.group()[1:])}"
        if left and match.group()[0] == "."
        else numbers.number(match.group())
    )
    return left + said + right


def _size(match: re.Match[str]) -> str:
    sides = (
        numbers.pairs(side) if len(side) in (3, 4) and side.isdigit() and side[0] != "0" else numbers.number(side)
        for side in match.group(1, 2)
    )
    return " by ".join(sides) + (" inches" if match.group(3) else "")


def _percent(match: re.Match[str]) -> str:
    return ("minus " if match.group(1) else "") + f"{numbers.number(match.group(2))} percent"


def _suffixed(match: re.Match[str]) -> str:
    return f"{numbers.number(match.group(1))} {SCALES[match.group(2).lower()]}"


def _mark(match: re.Match[str]) -> str:
    unit = "foot" if match.group(2) == "'" else "inch"
    return f"{numbers.number(match.group(1))} {unit if match.group(1) == '1' else _plural(unit)}"


def _scientific(match: re.Match[str]) -> str:
    power = ("minus " if match.group(2) == "-" else "") + numbers.cardinal(match.group(3))
    return f"{numbers.number(match.group(1))} times ten to the {power}"


def _feet(match: re.Match[str]) -> str:
    return f"{numbers.cardinal(match.group(1))} foot {numbers.cardinal(match.group(2))}"


_MINUS = r"(?:(?<![\w)\]])(-))?"
_SCALE_WORD = r"(?: ?(thousand|million|billion|trillion|[kKmMbBtT]|[mbt]n)(?![A-Za-z\d]))?"

MONEY_RULES: tuple[Rule, ...] = (
    (
        re.compile(
            rf"(?<![\w$])(?:([Aa]n? ))?(-)?(?:(US|U\.S\.|CA|C|AU|A|NZ|HK) ?(?=\$))?({_SIGN}) ?-?({NUMBER})"
            rf"(?: ?[-–—] ?{_SIGN}?({NUMBER}))?{_SCALE_WORD}(?:/({_PER})(?!\w)(?:\.(?= [a-z]))?)?"
        ),
        _sign_first,
    ),
    (re.compile(rf"{START}({NUMBER}){_SCALE_WORD} ?({_SIGN}|{'|'.join(CODES)})(?!\w)"), _sign_last),
)
MEASURES: tuple[Rule, ...] = (
    (
        re.compile(rf"(?<![\w/.,])(?:(\d++) )?+(\d{{1,4}})/(\d{{1,4}})(?![\d/]|[.,]\d)(?:[ -]?({_UNIT}))?(?![\w^°])"),
        _fraction,
    ),
    (re.compile(rf"(?<![\w.,/^-])({NUMBER})( ?[–—] ?|-| - )({NUMBER})(?!\d|[-/]\d|,\d)"), _range),
    (re.compile(r"(?<![\w.,])(\d{1,2})' ?(\d{1,2})(?:\"|''|(?![\w'.]))"), _feet),
    (re.compile(r"(?<![\w.,])(\d{1,2}) ?ft\.? (\d{1,2}) ?in\.?(?!\w)"), _feet),
    (re.compile(rf"{START}({NUMBER})\"? ?x ?({NUMBER})(\")?(?!\w)"), _size),
    (re.compile(rf"{START}({NUMBER})(['\"])(?= (?:tall|deep|high|long|wide|thick|x|by|screen|ruler)(?!\w))"), _mark),
    (re.compile(rf"{START}({NUMBER})e([+-]?)(\d{{1,3}})(?!\w)"), _scientific),
    (re.compile(rf"{START}({NUMBER})x(?!\w)"), lambda m: f"{numbers.number(m.group(1))} times"),
    (re.compile(rf"{_MINUS}{START}({NUMBER})( ?|-)({_UNIT})(?![\w^°])(?:/({_PER})(?!\w))?"), _measure),
    (re.compile(rf"{_MINUS}{START}({NUMBER}) ?%"), _percent),
    (re.compile(rf"(?<![\w.,-])({NUMBER})(k|[MB](?! [A-Z]))(?!\w)"), _suffixed),
    (re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})++|\d++)(?:st|nd|rd|th|ST|ND|RD|TH)(?!\w)"), _ordinal),
    (re.compile(r"(?<![\w.,])'?(\d{1,4})'?s(?!\w)"), _many),
    (re.compile(r"(?<![\w.,])'(\d\d)(?!\w)"), _short_year),
    (re.compile(r"(?<!\w)(?:[Nn]os?\. ?|#)(?=\d)"), lambda m: "numbers " if "s" in m.group() else "number "),
)  # fmt: skip
NUMBERS: tuple[Rule, ...] = (
    (re.compile(r"(?<!\w)(AD|A\.D\.) (\d{1,4})(?!\w)()"), _era),
    (re.compile(r"()(?<![\w,.])(\d{1,4}) (BCE?|AD|CE|B\.C\.(?:E\.)?|A\.D\.)(?!\w)"), _era),
    (re.compile(r"(?<![\w.,$-])(\d{4})(?!\w|[,.]\d)"), _year),
    (re.compile(r"(?<![\w)\].])-(?=\.?\d)"), lambda m: "minus "),
    (re.compile(NUMBER), _number),
)
