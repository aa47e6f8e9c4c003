"""Symbols of a text and the numbers that models know them by."""

from collections.abc import Sequence
from typing import Protocol

from memnet.decoding import BOS, EOS, PAD, UNK

SPECIAL_SYMBOLS = {PAD: "<pad>", BOS: "<s>", EOS: "</s>", UNK: "<unk>"}
"""How the symbols that every vocabulary reserves are shown."""


class Vocabulary(Protocol):
    """A fixed set of symbols. Ids 0 to 3 are ``memnet.decoding``'s PAD, BOS, EOS and UNK."""

    def __len__(self) -> int:
        """How many symbols there are, the reserved ones counted."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without BOS and EOS. What the vocabulary lacks becomes UNK.

        Args:
            texts: any number.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text up to the first EOS, for a person to read.

        Args:
            ids: with or without BOS, EOS and PAD.
        """

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """Each id's own symbol, for the axes of a picture.

        Args:
            ids: any.
        """


class CharacterVocabulary:
    """Each character of an alphabet is a symbol, in the alphabet's order.

    >>> vocabulary = CharacterVocabulary("abc")
    >>> vocabulary.encode(["cab", "ax"])
    [[6, 4, 5], [4, 3]]
    >>> vocabulary.decode([6, 4, 5, 2, 0])
    'cab'

    Args:
        alphabet: the characters, each once.

    Raises:
        ValueError: the alphabet is empty or holds a character twice.
    """

    def __init__(self, alphabet: str) -> None:
        twice = [character for character in dict.fromkeys(alphabet) if alphabet.count(character) > 1]
        if not alphabet or twice:
            fault = f"holds {twice[0]!r} twice" if twice else "is empty"
            raise ValueError(f"alphabet {fault}, but must be characters, each once.")
        self._symbols = [SPECIAL_SYMBOLS[number] for number in range(len(SPECIAL_SYMBOLS))] + list(alphabet)
        self._ids = {character: len(SPECIAL_SYMBOLS) + place for place, character in enumerate(alphabet)}

    def __len__(self) -> int:
        return len(self._symbols)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        number = self._ids.get
        return [[number(character, UNK) for character in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.symbols([number for number in up_to_end(ids) if number not in (PAD, BOS)]))

    def symbols(self, ids: Sequence[int]) -> list[str]:
        return [self._symbols[number] for number in ids]


def up_to_end(ids: Sequence[int]) -> list[int]:
    """What stands before the first EOS; all where there is none.

    Args:
        ids: symbols.
    """
    numbers = list(ids)
    return numbers[: numbers.index(EOS)] if EOS in numbers else numbers
