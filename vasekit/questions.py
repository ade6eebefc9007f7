"""Questions about a vase and their answers, in several wordings: written for training, read back for scoring."""

from __future__ import annotations

import re

from vasekit.vases import CAPTION_FIELDS, NAMES, Attribution, VaseRecord, caption, depicted, parse_caption, tidy
from vasekit.vocabulary import plain, words_of

# Kind of question -> wordings; the first is the documented one, the others are the kit's own.
QUESTIONS = {
    "fabric": (
        "What is the fabric of the vase?",
        "Which fabric does this vase belong to?",
        "Where was this kind of pottery made?",
        "Name the fabric.",
    ),
    "technique": (
        "What is the technique of the vase?",
        "In which technique is the vase painted?",
        "How was this vase decorated?",
        "Name the technique.",
    ),
    "shape": (
        "What is the shape name of the vase?",
        "What is this shape called?",
        "Which shape does the vase have?",
        "Name the shape.",
    ),
    "provenance": (
        "What is the provenance of the vase?",
        "Where was the vase found?",
        "What is known of its find-spot?",
        "Name the find-spot.",
    ),
    "date": (
        "What is the date of the vase?",
        "When was the vase made?",
        "To which years is the vase dated?",
        "Give the date.",
    ),
    "attribution": (
        "What is the attribution of the vase?",
        "Who painted the vase?",
        "To whom is the vase attributed?",
        "Name the painter or the group.",
    ),
    "decoration": (
        "What is the decoration of the vase?",
        "What does the vase show?",
        "Which figures are painted on the vase?",
        "Describe the scene.",
    ),
    "overall": (
        "What is the overall description of the vase?",
        "Tell all that can be said of this vase.",
        "Give the catalogue entry of the vase.",
    ),
    "caption": (
        "Describe this vase in one line.",
        "Write a caption for this vase.",
        "What is shown here? Answer with a museum label.",
    ),
}
_OWN = {
    "fabric": ("It is {}.", "The vase is of {} fabric."),
    "technique": ("It is {}.", "The vase is painted in {}."),
    "shape": ("It is a vase of the shape {}.", "This shape is called {}."),
    "provenance": ("The vase was found at {}.", "Its find-spot is {}."),
    "date": ("It is dated to {}.", "The vase was made in {}."),
    "attribution": ("The vase is attributed to {}.", "It was painted by {}."),
    "decoration": ("The vase shows {}.", "It shows {}."),
}
# Field -> wordings of an answer: the bare value, the published one, the kit's own.
ANSWERS = {field: ("{}", f"The {NAMES[field][0]} of the vase is {{}}.", *own) for field, own in _OWN.items()}
FIELDS = tuple(ANSWERS)


def value(record: VaseRecord, field: str) -> str:
    """The bare answer to a question about one field, empty where the record is silent."""
    said = getattr(record.normalised(), field)
    if field == "attribution":
        return Attribution.parse(said).prose()
    return {"decoration": depicted, "provenance": tidy}.get(field, plain)(said)


def answer(record: VaseRecord, kind: str, wording: int = 0, say: tuple[str, ...] = CAPTION_FIELDS) -> str:
    """The answer to `QUESTIONS[kind]`, empty where the record has none. say: the fields of a caption."""
    if kind == "caption":
        return caption(record, say)
    if kind == "overall":
        stated = {field: value(record, field) for field in FIELDS}
        return " ".join(ANSWERS[field][1].format(said) for field, said in stated.items() if said)
    said = value(record, kind)
    return ANSWERS[kind][wording].format(said) if said else ""


def parse_answer(field: str, text: str) -> str:
    """The value in an answer to a question about one field, whatever the wording.

    Both published templates are read: "The {X} of the vase is V." and the one with its words in another order.
    """
    text = plain(text)
    for wording in ANSWERS[field][1:]:
        before, after = (re.escape(part) for part in wording.rstrip(".").split("{}"))
        if match := re.fullmatch(rf"{before}(.+?){after}\.?", text, re.IGNORECASE):
            return match[1]
    head, found, rest = text.partition(" is ")
    frame = {"the", "of", "vase", "this", "name", *(word for name in NAMES[field] for word in words_of(name))}
    if found and set(words_of(head)) <= frame:
        return rest.rstrip(" .")
    return text[:-1] if text.endswith(".") and not text.endswith(".C.") else text


def claim(kind: str, text: str) -> VaseRecord:
    """What an answer to a question of that kind claims, as a record."""
    if kind in ("overall", "caption"):
        return parse_caption(text)
    return VaseRecord(**{kind: parse_answer(kind, text)})


_KEYWORDS = {field: {*NAMES[field][0].split()} - {"name"} for field in FIELDS}


def kind_of(question: str) -> str | None:
    """Which kind of question this is: one of ours in any wording, or one that names the field; None if neither."""
    words = words_of(question.replace("<image>", " ").replace("<video>", " "))
    for kind, wordings in QUESTIONS.items():
        if words in map(words_of, wordings):
            return kind
    named = [field for field, keys in _KEYWORDS.items() if keys & set(words)]
    if len(named) == 1:
        return named[0]
    return "overall" if {"overall", "describe", "description"} & set(words) else None
