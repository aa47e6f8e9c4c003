"""What a bAbI file says: stories with questions in between (Weston et al. 2015, https://arxiv.org/abs/1502.05698)."""

from typing import NamedTuple


class Sentence(NamedTuple):
    """A line that states something.

    Attributes:
        id: the line's number in its story, from 1.
        text: the sentence with its full stop.
    """

    id: int
    text: str


class Question(NamedTuple):
    """A line that asks.

    Attributes:
        id: the line's number in its story; the sentences before it have smaller ones.
        text: the question with its question mark.
        answer: a word, or several joined by commas without a space.
        supports: ids of the sentences that the answer follows from, as the file lists them.
    """

    id: int
    text: str
    answer: str
    supports: tuple[int, ...]


class Story(NamedTuple):
    """Sentences and the questions between them; ids count both.

    Attributes:
        sentences: in order.
        questions: in order.
    """

    sentences: tuple[Sentence, ...]
    questions: tuple[Question, ...]

    def before(self, question: Question) -> tuple[Sentence, ...]:
        """What has been said when a question is asked.

        Args:
            question: one of this story's.
        """
        return tuple(sentence for sentence in self.sentences if sentence.id < question.id)
