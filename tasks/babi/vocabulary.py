"""The words of all 20 tasks and the numbers that models know them by.

There is one vocabulary, the same for every task and whether the stories are genuine or generated, so that the sizes of
a model are known without data, models of all tasks have the same shapes, and a model trained on generated stories can
answer genuine questions. It is the joint vocabulary of the paper, whose V = 177 are the null word, the 145 words of the
stories and questions and 31 answers that are none of them; only the unknown word is added. (For one task alone the
paper uses that task's words. The others never occur there: their embeddings see no story, and as answers they soon have
no probability.)

Answers are words like others, and a list of answers, such as ``milk,football``, is a word of its own. They have the
lowest numbers, so that a model may give logits for the whole vocabulary, as in the paper, or for the answers only.
"""

import itertools
import re

NULL, UNKNOWN = 0, 1
"""What pads sentences and stories, and what stands for every word that is not in the vocabulary."""

_THINGS = ("apple", "football", "milk")
_LISTS = [",".join(order) for length in (2, 3) for order in itertools.permutations(_THINGS, length)]
# Never back where the step before came from.
_PATHS = [",".join(steps) for steps in itertools.product("ensw", repeat=2) if set(steps) not in ({*"ns"}, {*"ew"})]
_SINGLE_ANSWERS = """
    apple bathroom bedroom bill bored cat cinema football fred garden gray green hallway hungry jeff kitchen mary maybe
    milk mouse no none nothing office one park school sheep thirsty three tired two white wolf yellow yes
"""
_OTHER_WORDS = """
    a above afraid after afternoon afterwards and antoine are back before below bernhard bigger blue box brian carrying
    cats chest chocolate chocolates color container daniel did discarded do does down dropped east either emily evening
    fit fits following frog from gave gertrude get give go got grabbed greg handed he how in inside is jason jessica
    john journeyed julie julius left lily lion longer many mice morning moved north not objects of or pajamas passed
    picked pink put received rectangle red rhino right sandra she south sphere square suitcase sumit swan than that the
    then there they this to took travelled triangle up was went west what where who why will winona wolves yann
    yesterday you
"""

ANSWERS = tuple(sorted([*_SINGLE_ANSWERS.split(), *_LISTS, *_PATHS]))
"""The 60 answers that occur, lists in the order of their words."""

VOCABULARY = ("", "<unknown>", *ANSWERS, *_OTHER_WORDS.split())
"""Each number's word."""

VOCAB_SIZE = len(VOCABULARY)
NUM_ANSWERS = 2 + len(ANSWERS)
"""Every answer's number is below this; 0 and 1 never are right."""

IDS = {word: number for number, word in enumerate(VOCABULARY) if number > UNKNOWN}
"""Each word's number."""

_WORD = re.compile(r"\w+(?:[-']\w+)*")


def split_words(text: str) -> list[str]:
    """The words of a sentence or question in lower case, without punctuation.

    >>> split_words("Where is the milk? ")
    ['where', 'is', 'the', 'milk']

    Args:
        text: any.
    """
    return _WORD.findall(text.lower())


def answer_word(text: str) -> str:
    """An answer as the vocabulary has it.

    >>> answer_word("Milk, football")
    'milk,football'

    Args:
        text: a word, or several joined by commas.
    """
    return ",".join(part.strip() for part in text.lower().split(","))
