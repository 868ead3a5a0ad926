"""Written English → spoken English by ordered rules, each linear in the text: what comes first wins."""

from __future__ import annotations

import re

from melstate.tts.text import numbers
from melstate.tts.text.abbreviations import ABBREVIATIONS
from melstate.tts.text.addresses import ADDRESSES, CODES
from melstate.tts.text.characters import clean
from melstate.tts.text.dates import DATES, TIMES
from melstate.tts.text.lexicon import dictionary
from melstate.tts.text.quantities import MEASURES, MONEY_RULES, NUMBERS
from melstate.tts.text.rules import LETTER_A, Rule, apply, spell
from melstate.tts.text.sentences import split_sentences

# Listed as words, but in capitals amid small letters spelled.
SPELLED = frozenset(
    "US IT ID LA UN AI PA MA MD VA AL ED ER PR HR IQ EQ PT AC DC APT LED ATM TA RA EM PE "
    "PI ME OR ADD ACT SAT CAT".split()
)
# Spelled only where these stand before; else a word someone shouts.
SHOUTED = frozenset("IT WHO ME OR ADD ACT SAT CAT".split())
SPELLED_AFTER = frozenset("the an our your my his her their".split())
# One of these in capitals shows that a sentence shouts.
SHOUTED_WORDS = frozenset(
    "THE AND OF TO IS IN YOU FOR ON WITH THIS NOT WE ARE WAS THAT MY YOUR NO MY BE HAVE GO DO STOP HE SHE".split()
)
READ_AS = {
    "WWII": "World War two", "WWI": "World War one", "Ctrl": "control", "CoV": "cov", "PhD": "P H D", "PhDs": "P H D's",
    "JPEG": "jpeg", "pH": "P H", "OK": "okay", "ok": "okay", "IEEE": "I triple E", "iOS": "I O S", "macOS": "mac O S",
    "mRNA": f"M R N {LETTER_A}", "LaTeX": "lay tech", "SQL": "S Q L", "CEOs": "C E O's", "ID": "I D", "IDs": "I D's",
    "TVs": "T V's", "www": "W W W", "AIs": f"{LETTER_A} I's", "COVID": "covid",
}  # fmt: skip
_SHOUT_WORD = re.compile(r"[A-Z]{2,}")
_MIXED = re.compile(r"(?<![A-Za-z\d])[A-Za-z\d]++(?:(?:-|\.(?=\d))[A-Za-z\d]++)*+(?!['A-Za-z\d])")
_PIECES = re.compile(r"\d++(?:\.\d++)?+|[A-Za-z]++")
_WORD = re.compile(r"(?<![A-Za-z'])[A-Za-z]++(?:'[A-Za-z]++)?+")
_HUMPS = re.compile(r"[A-Z]++(?=[A-Z][a-z])|[A-Z]?[a-z]++|[A-Z]++")
_MODELS = frozenset(
    "Boeing Airbus Flight flight Route route Highway Interstate Room room Porsche Pentium Apartment Suite".split()
)


def normalize(text: str) -> str:
    """Spoken form of a text: numbers, abbreviations and symbols in words, one line a line.

    The front end normalises each sentence by itself; so does this. Time is linear in the text.

    Warns:
        TextWarning: characters were left out or read by their Latin spelling.
    """
    lines = (" ".join(map(spoken, split_sentences(line))) for line in clean(text).splitlines())
    return "\n".join(line for line in lines if line).replace(LETTER_A, "A")


def spoken(sentence: str) -> str:
    """Spoken form of one cleaned sentence, the letter A marked as LETTER_A where it is spelled."""
    text = " ".join(sentence.split())
    if _shouts(text):
        text = _SHOUT_WORD.sub(lambda match: _unshout(match.group()), text)
    return " ".join(apply(text, RULES).split())


def _shouts(text: str) -> bool:
    """Whether capitals are the writer's voice: hardly any small letters, and words that are no acronyms."""
    words = _SHOUT_WORD.findall(text)
    return sum(map(str.islower, text)) * 4 < sum(map(len, words)) and not SHOUTED_WORDS.isdisjoint(words)


def _unshout(word: str) -> str:
    return word.lower() if word.lower() in dictionary() or len(word) > 4 else word


def say_word(match: re.Match[str]) -> str:
    """A word as it is said: acronyms spelled, brand names split where a capital starts a part."""
    word = match.group()
    if word in READ_AS:
        return READ_AS[word]
    stem, mark, tail = word.partition("'")
    lowered = stem.lower()
    plural = stem[-1] == "s" and len(stem) > 2 and stem[:-1].isupper()
    core = stem[:-1] if plural else stem
    ending = "'s" if plural else mark + tail
    if len(stem) == 1 or stem[1:].islower() or stem.islower():
        # A word in small letters without a vowel cannot be read.
        if (
            len(stem) > 1
            and lowered not in dictionary()
            and not set(lowered) & set("aeiouy")
            and len(stem) < 6
            and lowered not in _SOUNDS
        ):
            return spell(stem) + mark + tail
        return word
    if core.isupper():
        before = _before(match)
        spelled = core not in SHOUTED or before.lower() in SPELLED_AFTER or (len(before) > 1 and before.isupper())
        if core in SPELLED | SHOUTED and spelled and tail not in ("ll", "d", "re"):
            return spell(core) + ending
        if lowered in dictionary():
            return word
        if core.lower() in dictionary() and len(core) > 2 and core not in SPELLED:
            return core + ending
        if len(core) < 5 or not set(core) & set("AEIOUY"):
            return spell(core) + ending
        return core + ending
    if lowered in dictionary() or stem[:2] in ("Mc", "De", "La", "Le") or stem[:3] == "Mac":
        return word
    parts = _HUMPS.findall(stem)
    return (
        " ".join(
            spell(part) if part.isupper() and len(part) > 1 and part.lower() not in dictionary() else part
            for part in parts
        )
        + mark
        + tail
    )


# Written sounds without a vowel; other such words are spelled.
_SOUNDS = frozenset("hmm mm mmm shh psst brr pfft grr tsk ssh zzz hm sh".split())


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 20) : match.start()].rstrip(" ,").rpartition(" ")[2]


def _mixed(match: re.Match[str]) -> str:
    """Letters and digits in one token: "GPT-4" → "G P T four", "B2B" → "B two B", "5-year-old" → "five year old"."""
    token = match.group()
    if token == "911":
        return numbers.digits(token)
    if token.isdigit():
        before = match.string[max(0, match.start() - 20) : match.start()].rstrip().rpartition(" ")[2]
        model = before in _MODELS if len(token) == 3 else len(token) == 4 and len(before) > 1 and before.isupper()
        return numbers.pairs(token) if model and token[0] != "0" and before not in ("AD", "BC", "BCE", "CE") else token
    if token.isalpha() or not any(map(str.isdigit, token)):
        return token
    if token.replace("-", "").replace(".", "").isdigit():
        return token
    words: list[str] = []
    for piece in _PIECES.findall(token):
        if piece == "s" and words and token[-2:-1].isdigit():
            words[-1] = numbers.to_plural(words[-1])
        elif piece.isalpha():
            short = len(piece) <= 3 and (piece.lower() not in dictionary() or piece.isupper() or len(piece) == 1)
            words.append(READ_AS.get(piece) or (spell(piece) if short else piece))
        elif "." in piece:
            words.append(numbers.number(piece))
        elif len(piece) in (3, 4) and piece[0] != "0" and not token[0].isdigit():
            words.append(numbers.pairs(piece))
        else:
            words.append(numbers.cardinal(piece) if len(piece) < 5 else numbers.digits(piece))
    return " ".join(words)


def _state(match: re.Match[str]) -> str:
    return f", {spell(match.group(1))}" + (f" {numbers.digits(match.group(2))}" if match.group(2) else "")


MIXED: tuple[Rule, ...] = (
    (re.compile(r"(?<!\w)([A-Z]{1,3})&([A-Z]{1,2})(?!\w)"), lambda m: f"{spell(m.group(1))} and {spell(m.group(2))}"),
    (re.compile(r", ([A-Z]{2})(?: (\d{5}))(?!\d)"), _state),
    (re.compile(r"(?<![\w.,])(\d{3,4})p(?!\w)"), lambda m: f"{numbers.pairs(m.group(1))} P"),
    (_MIXED, _mixed),
)
# Before numbers are read: what tells how.
RELATIONS: tuple[Rule, ...] = (
    # Markdown and rulers of marks are not spoken.
    (re.compile(r"\*\*++|__++|==++|~~++|##++|``++|\|\|++"), lambda m: " "),
    (re.compile(r"-{2,}+|—|–| - "), lambda m: " — "),
    (re.compile(r"(?<!\.)\.{2,}+(?= [a-z])"), lambda m: ","),
    (re.compile(r"\.{2,}+"), lambda m: "."),
    (re.compile(r"(?<=[a-zA-Z\d)])\^2(?!\d)"), lambda m: " squared"),
    (re.compile(r"(?<=[a-zA-Z\d)])\^3(?!\d)"), lambda m: " cubed"),
    (re.compile(r"(?<=[a-zA-Z\d)])\^(?=[-\da-z(])"), lambda m: " to the power of "),
    (re.compile(r"!="), lambda m: " is not equal to "),
    (re.compile(r"<="), lambda m: " is at most "),
    (re.compile(r">="), lambda m: " is at least "),
    (re.compile(r"(?<=[\w)] )<(?= [\d(]| [a-z](?!\w))|(?<=[\w)])<(?=\d)"), lambda m: " less than "),
    (re.compile(r"(?<=[\w)] )>(?= [\d(]| [a-z](?!\w))|(?<=[\w)])>(?=\d)"), lambda m: " greater than "),
)
SYMBOLS: tuple[Rule, ...] = (
    (re.compile(r"(?<![A-Za-z\d])([A-G])#(?!\w)"), lambda m: f"{m.group(1)} sharp"),
    (re.compile(r"(?<![A-Za-z\d])([A-F])-(?![\w-])"), lambda m: f"{m.group(1)} minus"),
    (re.compile(r"&"), lambda m: " and "),
    (re.compile(r"%"), lambda m: " percent "),
    (re.compile(r"\+"), lambda m: " plus "),
    (re.compile(r"="), lambda m: " equals "),
    (re.compile(r"~(?= ?\.?\d)"), lambda m: "about "),
    (re.compile(r"(?<=[\da-z] )\*(?= [\da-z])|(?<=[\da-z])\*(?=[\da-z])"), lambda m: " times "),
    (re.compile(r"(?<=[A-Za-z\d])\.(?=[a-z\d])"), lambda m: " dot "),
    (re.compile(r"(?<=and)/(?=or)"), lambda m: " "),
    (re.compile(r"/"), lambda m: " slash "),
    (re.compile(r"@"), lambda m: " at "),
    (re.compile(r"#(?=[A-Za-z])"), lambda m: " hash "),
    (re.compile(r"\$"), lambda m: " dollars "),
    (re.compile(r"£"), lambda m: " pounds "),
    (re.compile(r"€"), lambda m: " euros "),
    (re.compile(r"°"), lambda m: " degrees "),
    (re.compile(r"_|\||\\|\^|~|`|<|>|\*|#"), lambda m: " "),
)
RULES: tuple[Rule, ...] = (
    *ADDRESSES,
    *DATES,
    *TIMES,
    *CODES,
    *MONEY_RULES,
    *MEASURES,
    *ABBREVIATIONS,
    *MIXED,
    *RELATIONS,
    *NUMBERS,
    *SYMBOLS,
    (_WORD, say_word),
)
