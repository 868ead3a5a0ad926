"""Dates and times of day. Numeric dates are read the American way, month first, unless only day first is possible."""

from __future__ import annotations

import re

from melstate.tts.text import numbers
from melstate.tts.text.rules import Rule, spell, stop

MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = {day[:3].lower(): day for day in "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()}

_MONTH = (
    r"(?<![A-Za-z])(Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?\.?|July?\.?|Aug(?:ust|\.)?"
    r"|Sept(?:ember|\.)?|Sep\.?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? ((?:1\d|20)\d\d)(?!\d|,\d|\.\d|[A-Za-z]))?"


def _month(text: str) -> str | None:
    lowered = text.lower().rstrip(".")[:3]
    return next((month for month in MONTHS if month[:3].lower() == lowered), None)


def _spoken(month: str, day: int, year: str | None) -> str | None:
    """ "November fifth, twenty twenty-one"; None if there is no such day."""
    if not 1 <= day <= 31:
        return None
    return f"{month} {numbers.ordinal(str(day))}" + (f", {numbers.year(year)}" if year else "")


def _iso(match: re.Match[str]) -> str:
    year, month, day = match.groups()
    spoken = _spoken(MONTHS[int(month) - 1], int(day), year) if 1 <= int(month) <= 12 else None
    return spoken or match.group()


def _numeric(match: re.Match[str]) -> str:
    first, mark, second, year = match.groups()
    month, day = int(first), int(second)
    if mark == "." or (month > 12 and day <= 12):
        month, day = day, month
    if len(year) == 2:
        year = ("20" if int(year) < 70 else "19") + year
    spoken = _spoken(MONTHS[month - 1], day, year) if 1 <= month <= 12 else None
    return spoken or match.group()


def _month_day(match: re.Match[str]) -> str:
    month, day, last, year = match.groups()
    named = _month(month)
    spoken = _spoken(named, int(day), None) if named else None
    if spoken is None:
        return match.group()
    if last:
        spoken += f" to {numbers.ordinal(last)}"
    return spoken + (f", {numbers.year(year)}" if year else "")


def _day_month(match: re.Match[str]) -> str:
    article, day, month, year = match.groups()
    named = _month(month)
    if named is None or not 1 <= int(day) <= 31:
        return match.group()
    return f"{article or 'the '}{numbers.ordinal(day)} of {named}" + (f", {numbers.year(year)}" if year else "")


def _month_year(match: re.Match[str]) -> str:
    return f"{_month(match.group(1))} {numbers.year(match.group(2))}"


def _short_month(match: re.Match[str]) -> str:
    return f"{_month(match.group(1))}{stop(match)}"


def _weekday(match: re.Match[str]) -> str:
    return WEEKDAYS[match.group(1)[:3].lower()]


def _time(match: re.Match[str]) -> str:
    hour, minute, second, half, zone = match.groups()
    if int(hour) > 24:
        return f"{numbers.cardinal(hour)} to {numbers.cardinal(minute)}"
    said = "zero" if int(hour) == 0 else numbers.cardinal(hour.lstrip("0"))
    if int(minute):
        said += f" oh {numbers.ONES[int(minute)]}" if int(minute) < 10 else f" {numbers.cardinal(minute)}"
    elif not half:
        said += " hundred" if int(hour) > 12 or hour[0] == "0" else " o'clock"
    if second and int(second):
        said += f" and {numbers.cardinal(second.lstrip('0'))} second{'s' if int(second) != 1 else ''}"
    if half:
        said += f" {spell(half + 'm')}"
    return said + (f" {spell(zone)}" if zone else "") + (stop(match) if half and not zone else "")


def _hour(match: re.Match[str]) -> str:
    if not 1 <= int(match.group(1)) <= 12:
        return match.group()
    return f"{numbers.cardinal(match.group(1).lstrip('0'))} {spell(match.group(2) + 'm')}{stop(match)}"


def _ratio(match: re.Match[str]) -> str:
    return f"{numbers.cardinal(match.group(1))} to {numbers.cardinal(match.group(2))}"


_HALF = r"([AaPp])(?:\.[Mm]\.?|[Mm])(?![A-Za-z])"
_ZONE = r"(?: (UTC|GMT|[ECMP][SD]T|CET|BST)(?!\w))?"

DATES: tuple[Rule, ...] = (
    (re.compile(r"(?<![\w-])((?:1\d|20)\d\d)-(\d\d)-(\d\d)(?![\d-])"), _iso),
    (re.compile(r"(?<![\w/.-])(\d{1,2})([/.-])(\d{1,2})\2((?:1[4-9]|20)\d\d|\d\d)(?![\w/-]|\.\d)"), _numeric),
    (re.compile(rf"{_MONTH} {_DAY}(?: ?[-–—] ?(\d{{1,2}}))?(?![\w:%]|[.,/-]\d){_YEAR}"), _month_day),
    (re.compile(rf"(?<![\w.,:$#/-])([Tt]he )?{_DAY} (?:of )?{_MONTH}(?![A-Za-z]){_YEAR}"), _day_month),
    (re.compile(rf"{_MONTH},? ((?:1\d|20)\d\d)(?![\w:%-]|[.,/]\d)"), _month_year),
    (re.compile(r"(?<![A-Za-z])(Jan|Feb|Apr|Aug|Sept?|Oct|Nov|Dec)\.(?= |,|$)"), _short_month),
    (
        re.compile(r"(?<![A-Za-z])(Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)\.?[-–](Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)(?!\w)"),
        lambda m: f"{WEEKDAYS[m.group(1)[:3].lower()]} to {WEEKDAYS[m.group(2)[:3].lower()]}",
    ),
    (re.compile(rf"(?<![A-Za-z])(Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)\.?(?=,? (?:{'|'.join(MONTHS)}|\d))"), _weekday),
)  # fmt: skip
TIMES: tuple[Rule, ...] = (
    (re.compile(r"(?<![\w.,:-])(\d{1,2}) ?[-–] ?(?=\d{1,2}(?::\d\d)? ?[ap]\.?m(?!\w))"), lambda m: f"{m.group(1)} to "),
    (re.compile(r"(?<=\d)( ?[ap]m|:\d\d) ?[-–] ?(?=\d)"), lambda m: f"{m.group(1)} to "),
    (re.compile(rf"(?<![\w:.,])(\d{{1,2}}):([0-5]\d)(?::([0-5]\d))?(?![\d:])(?: ?{_HALF})?{_ZONE}"), _time),
    (re.compile(rf"(?<![\w:.,$/-])(\d{{1,2}})(?: |-)?{_HALF}"), _hour),
    (re.compile(r"(?<![\w:.,])(\d{1,4}):(\d{1,4})(?![\w:])"), _ratio),
)
