"""What holds of animals by their kind: tasks 15 and 16."""

from collections.abc import Sequence

from .reading import Grammar, first

KIND_OF = {"cats": "cat", "mice": "mouse", "sheep": "sheep", "wolves": "wolf"}

# What is said of a kind or an animal: which of its properties, and the value.
FEARS = Grammar(
    (r"(\w+) are afraid of (\w+)\.", lambda kind, enemy: (KIND_OF[kind.lower()], "fears", KIND_OF[enemy])),
    (r"(\w+) is a (\w+)\.", lambda name, kind: (name.lower(), "kind", kind)),
)
COLORS = Grammar(
    (r"(\w+) is a (\w+)\.", lambda name, kind: (name, "kind", kind)),
    (r"(\w+) is (\w+)\.", lambda name, color: (name, "color", color)),
)
AFRAID = Grammar((r"What is (\w+) afraid of\?", str.lower))
COLOR = Grammar((r"What color is (\w+)\?", str))


def afraid_of(sentences: Sequence[str], question: str) -> str:
    """What an animal is afraid of: what its kind is afraid of.

    Args:
        sentences: what is told.
        question: ``What is emily afraid of?``
    """
    name = AFRAID.parse(question)
    facts = {(who, what): value for who, what, value in (FEARS.parse(sentence) for sentence in sentences)}
    return facts[facts[name, "kind"], "fears"]


def color_of(sentences: Sequence[str], question: str) -> str:
    """The color of an animal: its own if it is told, or that of the last animal of its kind to turn up.

    Args:
        sentences: what is told.
        question: ``What color is Lily?``
    """
    name = COLOR.parse(question)
    facts = {(who, what): value for who, what, value in (COLORS.parse(sentence) for sentence in sentences)}
    if (name, "color") in facts:
        return facts[name, "color"]
    alike = [who for (who, what), value in facts.items() if what == "kind" and value == facts[name, "kind"]]
    return first(facts[who, "color"] for who in reversed(alike) if (who, "color") in facts)
