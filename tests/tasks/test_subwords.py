"""Subword vocabularies."""

from memnet.decoding import BOS, EOS, PAD, UNK
from tasks.held_out import draw_pairs
from tasks.phrasebook import NUM_CHOICES, write_pair
from tasks.sampling import TRAIN
from tasks.subwords import Subwords


def phrases():
    return [text for pair in draw_pairs(write_pair, NUM_CHOICES, TRAIN, 1, 200) for text in pair]


def test_subwords_give_texts_back():
    texts = phrases()
    vocabulary = Subwords.train(texts, 200)
    assert len(vocabulary) == 200
    ids = vocabulary.encode(texts)
    assert [vocabulary.decode([BOS, *row, EOS, 9, PAD]) for row in ids] == texts
    assert min(number for row in ids for number in row) > UNK
    assert vocabulary.symbols([PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert "".join(vocabulary.symbols(ids[0])) == "▁" + texts[0].replace(" ", "▁")


def test_subwords_are_a_function_of_the_texts():
    texts = phrases()
    one, two = Subwords.train(texts, 150), Subwords.train(texts, 150)
    again = Subwords(one.model)
    assert one.model == two.model
    assert one.encode(texts) == again.encode(texts) != Subwords.train(texts, 151).encode(texts)


def test_what_the_training_texts_lack_is_unknown():
    vocabulary = Subwords.train(["a b ab"] * 9, 9)
    ((*known, unknown),) = vocabulary.encode(["ab☃"])
    assert unknown == UNK and UNK not in known
    assert vocabulary.decode([*known, unknown]) == "ab<unk>"


def test_long_lines_count_too():
    """sentencepiece leaves out lines of more than 4,192 bytes unless it is told not to."""
    vocabulary = Subwords.train(["ab " * 2000 + "q", "ab"], 8)
    assert UNK not in vocabulary.encode(["q"])[0]
