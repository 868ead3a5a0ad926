"""Words of one spelling and several pronunciations, told apart by their neighbours.

Each family has a reading when the word acts as a verb and one when it does not; which it is follows from the words
around it, the way one would guess a part of speech at a glance. Mostly right, never always: inline phones help.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from melstate.tts.text.lexicon import Lexicon, Phones, add_s
from melstate.tts.text.symbols import is_vowel, parse_phones

# Stressed on the first syllable as nouns and adjectives, later as verbs.
STRESS = frozenset(
    "record object project permit conduct conflict contract contrast convict decrease increase defect digest "
    "discount export "
    "import extract insert insult impact incline produce progress protest rebel reject research subject survey suspect "
    "transfer transport torment upset attribute combine compact compound compress console construct converse escort "
    "ferment "
    "implant abstract excerpt refuse present desert".split()
)
# Adjectives or nouns with a weak last vowel, verbs with a full one.
ATE = frozenset(
    "advocate estimate graduate associate delegate duplicate moderate separate alternate deliberate elaborate "
    "appropriate "
    "intimate animate articulate coordinate aggregate approximate subordinate degenerate predicate syndicate".split()
)
# word: (noun or adjective, verb)
PAIRS = {
    "use": ("Y UW1 S", "Y UW1 Z"),
    "uses": ("Y UW1 S IH0 Z", "Y UW1 Z IH0 Z"),
    "excuse": ("IH0 K S K Y UW1 S", "IH0 K S K Y UW1 Z"),
    "excuses": ("IH0 K S K Y UW1 S IH0 Z", "IH0 K S K Y UW1 Z IH0 Z"),
    "abuse": ("AH0 B Y UW1 S", "AH0 B Y UW1 Z"),
    "abuses": ("AH0 B Y UW1 S IH0 Z", "AH0 B Y UW1 Z IH0 Z"),
    "house": ("HH AW1 S", "HH AW1 Z"),
    "houses": ("HH AW1 Z IH0 Z", "HH AW1 Z IH0 Z"),
    "close": ("K L OW1 S", "K L OW1 Z"),
    "perfect": ("P ER1 F IH0 K T", "P ER0 F EH1 K T"),
    "wind": ("W IH1 N D", "W AY1 N D"),
    "winds": ("W IH1 N D Z", "W AY1 N D Z"),
    "lives": ("L AY1 V Z", "L IH1 V Z"),
    "tear": ("T IH1 R", "T EH1 R"),
    "tears": ("T IH1 R Z", "T EH1 R Z"),
    "resume": ("R EH1 Z AH0 M EY2", "R IH0 Z UW1 M"),
    "frequent": ("F R IY1 K W AH0 N T", "F R IY0 K W EH1 N T"),
    "invalid": ("IH0 N V AE1 L AH0 D", "IH1 N V AH0 L AH0 D"),
    "content": ("K AA1 N T EH0 N T", "K AH0 N T EH1 N T"),
}
# Where the neighbours say nothing, these are verbs; the others are not.
USUALLY_VERBS = frozenset("use excuse lives refuse resume".split()) | frozenset(
    "suspect insert combine compress construct converse extract reject".split()
)

BEFORE_VERB = frozenset(
    "to will would can could shall should may might must do does did don't doesn't didn't won't can't couldn't "
    "wouldn't shouldn't "
    "cannot i you we they who not never always often please let's i'll you'll we'll they'll he'll she'll i'd you'd "
    "we'd they'd "
    "he'd she'd help helps let lets make makes and-then then gonna wanna people".split()
)
BEFORE_NOUN = frozenset(
    "a an the this that these those my your his her its our their no any some each every another other of in on at "
    "for with "
    "from by without under into through during per one two three four five six seven eight nine ten many few "
    "several most all "
    "such first second third last next new old own good bad great big small public best high low little long short "
    "world whole "
    "as very so too more less quite perfectly is was are were be been being".split()
)
BEFORE_THIRD_PERSON = frozenset(
    "he she it who which that this also never always often sometimes usually rarely everyone nobody".split()
)
OBJECTS = frozenset("the a an this these those my your his her its our their him them me us it you".split())
DETERMINERS = frozenset(
    "a an the this that these those my your his her its our their no any some each every another".split()
)
LINKING = frozenset(
    "is was are were be been being am feel feels felt seem seems seemed look looks very so too how as not more "
    "quite pretty "
    "really come came comes get gets got stay stayed keep kept stand stood sit sat draw drew hold held".split()
)
MODALS = frozenset(
    "to will would can could shall should may might must do does did don't doesn't didn't won't can't couldn't "
    "wouldn't "
    "shouldn't cannot please let's i'll you'll we'll they'll he'll she'll i'd we'd they'd always "
    "usually often never".split()
)
PAST_MARKERS = frozenset("yesterday ago was were had last once before earlier already".split())
PRESENT_MARKERS = frozenset("every always usually often never now daily sometimes today want".split())

# Neighbours of single words.
CLOSERS = frozenset("to will must can could should would please not don't didn't i we they you".split())
ADVERBS = frozenset("up down apart off out away open it them my your through into the at".split())
EYES = frozenset("his her my your their the".split())
TEARABLE = "fabric shirt dress paper cloth sail muscle ligament sleeve curtain"
SAVED = frozenset("save saves saved lost human lose cost private daily people's and risk".split())
WINDING = frozenset("up down back around round along through its your it past tightly the a his her".split())
METAL = frozenset(
    "pipe pipes paint poisoning pencil pencils bullet bullets acid ore battery batteries shot free lined levels "
    "exposure crystal "
    "weight weights sinker glass dust content".split()
)
OTHER_METALS = frozenset("iron copper zinc tin mercury silver gold steel cadmium".split())
OF_METAL = frozenset("of molten heavy contain contains contained like red white".split())
ON_AIR = frozenset(
    "music show shows concert concerts broadcast broadcasts performance performances audience tv television stream "
    "streams "
    "streaming video coverage event events animals bait ammunition wire wires action recording recordings album "
    "band radio "
    "report feed chat wildlife birds chickens lobster updates demo demonstration".split()
)
GO_LIVE = frozenset(
    "go goes going went gone broadcast streamed streaming performed played recorded watch reporting".split()
)
ARCHERY = (
    "arrow arrows string strings violin cello fiddle ribbon ribbons hair tie knot archer hunter quiver shot bass gift"
)
DIVES = frozenset("into in down under off for deep headfirst straight through beneath right below".split())
DIVERS = frozenset("i he she we they who it".split())
TINY = frozenset(
    "amount amounts detail details quantity quantities particle particles difference differences fraction fractions "
    "change "
    "changes traces inspection examination".split()
)
FISHING = "fish fishing caught fisherman lake largemouth sea trout river boat grilled pond"
SCHOLARS = frozenset("man men friend scholar judge society woman counsel".split())
NEARER = frozenset("look to one examination inspection it we you they he she i".split())


class Context:
    """The words around one word, in small letters; "" past a punctuation mark or an end."""

    def __init__(self, words: Sequence[str], index: int) -> None:
        self.words = words
        self.word = words[index]
        self.before = words[index - 1] if index else ""
        self.before2 = words[index - 2] if index > 1 and self.before else ""
        self.after = words[index + 1] if index + 1 < len(words) else ""
        self.after2 = words[index + 2] if index + 2 < len(words) and self.after else ""

    def near(self, words: str) -> bool:
        """Whether one of the words stands among the eight before and the eight after."""
        return not set(words.split()).isdisjoint(self.words)


def choose(lexicon: Lexicon, words: Sequence[str], index: int) -> Phones | None:
    """Pronunciation of words[index] by context, or None if it has only one.

    Args:
        words: a stretch of words of the sentence as written; "" stands for a punctuation mark.
    """
    written = words[index]
    word = written.lower()
    if word not in _HOMOGRAPHS and word not in SPECIAL:
        return None
    start = max(0, index - 8)
    around = [one.lower() for one in words[start : index + 9]]
    context = Context(around, index - start)
    if word in SPECIAL:
        if word == "polish":
            capital = written[0].isupper() and index > 0 and words[index - 1] != ""
            return parse_phones(
                "P OW1 L IH0 SH" if capital or context.after in ("people", "language", "army") else "P AA1 L IH0 SH"
            )
        if word == "the":
            following = words[index + 1] if index + 1 < len(words) else ""
            phones = lexicon.pronounce(following) if following else None
            return ("DH", "IY0") if phones and is_vowel(phones[0]) else ("DH", "AH0")
        return parse_phones(SPECIAL[word](context))
    return _readings(word)[_is_verb(context)]


def _is_verb(context: Context) -> bool:
    word, before, after = context.word, context.before, context.after
    if word in _OWN_RULES:
        return _OWN_RULES[word](context)
    if word == "lives" and before in SAVED:
        return False
    if word == "present" and (before in ("at", "those", "everyone", "all") or before in LINKING):
        return False
    if word.endswith("s") and word not in ("progress", "compress"):
        if before in BEFORE_NOUN and before not in ("that", "this"):
            return False
        return before in BEFORE_THIRD_PERSON or (after in OBJECTS and after != "that") or _usually_verb(word)
    if before in BEFORE_VERB:
        return True
    if before in BEFORE_NOUN or before.endswith("'s"):
        return False
    return (after in OBJECTS and word not in ("perfect", "compact", "abstract")) or _usually_verb(word)


def _content(context: Context) -> bool:
    """The second reading is the adjective."""
    before, after = context.before, context.after
    return before not in DETERMINERS and before not in ("of", "any") and (before in LINKING or after in ("to", "with"))


def _invalid(context: Context) -> bool:
    """The second reading is the person."""
    return context.before in ("an", "the") and context.after in ("", "was", "is", "had", "who", "and")


def _close(context: Context) -> bool:
    """ "close the door", "the close of day" (sounds like the verb) against "close to me", "a close friend"."""
    before, after = context.before, context.after
    if before in CLOSERS:
        return after != "to" or before == "to"
    if before in LINKING:
        return False
    if before in DETERMINERS:
        return after == "of" or (before == "the" and after == "")
    return after in OBJECTS or (before == "" and after not in ("to", "by", "up"))


def _tear(context: Context) -> bool:
    """Rip against weep: "a tear in his eye" but "a tear in the fabric"."""
    before, after = context.before, context.after
    if before in BEFORE_VERB or after in ADVERBS:
        return True
    return after == "in" and (context.after2 not in EYES or context.near(TEARABLE))


def _tears(context: Context) -> bool:
    return context.after in ADVERBS and context.before not in DETERMINERS | {"in", "of", "with", "into"}


def _wind(context: Context) -> bool:
    before = context.before
    return (
        context.after in WINDING
        and before not in BEFORE_NOUN
        and (before in BEFORE_VERB or before in ("", "and", "he", "she", "it"))
    )


def _desert(context: Context) -> bool:
    before, after = context.before, context.after
    if before == "to":
        return after in OBJECTS or after == ""
    return before in BEFORE_VERB or (before not in BEFORE_NOUN and after in OBJECTS)


def _usually_verb(word: str) -> bool:
    return word in USUALLY_VERBS or word.removesuffix("s") in USUALLY_VERBS


@cache
def _readings(word: str) -> tuple[Phones, Phones]:
    """The readings of a word as noun or adjective and as verb."""
    if word in PAIRS:
        return parse_phones(PAIRS[word][0]), parse_phones(PAIRS[word][1])
    stem, plural = (word, False) if word in STRESS or word in ATE else (word[:-1], True)
    listed = Lexicon().listed(stem)
    if stem in ATE:
        verbs = [phones for phones in listed if phones[-2].startswith("EY")]
    else:
        verbs = [phones for phones in listed if next(phone for phone in phones if is_vowel(phone))[-1] != "1"]
    nouns = [phones for phones in listed if phones not in verbs]
    noun, verb = (nouns or verbs)[0], (verbs or nouns)[0]
    return (add_s(noun), add_s(verb)) if plural else (noun, verb)


def _read(context: Context) -> str:
    """Present after modals and in commands, past after auxiliaries and third persons."""
    before, before2 = context.before, context.before2
    present, past = "R IY1 D", "R EH1 D"
    if before in MODALS or before in ("a", "good", "quick", "long", "great") or (before == "" and context.after):
        return present
    earlier = context.words[: context.words.index(context.word)]
    if before == "and" and not MODALS.isdisjoint(earlier):
        return present
    if before2 in MODALS or before2 in ("let", "make", "help", "might"):
        return present
    if before in ("i", "you", "we", "they", "who", "people"):
        if not PRESENT_MARKERS.isdisjoint(context.words) and PAST_MARKERS.isdisjoint(context.words):
            return present
        return present if before2 in ("if", "when") else past
    return past


def _lead(context: Context) -> str:
    """The metal by what is made of it, else to lead."""
    alloy = {
        context.before2 if context.before in ("and", "or") else "",
        context.after2 if context.after in ("and", "or") else "",
    }
    metal = context.after in METAL or context.before in OF_METAL or not OTHER_METALS.isdisjoint(alloy)
    return "L EH1 D" if metal and context.before2 != "instead" else "L IY1 D"


def _live(context: Context) -> str:
    """ "a live show", "we went live" against "I live here"."""
    before, after = context.before, context.after
    if before in (BEFORE_VERB - {"not", "never"}) or before in ("still", "now", "also", "and"):
        return "L AY1 V" if after in ON_AIR else "L IH1 V"
    on_air = after in ON_AIR or after == "from" or before in LINKING or before in DETERMINERS or before in GO_LIVE
    return "L AY1 V" if on_air else "L IH1 V"


def _wound(context: Context) -> str:
    turned = context.after in WINDING - {"the", "a", "his", "her", "it"} and context.before not in DETERMINERS
    return "W AW1 N D" if turned else "W UW1 N D"


def _bow(context: Context) -> str:
    if context.before in BEFORE_VERB or "take" in (context.before, context.before2):
        return "B AW1"
    return "B OW1" if context.near(ARCHERY) or context.after in ("tie", "ties", "and") else "B AW1"


def _dove(context: Context) -> str:
    dived = context.after in DIVES and context.before not in ("a", "white", "gray", "mourning")
    return "D OW1 V" if dived or context.before in DIVERS else "D AH1 V"


def _minute(context: Context) -> str:
    tiny = context.after in TINY or context.before in ("so", "very", "extremely", "is", "are", "was", "were")
    return "M AY0 N UW1 T" if tiny else "M IH1 N AH0 T"


def _bass(context: Context) -> str:
    return "B AE1 S" if context.near(FISHING) else "B EY1 S"


def _learned(context: Context) -> str:
    scholarly = context.before in ("a", "most", "very", "my") and context.after in SCHOLARS
    return "L ER1 N IH0 D" if scholarly else "L ER1 N D"


def _closer(context: Context) -> str:
    shutting = context.before in ("a", "the") and context.after not in NEARER
    return "K L OW1 Z ER0" if shutting else "K L OW1 S ER0"


def _used(context: Context) -> str:
    habit = context.after == "to" and context.before not in ("is", "was", "are", "be", "been", "being", "were")
    return "Y UW1 S T" if habit else "Y UW1 Z D"


SPECIAL = {
    "read": _read,
    "lead": _lead,
    "live": _live,
    "wound": _wound,
    "bow": _bow,
    "bows": lambda context: _bow(context) + " Z",
    "dove": _dove,
    "minute": _minute,
    "bass": _bass,
    "learned": _learned,
    "closer": _closer,
    "used": _used,
    "polish": lambda context: "P AA1 L IH0 SH",
    "the": lambda context: "DH AH0",
}
_OWN_RULES = {
    "content": _content,
    "invalid": _invalid,
    "close": _close,
    "tear": _tear,
    "tears": _tears,
    "wind": _wind,
    "winds": _wind,
    "desert": _desert,
}
_HOMOGRAPHS = (
    frozenset(PAIRS)
    | STRESS
    | ATE
    | frozenset(word + "s" for word in (STRESS | ATE) - {"progress", "research", "compress", "reject"})
)
