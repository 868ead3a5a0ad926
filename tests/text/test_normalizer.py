"""What is written and what is said."""

import pytest

from melstate.tts.text import normalize

TABLE = {
    "Dr. Smith paid $3.50 on 12/11/2026 for 2 lbs of GPT-4 keyboards at 5:30pm; read the NASA lead.": (
        "Doctor Smith paid three dollars and fifty cents on December eleventh, twenty twenty-six for two pounds of "
        "G P T four keyboards at five thirty P M; read the NASA lead."
    ),
    # money
    "It cost $3.5 million, £2.50, €1,000.01, ¥500, 50¢, $0.99 or $1.": (
        "It cost three point five million dollars, two pounds and fifty pence, one thousand euros and one cent, "
        "five hundred yen, fifty cents, ninety-nine cents or one dollar."
    ),
    "a $5 bill, $5/hr, $10-20, -$5, US$5": (
        "a five dollar bill, five dollars per hour, ten to twenty dollars, minus five dollars, five U S dollars"
    ),
    # dates and times
    "2026-11-21, Nov. 5, 2021, 5 November, 25/12/2020": (
        "November twenty-first, twenty twenty-six, November fifth, twenty twenty-one, the fifth of November, "
        "December twenty-fifth, twenty twenty"
    ),
    "on Mon., Nov. 23, Mon-Fri 9-5": "on Monday, November twenty-third, Monday to Friday nine to five",
    "17:45, 5 p.m., 3 o'clock, 12:00, 5:05 AM, 00:30": (
        "seventeen forty-five, five P M, three o'clock, twelve o'clock, five oh five A M, zero thirty"
    ),
    "He came at 5 p.m.": "He came at five P M.",
    # codes
    "Call 555-123-4567 or (800) 555-0199 or 555-1234.": (
        "Call five five five, one two three, four five six seven or eight hundred, five five five, zero one nine nine "
        "or five five five, one two three four."
    ),
    "bob.s@example.com, https://www.example.com/a-b, #MachineLearning, @bob": (
        "bob dot S at example dot com, W W W dot example dot com slash A dash B, hashtag Machine Learning, at bob"
    ),
    "192.168.1.1 and v1.2.3": (
        "one hundred ninety-two dot one hundred sixty-eight dot one dot one and version one point two point three"
    ),
    # measures
    "5km at 60mph, 72°F, -5°C, 1 lb, 6'2\", a 10-lb bag, 50 m²": (
        "five kilometers at sixty miles per hour, seventy-two degrees Fahrenheit, minus five degrees Celsius, "
        "one pound, "
        "six foot two, a ten pound bag, fifty square meters"
    ),
    "10% or 10-20%": "ten percent or ten to twenty percent",
    "1/2, ½, 3 1/4, 3½ cups, 2/3, 1/4 tsp, 24/7": (
        "one half, one half, three and a quarter, three and a half cups, two thirds, one quarter teaspoon, "
        "twenty-four seven"
    ),
    # numbers
    "1st, 22nd, 103rd, 1,000th": "first, twenty-second, one hundred third, one thousandth",
    "the 1990s, the '90s, the 2000s, 1900s": (
        "the nineteen nineties, the nineties, the two thousands, nineteen hundreds"
    ),
    "In 1999, 2005, 2010, 1066 and 1900.": (
        "In nineteen ninety-nine, two thousand five, twenty ten, ten sixty-six and nineteen hundred."
    ),
    "1000 people, 1234 apples, 12,345": (
        "one thousand people, one thousand two hundred thirty-four apples, twelve thousand three hundred forty-five"
    ),
    "3.14, .5, -7, 007, 10^6": (
        "three point one four, zero point five, minus seven, zero zero seven, ten to the power of six"
    ),
    "1914-1918, pp. 3-5, 44 BC": "nineteen fourteen to nineteen eighteen, pages three to five, forty-four B C",
    "No. 5, #1 and Nos. 1-3": "number five, number one and numbers one to three",
    # names
    "Henry VIII, World War II, Chapter IV, Louis XIV's, WWII": (
        "Henry the eighth, World War two, Chapter four, Louis the fourteenth's, World War two"
    ),
    "Paul and I met; Rocky III": "Paul and I met; Rocky three",
    "Dr. King Dr. is near St. Mary's St.": "Doctor King Drive is near Saint Mary's Street.",
    "Mr. and Mrs. Jones vs. Prof. Lee, e.g. this, i.e. that, etc.": (
        "Mister and Missus Jones versus Professor Lee, for example this, that is that, et cetera."
    ),
    "J.R.R. Tolkien, Ph.D., of the U.S.A.": "J R R Tolkien, P H D, of the U S A.",
    "The US told us; our IT dept. said it.": "The U S told us; our I T department said it.",
    "READ THIS NOW, ALL OF YOU AND IT": "read this now, all of you and it",
    "GPT, HTML, NASA, the WHO, CDs, AT&T": "G P T, HTML, NASA, the W H O, CDs, A T and T",
    "B2B, MP3, COVID-19, F-16, RTX 4090, Boeing 747": (
        "B two B, M P three, covid nineteen, F sixteen, R T X forty ninety, Boeing seven forty-seven"
    ),
    "Boston, MA 02134": "Boston, M A zero two one three four",
    "221B Baker, GPT-4o, Llama-3.1, H100s, 1080p, v2.0, C#, B-": (
        "two hundred twenty-one B Baker, G P T four O, Llama three point one, H one hundreds, ten eighty P, "
        "version two point zero, C sharp, B minus"
    ),
    '9am–5pm, John 3:16-18, 6\'1 and 8.5" x 11"': (
        "nine A M to five P M, John three sixteen to eighteen, six foot one and eight point five by eleven inches"
    ),
    # symbols
    "and/or, 5 + 3 = 8, 3 * 4, AC/DC & x < 3": (
        "and or, five plus three equals eight, three times four, A C slash D C and x less than three"
    ),
    "wait... what -- really?": "wait, what — really?",
    "Two\nlines": "Two\nlines",
    "": "",
}


@pytest.mark.parametrize("written", TABLE)
def test_what_is_said(written):
    assert normalize(written) == TABLE[written]


@pytest.mark.parametrize("written", TABLE)
def test_spoken_text_is_left_alone(written):
    """Nothing in words is read a second time in another way, but for its line layout and spelled letters' dots."""
    once = normalize(written)
    assert normalize(once) == once


@pytest.mark.parametrize("text", ["Plain words stay, as they are: yes!", "It's o'clock; he isn't."])
def test_plain_words_stay(text):
    assert normalize(text) == text


def test_no_digit_survives():
    text = " ".join(
        f"{n} {n}x x{n} {n}.{n} -{n} {n}% ${n} {n}-{n} {n}/{n} {n}:{n} #{n} {n}th a{n}b" for n in range(0, 9999, 37)
    )
    assert not any(map(str.isdigit, normalize(text)))
