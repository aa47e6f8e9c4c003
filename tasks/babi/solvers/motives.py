"""Why people do things: task 20."""

from collections.abc import Sequence

from .reading import Grammar

GOES_TO = {"bored": "garden", "hungry": "kitchen", "thirsty": "kitchen", "tired": "bedroom"}
"""Where a state makes people go. No story tells this, so it has to be known."""

FACTS = Grammar(
    (r"(\w+) is (\w+)\.", lambda person, state: (person.lower(), state)),
    (r"\w+ (?:journeyed|moved|travelled|went|went back) to the \w+\.", lambda: None),
    (r"\w+ (?:got|grabbed|picked up|took) the \w+ there\.", lambda: None),
)
# Who is asked about, and what to make of their state.
QUESTIONS = Grammar(
    (r"Where will (\w+) go\?", lambda person: (person, GOES_TO.__getitem__)),
    (r"Why did (\w+) (?:go to|get) the \w+\?", lambda person: (person, str)),
)


def where_or_why(sentences: Sequence[str], question: str) -> str:
    """Where somebody will go, or why they did something: both follow from their state.

    Args:
        sentences: what is told.
        question: ``Where will sumit go?`` or ``Why did sumit get the pajamas?``
    """
    person, answer = QUESTIONS.parse(question)
    states = dict(fact for fact in (FACTS.parse(sentence) for sentence in sentences) if fact)
    return answer(states[person])
