"""Writing a story down: numbered lines, what they told, and the questions in between."""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ..story import Question, Sentence, Story

E = TypeVar("E")

QUESTIONS = 5
"""How many questions most stories have."""

RECENT = 5
"""Most questions are about one of the last so many facts."""


class Fact(NamedTuple, Generic[E]):
    """Something told.

    Attributes:
        id: the number of the line that told it.
        event: what happened.
    """

    id: int
    event: E


class Book(Generic[E]):
    """A story while it is being written.

    Attributes:
        facts: what has been told, in the order in which it happened.
    """

    def __init__(self) -> None:
        self.facts: list[Fact[E]] = []
        self._sentences: list[Sentence] = []
        self._questions: list[Question] = []

    @property
    def line(self) -> int:
        """The number of the last line."""
        return len(self._sentences) + len(self._questions)

    @property
    def num_questions(self) -> int:
        """How many questions there are so far."""
        return len(self._questions)

    def say(self, text: str, *events: E) -> int:
        """Writes a sentence, and returns its number.

        Args:
            text: with its full stop.
            *events: the facts it tells.
        """
        number = self.line + 1
        self._sentences.append(Sentence(number, text))
        self.facts.extend(Fact(number, event) for event in events)
        return number

    def ask(self, text: str, answer: str, supports: Sequence[int]) -> None:
        """Writes a question.

        Args:
            text: with its question mark.
            answer: a word, or several joined by commas.
            supports: the numbers of the sentences it follows from, in the order in which the published files list them.
        """
        self._questions.append(Question(self.line + 1, text, answer, tuple(supports)))

    def recent(self) -> list[Fact[E]]:
        """The last facts, oldest first."""
        return self.facts[-RECENT:]

    def story(self) -> Story:
        """What has been written."""
        return Story(tuple(self._sentences), tuple(self._questions))

    def converse(self, *lines: Callable[[], object]) -> Story:
        """The whole story: sentences and a question, again and again, until there are five questions.

        Args:
            *lines: in turn, what writes a sentence, or a question if there is anything to ask.
        """
        while self.num_questions < QUESTIONS:
            for line in lines:
                line()
        return self.story()
