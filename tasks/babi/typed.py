"""Stories as people type them."""

import re

from .story import Question, Sentence, Story

_NUMBERED = re.compile(r"(\d+)\s+(.*)")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def story_of(text: str) -> Story:
    """A story and its last question.

    Sentences stand on lines of their own or after one another; the one that is asked holds a question mark. Or the
    lines are those of a bAbI file, and then the last story counts, whose question may have an answer.

    Args:
        text: what was typed.

    Raises:
        ValueError: there is no question, or nothing before it.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(numbered):
        pieces = [(int(match[1]), match[2]) for match in numbered if match]
        begins = [place for place, (number, _) in enumerate(pieces) if number == 1]
        pieces = pieces[begins[-1] :] if begins else pieces
    else:
        pieces = list(enumerate((piece for line in lines for piece in _SENTENCE_END.split(line)), 1))
    asked = [place for place, (_, piece) in enumerate(pieces) if "?" in piece]
    if not asked:
        raise ValueError("--input holds no question: its last sentence must end with a question mark.")
    sentences = tuple(Sentence(number, piece) for number, piece in pieces[: asked[-1]] if "?" not in piece)
    if not sentences:
        raise ValueError("--input holds no sentence before its question, so there is nothing to answer it from.")
    number, piece = pieces[asked[-1]]
    question, answer, names = [*(field.strip() for field in piece.split("\t")), "", ""][:3]
    there = {sentence.id for sentence in sentences}
    supports = tuple(int(name) for name in names.split() if name.isdigit() and int(name) in there)
    return Story(sentences, (Question(number, question, answer, supports),))
