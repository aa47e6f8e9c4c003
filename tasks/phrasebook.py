"""A small parallel corpus that a grammar writes: German sentences and what they mean in English.

What makes translation more than replacing word by word is all here: gender, case and number agree across articles,
adjectives and verbs; the verb comes second after an adverb, first in a question and last in a clause with "dass", where
a separable prefix and the auxiliary of the perfect move as well; English says "a" or "an" and "does" in questions.
A German sentence has one translation.
"""

from typing import NamedTuple

NUM_CHOICES = 22
"""How many random numbers one sentence takes."""


class Noun(NamedTuple):
    """A noun in both languages; ``accusative`` is given where it differs from the nominative."""

    gender: str
    singular: str
    plural: str
    english: str
    english_plural: str
    accusative: str = ""


class Verb(NamedTuple):
    """A verb with an object and "haben" in its perfect; ``prefix`` and ``particle`` are what it splits off.

    ``of_people`` says whether people may be its object.
    """

    singular: str
    plural: str
    participle: str
    english: str
    english_singular: str
    english_participle: str
    prefix: str = ""
    particle: str = ""
    of_people: bool = False


class Phrase(NamedTuple):
    """Words in both languages."""

    german: str
    english: str


class NounPhrase(NamedTuple):
    """Words in both languages, and the number that the verb has to agree with."""

    german: str
    english: str
    is_plural: bool


PEOPLE = [
    Noun("m", "Mann", "Männer", "man", "men"),
    Noun("f", "Frau", "Frauen", "woman", "women"),
    Noun("n", "Kind", "Kinder", "child", "children"),
    Noun("m", "Junge", "Jungen", "boy", "boys", accusative="Jungen"),
    Noun("n", "Mädchen", "Mädchen", "girl", "girls"),
    Noun("m", "Lehrer", "Lehrer", "teacher", "teachers"),
    Noun("f", "Ärztin", "Ärztinnen", "doctor", "doctors"),
    Noun("m", "Bäcker", "Bäcker", "baker", "bakers"),
    Noun("f", "Nachbarin", "Nachbarinnen", "neighbour", "neighbours"),
    Noun("m", "Gärtner", "Gärtner", "gardener", "gardeners"),
    Noun("f", "Sängerin", "Sängerinnen", "singer", "singers"),
    Noun("m", "Student", "Studenten", "student", "students", accusative="Studenten"),
]
THINGS = [
    Noun("m", "Ball", "Bälle", "ball", "balls"),
    Noun("m", "Apfel", "Äpfel", "apple", "apples"),
    Noun("m", "Kuchen", "Kuchen", "cake", "cakes"),
    Noun("m", "Brief", "Briefe", "letter", "letters"),
    Noun("m", "Korb", "Körbe", "basket", "baskets"),
    Noun("m", "Stuhl", "Stühle", "chair", "chairs"),
    Noun("f", "Blume", "Blumen", "flower", "flowers"),
    Noun("f", "Lampe", "Lampen", "lamp", "lamps"),
    Noun("f", "Tasse", "Tassen", "cup", "cups"),
    Noun("f", "Kiste", "Kisten", "box", "boxes"),
    Noun("n", "Buch", "Bücher", "book", "books"),
    Noun("n", "Bild", "Bilder", "picture", "pictures"),
    Noun("n", "Fahrrad", "Fahrräder", "bicycle", "bicycles"),
    Noun("n", "Ei", "Eier", "egg", "eggs"),
]
VERBS = [
    Verb("sieht", "sehen", "gesehen", "see", "sees", "seen", of_people=True),
    Verb("findet", "finden", "gefunden", "find", "finds", "found", of_people=True),
    Verb("kauft", "kaufen", "gekauft", "buy", "buys", "bought"),
    Verb("verkauft", "verkaufen", "verkauft", "sell", "sells", "sold"),
    Verb("trägt", "tragen", "getragen", "carry", "carries", "carried", of_people=True),
    Verb("malt", "malen", "gemalt", "paint", "paints", "painted", of_people=True),
    Verb("sucht", "suchen", "gesucht", "seek", "seeks", "sought", of_people=True),
    Verb("holt", "holen", "geholt", "fetch", "fetches", "fetched", of_people=True),
    Verb("wäscht", "waschen", "gewaschen", "wash", "washes", "washed"),
    Verb("nimmt", "nehmen", "genommen", "take", "takes", "taken"),
    Verb("verliert", "verlieren", "verloren", "lose", "loses", "lost"),
    Verb("vergisst", "vergessen", "vergessen", "forget", "forgets", "forgotten", of_people=True),
    Verb("hebt", "heben", "gehoben", "pick", "picks", "picked", prefix="auf", particle="up"),
    Verb("wirft", "werfen", "geworfen", "throw", "throws", "thrown", prefix="weg", particle="away"),
    Verb(
        "bringt", "bringen", "gebracht", "bring", "brings", "brought", prefix="zurück", particle="back", of_people=True
    ),
]
THINKING = [
    Verb("glaubt", "glauben", "geglaubt", "believe", "believes", "believed"),
    Verb("sagt", "sagen", "gesagt", "say", "says", "said"),
    Verb("weiß", "wissen", "gewusst", "know", "knows", "known"),
    Verb("hofft", "hoffen", "gehofft", "hope", "hopes", "hoped"),
]
FOR_PEOPLE = [
    Phrase("alt", "old"),
    Phrase("jung", "young"),
    Phrase("klein", "small"),
    Phrase("groß", "tall"),
    Phrase("freundlich", "friendly"),
    Phrase("ungeduldig", "impatient"),
]
FOR_THINGS = [
    Phrase("alt", "old"),
    Phrase("neu", "new"),
    Phrase("klein", "small"),
    Phrase("rot", "red"),
    Phrase("blau", "blue"),
    Phrase("grün", "green"),
    Phrase("schwer", "heavy"),
    Phrase("gewöhnlich", "ordinary"),
]
TIMES = [
    Phrase("heute", "today"),
    Phrase("jetzt", "now"),
    Phrase("manchmal", "sometimes"),
    Phrase("am Abend", "in the evening"),
    Phrase("am Montag", "on Monday"),
]
PLACES = [
    Phrase("im Garten", "in the garden"),
    Phrase("in der Küche", "in the kitchen"),
    Phrase("auf dem Markt", "at the market"),
    Phrase("am Fluss", "by the river"),
    Phrase("vor dem Haus", "in front of the house"),
    Phrase("hinter der Schule", "behind the school"),
]
COUNTS = [Phrase("zwei", "two"), Phrase("drei", "three"), Phrase("vier", "four")]

# By gender, or "p" in the plural, nominative and accusative.
_THE = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das"), "p": ("die", "die")}
_THIS = {"m": ("dieser", "diesen"), "f": ("diese", "diese"), "n": ("dieses", "dieses"), "p": ("diese", "diese")}
_A = {"m": ("ein", "einen"), "f": ("eine", "eine"), "n": ("ein", "ein")}
# An adjective's ending after these, and after "ein" or a number.
_WEAK = {"m": ("e", "en"), "f": ("e", "e"), "n": ("e", "e"), "p": ("en", "en")}
_STRONG = {"m": ("er", "en"), "f": ("e", "e"), "n": ("es", "es"), "p": ("e", "e")}


class _Parts(NamedTuple):
    """What a sentence says: who does what to whom, where, and whether it is done."""

    subject: NounPhrase
    verb: Verb
    thing: NounPhrase
    place: Phrase
    perfect: bool


class _Choices:
    """Takes a sentence's random numbers one after the other; as many as there are for any sentence."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers = iter(numbers)

    def of(self, options: list):
        return options[int(next(self._numbers) * len(options))]

    def chance(self, probability: float) -> bool:
        return next(self._numbers) < probability


def write_pair(numbers: list[float]) -> tuple[str, str]:
    """A German sentence and its English translation.

    Args:
        numbers: ``NUM_CHOICES`` random numbers from U[0, 1).
    """
    choose = _Choices(numbers)
    verb: Verb = choose.of(VERBS)
    subject = _noun_phrase(choose, PEOPLE, FOR_PEOPLE, accusative=False)
    about_people = choose.chance(0.4) and verb.of_people
    nouns, adjectives = (PEOPLE, FOR_PEOPLE) if about_people else (THINGS, FOR_THINGS)
    thing = _noun_phrase(choose, nouns, adjectives, accusative=True)
    place = choose.of(PLACES) if choose.chance(0.4) else Phrase("", "")
    perfect = choose.chance(0.4)
    kind = choose.of([_statement, _after_adverb, _question, _clause])
    german, english, mark = kind(choose, _Parts(subject, verb, thing, place, perfect))
    return _sentence(german, mark), _sentence(english, mark)


def _noun_phrase(choose: _Choices, nouns: list[Noun], adjectives: list[Phrase], accusative: bool) -> NounPhrase:
    noun: Noun = choose.of(nouns)
    determiner = choose.of(["the", "the", "a", "a", "this", "the plural", "these", "count"])
    adjective: Phrase = choose.of(adjectives) if choose.chance(0.5) else Phrase("", "")
    count: Phrase = choose.of(COUNTS)
    is_plural = determiner in ("the plural", "these", "count")
    form = "p" if is_plural else noun.gender
    singular = noun.accusative if accusative and noun.accusative else noun.singular
    german_noun, english_noun = (noun.plural, noun.english_plural) if is_plural else (singular, noun.english)
    following = adjective.english or english_noun
    article, english_article, endings = {
        "the": (_THE, "the", _WEAK),
        "the plural": (_THE, "the", _WEAK),
        "this": (_THIS, "this", _WEAK),
        "these": (_THIS, "these", _WEAK),
        "a": (_A, "an" if following[0] in "aeiou" else "a", _STRONG),
        "count": ({"p": (count.german, count.german)}, count.english, _STRONG),
    }[determiner]
    ending = endings[form][accusative] if adjective.german else ""
    german = _join(article[form][accusative], adjective.german + ending, german_noun)
    return NounPhrase(german, _join(english_article, adjective.english, english_noun), is_plural)


def _statement(choose: _Choices, parts: _Parts) -> tuple[str, str, str]:
    finite, last = _verb_second(parts)
    german = _join(parts.subject.german, finite, parts.thing.german, parts.place.german, last)
    return german, _english_clause(parts), "."


def _after_adverb(choose: _Choices, parts: _Parts) -> tuple[str, str, str]:
    time = choose.of(TIMES)
    finite, last = _verb_second(parts)
    german = _join(time.german, finite, parts.subject.german, parts.thing.german, parts.place.german, last)
    return german, _join(time.english, _english_clause(parts)), "."


def _question(choose: _Choices, parts: _Parts) -> tuple[str, str, str]:
    subject, verb, thing, place, perfect = parts
    finite, last = _verb_second(parts)
    german = _join(finite, subject.german, thing.german, place.german, last)
    if perfect:
        asking, form = ("have" if subject.is_plural else "has"), verb.english_participle
    else:
        asking, form = ("do" if subject.is_plural else "does"), verb.english
    return german, _join(asking, subject.english, form, verb.particle, thing.english, place.english), "?"


def _clause(choose: _Choices, parts: _Parts) -> tuple[str, str, str]:
    subject, verb, thing, place, perfect = parts
    thinking: Verb = choose.of(THINKING)
    who = _noun_phrase(choose, PEOPLE, FOR_PEOPLE, accusative=False)
    thinks = thinking.plural if who.is_plural else thinking.singular
    if perfect:
        last = _join(verb.prefix + verb.participle, "haben" if subject.is_plural else "hat")
    else:
        last = verb.prefix + (verb.plural if subject.is_plural else verb.singular)
    german = _join(who.german, f"{thinks},", "dass", subject.german, thing.german, place.german, last)
    saying = thinking.english if who.is_plural else thinking.english_singular
    return german, _join(who.english, saying, "that", _english_clause(parts)), "."


def _verb_second(parts: _Parts) -> tuple[str, str]:
    """The finite verb of a German main clause, and what stands at its end."""
    verb, is_plural = parts.verb, parts.subject.is_plural
    if parts.perfect:
        return ("haben" if is_plural else "hat"), verb.prefix + verb.participle
    return (verb.plural if is_plural else verb.singular), verb.prefix


def _english_clause(parts: _Parts) -> str:
    subject, verb, thing, place, perfect = parts
    if perfect:
        form = _join("have" if subject.is_plural else "has", verb.english_participle)
    else:
        form = verb.english if subject.is_plural else verb.english_singular
    return _join(subject.english, form, verb.particle, thing.english, place.english)


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)


def _sentence(text: str, mark: str) -> str:
    return text[0].upper() + text[1:] + mark
