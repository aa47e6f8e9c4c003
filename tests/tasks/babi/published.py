"""What the genuine files are like: their words, and how stories can be compared with theirs."""

import re
from collections import Counter
from itertools import pairwise

WORDS_BY_TASK = {
    1: """
        back bathroom bedroom Daniel garden hallway is John journeyed kitchen Mary moved office Sandra the to
        travelled went Where
    """,
    2: """
        apple back bathroom bedroom Daniel discarded down dropped football garden got grabbed hallway is John
        journeyed kitchen left Mary milk moved office picked put Sandra the there to took travelled up went
        Where
    """,
    3: """
        apple back bathroom bedroom before Daniel discarded down dropped football garden got grabbed hallway
        John journeyed kitchen left Mary milk moved office picked put Sandra the there to took travelled up
        was went Where
    """,
    4: """
        bathroom bedroom east garden hallway is kitchen north of office south The the west What
    """,
    5: """
        apple back bathroom bedroom Bill did discarded down dropped football Fred garden gave give got grabbed
        hallway handed Jeff journeyed kitchen left Mary milk moved office passed picked put received the there
        to took travelled up went What Who
    """,
    6: """
        apple back bathroom bedroom Daniel discarded down dropped football garden got grabbed hallway in Is
        John journeyed kitchen left Mary milk moved office picked put Sandra the there to took travelled up
        went
    """,
    7: """
        apple back bathroom bedroom carrying Daniel discarded down dropped football garden gave got grabbed
        hallway handed How is John journeyed kitchen left many Mary milk moved objects office passed picked
        put Sandra the there to took travelled up went
    """,
    8: """
        apple back bathroom bedroom carrying Daniel discarded down dropped football garden got grabbed hallway
        is John journeyed kitchen left Mary milk moved office picked put Sandra the there to took travelled up
        went What
    """,
    9: """
        back bathroom bedroom Daniel garden hallway in Is is John journeyed kitchen longer Mary moved no not
        office Sandra the to travelled went
    """,
    10: """
        back bedroom Bill cinema either Fred in Is is journeyed Julie kitchen Mary moved office or park school
        the to travelled went
    """,
    11: """
        After Afterwards back bathroom bedroom Daniel Following garden hallway he is John journeyed kitchen
        Mary moved office Sandra she that the Then to travelled went Where
    """,
    12: """
        and back bathroom bedroom Daniel garden hallway is John journeyed kitchen Mary moved office Sandra the
        to travelled went Where
    """,
    13: """
        After Afterwards and back bathroom bedroom Daniel Following garden hallway is John journeyed kitchen
        Mary moved office Sandra that the Then they to travelled went Where
    """,
    14: """
        afternoon back bedroom before Bill cinema evening Fred journeyed Julie kitchen Mary morning moved
        office park school the This this to travelled was went Where Yesterday yesterday
    """,
    15: """
        a afraid are cat Cats cats Emily emily Gertrude gertrude is Jessica jessica Mice mice mouse of Sheep
        sheep What Winona winona wolf Wolves wolves
    """,
    16: """
        a Bernhard Brian color frog gray green Greg is Julius Lily lion rhino swan What white yellow
    """,
    17: """
        above below blue Is is left of pink rectangle red right sphere square The the to triangle yellow
    """,
    18: """
        bigger box chest chocolate chocolates container Does fit fits in inside Is is of suitcase than The the
    """,
    19: """
        bathroom bedroom do east from garden go hallway How is kitchen north of office south The the to west
        you
    """,
    20: """
        Antoine antoine apple back bedroom bored did football garden get go got grabbed hungry is Jason jason
        journeyed kitchen milk moved pajamas picked Sumit sumit the there thirsty tired to took travelled up
        went Where Why will Yann yann
    """,
}
WORDS = {task: frozenset(words.split()) for task, words in WORDS_BY_TASK.items()}
"""The words of each task's sentences and questions, in the 11,000 genuine questions of it (2,925 of task 3)."""

_PLACES = "bathroom bedroom garden hallway kitchen office"
_TOWN = "bedroom cinema kitchen office park school"
_YES_NO = "yes no"
_WAYS = "n,n n,e n,w e,e e,n e,s s,s s,e s,w w,w w,n w,s"
ANSWERS = {
    task: frozenset(answers.split())
    for tasks, answers in {
        (1, 2, 3, 4, 11, 12, 13): _PLACES,
        (5,): "Bill Fred Jeff Mary apple football milk",
        (6, 9, 17, 18): _YES_NO,
        (7,): "none one two three",
        (8,): "nothing apple football milk apple,football apple,milk football,apple football,milk milk,apple "
        "milk,football",
        (10,): "yes no maybe",
        (14,): _TOWN,
        (15,): "cat mouse sheep wolf",
        (16,): "gray green white yellow",
        (19,): _WAYS,
        (20,): "bedroom garden kitchen bored hungry thirsty tired",
    }.items()
    for task in tasks
}
"""The answers of each task, but for the lists of three things in task 8, which are 1 in 200."""

_NAMES = re.compile(
    r"\b(antoine|bernhard|bill|brian|daniel|emily|fred|gertrude|greg|jason|jeff|jessica|john|julie|julius|lily|mary|"
    r"sandra|sumit|winona|yann|apple|football|milk|pajamas|bathroom|bedroom|cinema|garden|hallway|kitchen|office|park|"
    r"school|box of chocolates|box|chest|chocolate|container|suitcase|blue square|pink rectangle|red sphere|red square|"
    r"triangle|yellow square)\b",
    re.IGNORECASE,
)


def words(story):
    """The words of a story's sentences and questions."""
    return {word for line in (*story.sentences, *story.questions) for word in re.findall(r"\w+", line.text)}


def shapes(stories):
    """How often each value of a property occurs in stories, by property."""
    counts = {}

    def count(name, value):
        counts.setdefault(name, Counter())[value] += 1

    for story in stories:
        texts = [sentence.text for sentence in story.sentences]
        count("questions in a story", len(story.questions))
        count("repeated sentences", min(5, len(texts) - len(set(texts))))
        for text in texts:
            count("words in a sentence", len(text.split()))
            count("wording of a sentence", _NAMES.sub("_", text))
        for text, following in pairwise(texts):
            count("same first word as the sentence before", text.split()[0] == following.split()[0])
        told = 0
        previous = None
        for question in story.questions:
            ids = [sentence.id for sentence in story.before(question)]
            ages = [len(ids) - 1 - ids.index(support) for support in question.supports]
            count("sentences since the last question", min(20, len(ids) - told))
            count("sentences before a question, in tens", min(10, len(ids) // 10))
            count("answer", question.answer)
            count("wording of a question", _NAMES.sub("_", question.text))
            count("number of supports", len(ages))
            count("sentences after the first support", min(20, ages[0]))
            count("sentences after the last support", min(20, ages[-1]))
            count("supports in order", list(question.supports) == sorted(question.supports))
            if previous:
                count("same as the last question", question.text == previous.text)
                count("same answer as the last question", question.answer == previous.answer)
            told, previous = len(ids), question
    return counts


def difference(one, other):
    """How much probability two distributions do not share, from 0 to 1."""
    return sum(abs(one[value] / one.total() - other[value] / other.total()) for value in one.keys() | other.keys()) / 2
