"""A subword vocabulary, learned from text by the sentencepiece library."""

import io
import re
from collections.abc import Sequence
from typing import Any

from memnet.checks import check_positive
from memnet.decoding import BOS, EOS, PAD, UNK

from .vocabulary import SPECIAL_SYMBOLS, up_to_end


class Subwords:
    """Frequent words and parts of words, by byte-pair encoding (Sennrich et al. 2016, Kudo and Richardson 2018).

    ``decode`` gives plain text back: spaces are part of the symbols. Characters that the texts it was learned from lack
    become UNK. The library's unigram model would do as well, but it takes many times as long, and its sums depend on
    the number of threads; byte pairs are counted, so that the same texts give the same vocabulary everywhere. Half a
    million words take half a second, so that nothing needs to be kept on disk.

    Args:
        model: a sentencepiece model as bytes, such as ``Subwords.train(...).model``.

    Raises:
        ImportError: the ``translation`` extra is not installed.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = _sentencepiece().SentencePieceProcessor(model_proto=model)

    @classmethod
    def train(cls, texts: Sequence[str], size: int) -> "Subwords":
        """Learns a vocabulary.

        Args:
            texts: what it should be good for.
            size: how many symbols, the four reserved ones counted.

        Raises:
            ValueError: the texts have too few different parts for so many symbols, or more characters than that.
            ImportError: the ``translation`` extra is not installed.
        """
        check_positive("vocab_size", size)
        written = io.BytesIO()
        try:
            _sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=written,
                vocab_size=size,
                model_type="bpe",
                character_coverage=1.0,
                normalization_rule_name="identity",
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                unk_surface=SPECIAL_SYMBOLS[UNK],
                # Longer lines would be left out without a word.
                max_sentence_length=max([4192, *(len(text.encode()) + 1 for text in texts)]),
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_reason(str(error), size)) from error
        return cls(written.getvalue())

    def __len__(self) -> int:
        return len(self._processor)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts), num_threads=1)

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode(up_to_end(ids))

    def symbols(self, ids: Sequence[int]) -> list[str]:
        return [SPECIAL_SYMBOLS.get(number) or self._processor.id_to_piece(number) for number in ids]


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError("Subwords need the sentencepiece package: pip install 'memnet[translation]'.") from error
    return sentencepiece


def _reason(message: str, size: int) -> str:
    if most := re.search(r"value <= (\d+)", message):
        return f"vocab_size is {size}, but the training texts have parts for at most {most[1]} symbols."
    if least := re.search(r"(\d+) vs (\d+)", message):
        return f"vocab_size is {size}, but must be more than the texts' {least[2]} characters and reserved symbols."
    return f"vocab_size is {size}, and sentencepiece can make no vocabulary of the training texts: {message}"
