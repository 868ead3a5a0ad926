"""Abbreviations, initials and roman numerals in words."""

from __future__ import annotations

import re

from melstate.tts.text import numbers
from melstate.tts.text.rules import Rule, spell, stop

# Read so wherever they stand; the full stop may be missing.
ANYWHERE = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Ms", "Messrs": "Messers", "Jr": "Junior", "Sr": "Senior", "vs": "versus",
    "etc": "et cetera", "Blvd": "Boulevard", "approx": "approximately",
    "Approx": "Approximately", "dept": "department", "Dept": "Department",
    "Pkwy": "Parkway", "Hwy": "Highway", "Bros": "Brothers", "Univ": "University", "Prof": "Professor",
}  # fmt: skip
# Read so only with their full stop.
WITH_STOP = {
    "e.g": "for example", "i.e": "that is", "v": "versus", "cf": "compare", "viz": "namely", "ca": "circa", "al": "al",
    "Ave": "Avenue", "Rd": "Road", "Ln": "Lane", "Inc": "Incorporated", "Corp": "Corporation", "Ltd": "Limited",
    "Co": "Company", "Assn": "Association", "est": "established", "Est": "Established", "apt": "apartment",
    "Apt": "Apartment",
    "min": "minimum", "max": "maximum", "avg": "average", "temp": "temperature", "tel": "telephone", "Tel": "Telephone",
    "ext": "extension", "Ext": "Extension", "misc": "miscellaneous", "govt": "government", "Govt": "Government",
    "Esq": "Esquire", "Ph.D": "P H D", "PhD": "P H D", "orig": "original", "ibid": "ibid", "incl": "including",
    "Hon": "Honorable", "Mt": "Mount", "Ft": "Fort",
}  # fmt: skip
# Titles before a name, with a full stop.
TITLES = {
    "Rev": "Reverend", "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Cpt": "Captain", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Cpl": "Corporal", "Pvt": "Private", "Cmdr": "Commander", "Adm": "Admiral", "Maj": "Major",
    "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Pres": "President", "Supt": "Superintendent",
    "Fr": "Father", "Br": "Brother", "Hon": "Honorable", "Mme": "Madame", "Mlle": "Mademoiselle", "Insp": "Inspector",
}  # fmt: skip
# Before a number, with a full stop.
NUMBERED = {
    "vol": "volume", "ch": "chapter", "chap": "chapter", "fig": "figure", "figs": "figures", "sec": "section",
    "pp": "pages", "p": "page", "pg": "page", "ed": "edition", "art": "article", "eq": "equation", "ver": "version",
    "c": "circa", "ca": "circa", "op": "opus", "pt": "part", "rm": "room", "apt": "apartment", "ste": "suite",
    "ext": "extension",
}  # fmt: skip
WITH_SLASH = {
    "w/o": "without", "b/c": "because", "c/o": "care of", "n/a": "not applicable", "N/A": "not applicable"
}  # fmt: skip
KINGS = frozenset(
    "Henry Louis George Edward Richard Charles James William Elizabeth Mary Paul Pius Leo Benedict Gregory Innocent "
    "Napoleon "
    "Philip Ferdinand Frederick Catherine Alexander Nicholas Peter Ivan Ramses Ramesses Ptolemy Francis Otto Rama "
    "Darius "
    "Xerxes Clement Urban Carlos Felipe Haakon Harald Christian Gustav Gustaf Carl Albert Wilhelm Baldwin Malcolm "
    "Robert "
    "Kenneth Constantine Theodosius John Stephen Alfonso Leopold Maximilian Joseph Umberto Victor Emmanuel Mehmed "
    "Murad "
    "Selim Cleopatra Thutmose Amenhotep Boniface Sixtus Julius Adrian Celestine Eugene Juan Manuel Olaf Erik Eric "
    "Sigismund "
    "Casimir Antiochus Seleucus Artaxerxes Mithridates David Alexius Michael Basil Leo Margrethe Pedro".split()
)
NUMBERED_BY_ROMAN = frozenset(
    "War Chapter Part Volume Act Scene Book Section Article Title Phase Type Class Stage Level Grade Appendix "
    "Figure Table "
    "Bowl Rocky Fantasy Episode Wars Apollo Mark Schedule Tier Day Canto Psalm Amendment Round Unit Lesson Step "
    "Vatican Saturn "
    "chapter part volume act scene book section article title phase type class stage level grade appendix figure table "
    "episode mark schedule tier unit lesson round".split()
)

_DOCTOR = re.compile(r"(?<![\w.])(Dr|St)(?:\.|(?= [A-Z]))(?!\w)")
_ROMAN = re.compile(
    r"(?<![\w.'-])([A-Z]?[a-z]{1,30}) ([IVXLCDM]{1,15})(?:('s)|(th|st|nd|rd))?(?![\w'-])(\.(?= [A-Z]))?"
)
_ROMAN_YEAR = re.compile(r"(?<![\w.'-])(M[MDCLXVI]{3,14})(?![\w'-])")
_INITIALS = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}+(?:[A-Z](?![\w.]))?+('s)?")
_INITIAL = re.compile(r"(?<![\w.'])([A-Z])\.(?= [A-Z])")


def _word_before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 40) : match.start()].rstrip().rpartition(" ")[2]


def _doctor(match: re.Match[str]) -> str:
    """Dr. and St.: a title before a name, a street after one."""
    before = _word_before(match)
    after = match.string[match.end() : match.end() + 2]
    street = ("Drive" if match.group(1) == "Dr" else "Street") + stop(match)
    title = "Doctor" if match.group(1) == "Dr" else "Saint"
    ordinal = before.endswith(("th", "first", "second", "third")) and not before[:1].isupper()
    named = (
        before[:1].isupper() and before[-1:].isalnum() and before.lower() not in ("the", "and", "to", "in", "at", "of")
    )
    if after[:1] == " " and after[1:].isupper():
        return street if ordinal else title
    return street if named or ordinal else title


def _roman(match: re.Match[str]) -> str:
    name, numeral, owner, suffix, _ = match.groups()
    value = numbers.from_roman(numeral)
    if value is None or value > 4000:
        return match.group()
    end = match.group(5) or ""
    if name in NUMBERED_BY_ROMAN or suffix:
        said = numbers.cardinal(str(value))
        return f"{name} {numbers.to_ordinal(said) if suffix else said}{owner or ''}{end}"
    if (
        name in KINGS
        and (numeral != "I" or match.string[match.end() : match.end() + 2][1:2].islower() or owner)
        and value < 50
    ):
        if numeral == "I" and not owner and _pronoun(match):
            return match.group()
        return f"{name} the {numbers.ordinal(str(value))}{owner or ''}{end}"
    if name[0].isupper() and numeral in ("II", "III", "IV", "VI", "VII", "VIII", "IX"):
        ordinal = _word_before(match)[:1].isupper()
        said = f"the {numbers.ordinal(str(value))}" if ordinal else numbers.cardinal(str(value))
        return f"{name} {said}{owner or ''}{end}"
    return match.group()


def _pronoun(match: re.Match[str]) -> bool:
    """Whether the I after a name is the speaker: "Paul I know" but "Charles I was"."""
    after = match.string[match.end() : match.end() + 20].split(" ")
    return len(after) < 2 or after[1].strip(",.;") not in (
        "was",
        "of",
        "and",
        "had",
        "ruled",
        "reigned",
        "died",
        "became",
        "is",
        "in",
        "by",
    )


def _roman_year(match: re.Match[str]) -> str:
    value = numbers.from_roman(match.group(1))
    return numbers.year(str(value)) if value and value < 2100 else match.group()


def _initials(match: re.Match[str]) -> str:
    letters = "".join(letter for letter in match.group().removesuffix("'s") if letter.isalpha())
    end = "" if match.group(1) else stop(match)
    return spell(letters) + (match.group(1) or "") + end


def _table(table: dict[str, str], pattern: str) -> Rule:
    keys = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    return re.compile(pattern.format(keys=keys)), lambda match: table[match.group(1)] + stop(match)


def _numbered(match: re.Match[str]) -> str:
    word = NUMBERED[match.group(1).lower()]
    return (word.capitalize() if match.group(1)[0].isupper() else word) + " "


ABBREVIATIONS: tuple[Rule, ...] = (
    _table(dict.fromkeys(("a.k.a", "A.K.A", "aka"), "also known as"), r"(?<![\w.])({keys})\.?(?!\w)"),
    _table(WITH_SLASH, r"(?<![\w/])({keys})(?![\w/])"),
    (re.compile(r"(?<![\w/])w/ ?(?=[A-Za-z])"), lambda match: "with "),
    (re.compile(r"(?<![\w.])(" + "|".join(NUMBERED) + r")\. ?(?=\d)", re.IGNORECASE), _numbered),
    _table(TITLES, r"(?<![\w.])({keys})\.(?!\w)"),
    _table(ANYWHERE, r"(?<![\w.'])({keys})(?:\.|(?![\w'.]))"),
    _table(WITH_STOP, r"(?<![\w.'])({keys})\.(?!\w)"),
    (_DOCTOR, _doctor),
    (_INITIALS, _initials),
    (_INITIAL, lambda match: spell(match.group(1))),
    (_ROMAN, _roman),
    (_ROMAN_YEAR, _roman_year),
)  # fmt: skip
