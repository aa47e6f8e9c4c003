"""The sentences that the grammar writes: examples by hand, and agreement everywhere by a grammar book's tables."""

import re

import pytest

from tasks.held_out import draw_pairs
from tasks.phrasebook import NUM_CHOICES, PEOPLE, THINGS, VERBS, write_pair
from tasks.sampling import TRAIN


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs(write_pair, NUM_CHOICES, TRAIN, 1, 5000)


def nth(index, count):
    return (index + 0.5) / count


YES, NO = 0.0, 0.999
THE, A, THIS, THE_PLURAL, THESE, COUNT = (nth(index, 8) for index in (0, 2, 4, 5, 6, 7))
STATEMENT, AFTER_ADVERB, QUESTION, CLAUSE = (nth(index, 4) for index in range(4))


def named(options, word):
    return nth([option[0] for option in options].index(word), len(options))


def person(word, determiner, adjective=None, count=0):
    index = next(place for place, noun in enumerate(PEOPLE) if noun.singular == word)
    return [nth(index, 12), determiner, *([NO] if adjective is None else [YES, nth(adjective, 6)]), nth(count, 3)]


def thing(word, determiner, adjective=None, count=0):
    index = next(place for place, noun in enumerate(THINGS) if noun.singular == word)
    return [nth(index, 14), determiner, *([NO] if adjective is None else [YES, nth(adjective, 8)]), nth(count, 3)]


@pytest.mark.parametrize(
    "numbers, german, english",
    [
        (
            [named(VERBS, "trägt"), *person("Junge", THE, 2), NO, *thing("Buch", A, 3), NO, NO, STATEMENT],
            "Der kleine Junge trägt ein rotes Buch.",
            "The small boy carries a red book.",
        ),
        (
            [named(VERBS, "sieht"), *person("Frau", COUNT, 0, 1), YES, *person("Junge", A, 3), YES, nth(0, 6), YES,
             STATEMENT],
            "Drei alte Frauen haben einen großen Jungen im Garten gesehen.",
            "Three old women have seen a tall boy in the garden.",
        ),
        (
            [named(VERBS, "hebt"), *person("Mann", A, 0), NO, *thing("Apfel", THESE, 5), NO, NO, AFTER_ADVERB,
             nth(3, 5)],
            "Am Abend hebt ein alter Mann diese grünen Äpfel auf.",
            "In the evening an old man picks up these green apples.",
        ),
        (
            [named(VERBS, "kauft"), *person("Kind", THE_PLURAL), NO, *thing("Ei", A), NO, NO, QUESTION],
            "Kaufen die Kinder ein Ei?",
            "Do the children buy an egg?",
        ),
        (
            [named(VERBS, "nimmt"), *person("Nachbarin", THIS), NO, *thing("Ball", THE), NO, YES, QUESTION],
            "Hat diese Nachbarin den Ball genommen?",
            "Has this neighbour taken the ball?",
        ),
        (
            [named(VERBS, "wirft"), *person("Student", THE), NO, *thing("Brief", A, 1), YES, nth(4, 6), NO, CLAUSE,
             nth(0, 4), *person("Lehrer", THE)],
            "Der Lehrer glaubt, dass der Student einen neuen Brief vor dem Haus wegwirft.",
            "The teacher believes that the student throws away a new letter in front of the house.",
        ),
        (
            [named(VERBS, "bringt"), *person("Mädchen", THE_PLURAL), YES, *person("Student", THE), NO, YES, CLAUSE,
             nth(2, 4), *person("Ärztin", COUNT)],
            "Zwei Ärztinnen wissen, dass die Mädchen den Studenten zurückgebracht haben.",
            "Two doctors know that the girls have brought back the student.",
        ),
    ],
)  # fmt: skip
def test_sentences_read_like_this(numbers, german, english):
    assert write_pair([*numbers, *[0.5] * (NUM_CHOICES - len(numbers))]) == (german, english)


def test_no_sentence_takes_more_random_numbers_than_there_are():
    """The longest: everything that can be said is."""
    everything = [named(VERBS, "sieht"), *person("Mann", A, 0), YES, *person("Mann", A, 0), YES, 0.1, YES, CLAUSE]
    everything += [0.1, *person("Mann", A, 0)]
    assert len(everything) == NUM_CHOICES
    assert write_pair(everything)[0].count(" alte") == 3


def test_a_german_sentence_has_one_translation(pairs):
    translations = {}
    for german, english in pairs:
        assert translations.setdefault(german, english) == english
    assert len(translations) > 4900


GENDERS = {
    "m": "Mann Junge Lehrer Bäcker Gärtner Student Ball Apfel Kuchen Brief Korb Stuhl",
    "f": "Frau Ärztin Nachbarin Sängerin Blume Lampe Tasse Kiste",
    "n": "Kind Mädchen Buch Bild Fahrrad Ei",
    "p": "Männer Frauen Kinder Jungen Mädchen Lehrer Ärztinnen Bäcker Nachbarinnen Gärtner Sängerinnen Studenten "
    "Bälle Äpfel Kuchen Briefe Körbe Stühle Blumen Lampen Tassen Kisten Bücher Bilder Fahrräder Eier",
}
# A grammar book's tables: what may stand before a noun of that gender, and how an adjective then ends.
NOMINATIVE = {
    "m": {"der": "e", "dieser": "e", "ein": "er"},
    "f": {"die": "e", "diese": "e", "eine": "e"},
    "n": {"das": "e", "dieses": "e", "ein": "es"},
    "p": {"die": "en", "diese": "en", "zwei": "e", "drei": "e", "vier": "e"},
}
ACCUSATIVE = NOMINATIVE | {"m": {"den": "en", "diesen": "en", "einen": "en"}}
NOUN = "|".join(sorted({noun for nouns in GENDERS.values() for noun in nouns.split()}))
PHRASE = re.compile(
    rf"\b(d(?:er|en|ie|as)|dies(?:er|en|es|e)|ein(?:en|e)?|zwei|drei|vier) (?:(\w+?)(e[nrs]?) )?({NOUN})\b"
)


def test_articles_adjectives_and_nouns_agree(pairs):
    """The object's phrase is the last one but for a clause's, so the case is known."""
    seen = set()
    for german, _ in pairs:
        # The places have articles in another case.
        text = re.sub(r" (auf dem|in der|vor dem|hinter der) \w+", "", german[0].lower() + german[1:])
        phrases = PHRASE.findall(text)
        assert len(phrases) == (3 if ", dass " in german else 2), german
        for place, (article, _, ending, noun) in enumerate(phrases, 1):
            is_object = place == len(phrases)
            tables = ACCUSATIVE if is_object else NOMINATIVE
            if is_object and noun in ("Jungen", "Studenten") and article in tables["m"]:
                noun = noun[:-1] if noun == "Jungen" else noun[:-2]
            fits = [gender for gender, nouns in GENDERS.items() if noun in nouns.split() and article in tables[gender]]
            assert fits and ending in ("", tables[fits[0]][article]), german
            seen.add((article, ending, is_object))
    assert len(seen) > 50


def test_verbs_agree_in_both_languages(pairs):
    plural_subject = re.compile(r"(the|these|two|three|four) (\w+ )?(\w+s|men|women|children) ")
    for german, english in pairs:
        clause = english.partition(" that ")[2] or english
        if "?" in english:
            assert clause.split()[0] in ("Do", "Does", "Have", "Has")
        perfect = re.search(r"\b(has|have)\b", clause, re.IGNORECASE)
        auxiliary = re.search(r"\b(hat|haben)\b", german, re.IGNORECASE)
        assert bool(perfect) == bool(auxiliary)
        if perfect and auxiliary:
            assert (perfect[1].lower() == "have") == (auxiliary[1].lower() == "haben")
            subject = clause[perfect.end() + 1 :] if "?" in clause else clause[: perfect.start()].lower()
            subject = re.sub(r"^(today|now|sometimes|in the evening|on monday) ", "", subject)
            assert bool(plural_subject.match(subject)) == (perfect[1].lower() == "have"), english


def test_the_verb_stands_where_german_wants_it(pairs):
    kinds = {"dass": 0, "question": 0, "adverb": 0}
    finite = {form.lower() for verb in VERBS for form in (verb.singular, verb.plural)} | {"hat", "haben"}
    last = {verb.prefix + form for verb in VERBS for form in (verb.singular, verb.plural)} | {"hat", "haben"}
    for german, _ in pairs:
        words = german.rstrip(".?").split()
        if "dass" in words:
            kinds["dass"] += 1
            assert words[-1] in last
        elif german.endswith("?"):
            kinds["question"] += 1
            assert words[0].lower() in finite
        elif words[0] in ("Heute", "Jetzt", "Manchmal", "Am"):
            kinds["adverb"] += 1
            assert words[2 if words[0] == "Am" else 1] in finite
    assert min(kinds.values()) > 1000


def test_english_says_an_before_vowels(pairs):
    following = [word for _, english in pairs for word in re.findall(r"\b(?:[Aa]|[Aa]n) \w+", english)]
    assert all((word.split()[0].lower() == "an") == (word.split()[1][0] in "aeio") for word in following)
    assert {"an egg", "an apple", "an old", "an ordinary", "a boy"} <= {word.lower() for word in following}
