"""Any Unicode text → the characters the normaliser knows, with a warning that names what was lost."""

from __future__ import annotations

import unicodedata
import warnings

from anyascii import anyascii

# How many kinds of characters a warning names.
NAMED = 5

# Beside printable ASCII the normaliser reads these; currency signs first.
CURRENCY = "£€¥¢₹₽₩₺₿"
KEPT = CURRENCY + "—–°"

# Marks whose ASCII spelling is not what is said.
SPELLED = {
    **dict.fromkeys("‘’‛ʼʹ′`´", "'"),
    **dict.fromkeys("“”„‟«»″〝〞「」『』", '"'),
    **dict.fromkeys("‐‑‒", "-"),
    **dict.fromkeys("―⸺⸻", "—"),
    "−": "-",
    "⁄": "/",
    "…": "...",
    **dict.fromkeys("•‣◦▪●·∙", ", "),
    **dict.fromkeys("，、،﹐", ", "),
    **dict.fromkeys("。．｡", ". "),
    "？": "? ",
    "！": "! ",
    "：": ": ",
    "；": "; ",
    "؟": "? ",
    "¿": " ",
    "¡": " ",
    "™": "",
    "®": "",
    "©": " copyright ",
    "§": " section ",
    "¶": " paragraph ",
    "№": " No. ",
    "±": " plus or minus ",
    "×": " times ",
    "÷": " divided by ",
    "≈": " approximately ",
    "≠": " is not equal to ",
    "≤": " is at most ",
    "≥": " is at least ",
    "∞": " infinity ",
    "√": " square root of ",
    "→": " to ",
    "‰": " per mille ",
    "†": " ",
    "‡": " ",
    "µ": "u",
    "℃": "°C",
    "℉": "°F",
    "º": "°",
    "ª": "a",
}
# What a superscript says is decided where its base is known.
SUPERSCRIPT = {character: f"^{digit}" for digit, character in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}


class TextWarning(UserWarning):
    """Characters of a text were left out or read by their Latin spelling."""


def clean(text: str) -> str:
    """Printable ASCII, KEPT and line breaks only; accents fall, other scripts are read by their Latin spelling.

    Warns:
        TextWarning: once, naming the first kinds of characters left out or transliterated.
    """
    table: dict[int, str] = {}
    dropped: list[str] = []
    foreign: list[str] = []
    # Only kinds are looked at, so a long text costs one pass in C.
    for character in sorted(set(text)):
        if not " " <= character <= "~":
            table[ord(character)] = _replace(character, dropped, foreign)
    if dropped or foreign:
        said = [f"left out {_names(dropped)}"] if dropped else []
        said += [f"read by their Latin spelling {_names(foreign)}"] if foreign else []
        warnings.warn("; ".join(said), TextWarning, stacklevel=3)
    return text.replace("\r\n", "\n").translate(table) if table else text


def _replace(character: str, dropped: list[str], foreign: list[str]) -> str:
    """What stands for a character; notes it if it is lost or read by a Latin spelling."""
    category = unicodedata.category(character)
    if character in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        return "\n"
    if character == "\t" or category == "Zs":
        return " "
    if character in KEPT:
        return character
    for known in (SPELLED, SUPERSCRIPT):
        if character in known:
            return known[character]
    # Accents stand on a letter that is read; a soft hyphen and emoji joiners say nothing by design.
    if category in ("Mn", "Me", "Mc") or character in "\u00ad\u200d":
        return anyascii(character) if category == "Mc" else ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")
    if category[0] in "LNP":
        name = unicodedata.name(character, "")
        spelled = anyascii(unicodedata.normalize("NFKC", character))
        if category[0] == "L" and name.startswith("GREEK"):
            spelled = anyascii(character)
        if spelled.strip():
            if category[0] == "L" and not name.startswith(("LATIN", "FULLWIDTH LATIN", "MATHEMATICAL", "FEMININE")):
                foreign.append(character)
            return spelled
    dropped.append(character)
    return "" if category[0] == "C" else " "


def _names(characters: list[str]) -> str:
    named = ", ".join(f"U+{ord(one):04X} {unicodedata.name(one, 'without a name')}" for one in characters[:NAMED])
    return named + (f" and {len(characters) - NAMED} more kinds" if len(characters) > NAMED else "")
