"""What recurrent encoder-decoders refuse, each in one sentence."""

import pytest
import torch
from torch import nn

from memnet import GNMT, AttentionDecoder, ContentAddressing, DotScore, PlainDecoder, RecurrentEncoder, Seq2Seq

SIZES = {"embedding_size": 4, "hidden_size": 6}


def encoder(**options):
    return RecurrentEncoder(**{"vocab_size": 11, **SIZES, **options})


def decoder(**options):
    return PlainDecoder(**{"vocab_size": 9, **SIZES, **options})


def attention(key_width=6, **options):
    """With a dot score over keys of ``key_width``."""
    addressing = ContentAddressing(DotScore(key_width))
    return AttentionDecoder(**{"vocab_size": 9, "addressing": addressing, "memory_size": 6, **SIZES, **options})


def symbols(*shape):
    return torch.full(shape, 4)


@pytest.mark.parametrize(
    ("source", "lengths", "sentence"),
    [
        (torch.tensor([[4, 11]]), None, "source holds symbol 11, but must hold numbers from 0 to 10 only."),
        (torch.tensor([[4, -1]]), None, "source holds symbol -1, but must hold numbers from 0 to 10 only."),
        (symbols(2, 0), None, "source has shape (2, 0), but must be (batch, time), none of them 0."),
        (symbols(3), None, "source has shape (3,), but must be (batch, time), none of them 0."),
        (torch.ones(2, 3), None, "source has dtype torch.float32, but must hold symbols' numbers (torch.int64)."),
        (symbols(2, 3), [3, 0], "source_lengths holds 0, but must lie between 1 and the inputs' 3 time steps."),
        (symbols(2, 3), [3, 4], "source_lengths holds 4, but must lie between 1 and the inputs' 3 time steps."),
        (symbols(2, 3), [3], "source_lengths has shape (1,), but the inputs hold 2 sequences."),
        (
            symbols(2, 3),
            [3.0, 2.0],
            "source_lengths has dtype torch.float32, but must hold whole numbers (torch.int64).",
        ),
        (symbols(2, 9), None, "source holds 9 symbols, but the model's max_source_length is 8."),
        (symbols(2, 9), [9, 2], "source holds 9 symbols, but the model's max_source_length is 8."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sources(unchecked, source, lengths, sentence):
    model = Seq2Seq(encoder(), attention(), max_source_length=8)
    with pytest.raises(ValueError) as error:
        model.encode(source, None if lengths is None else torch.tensor(lengths))
    assert str(error.value) == sentence


def test_padding_does_not_count_for_the_longest_source():
    Seq2Seq(encoder(), attention(), max_source_length=8).encode(symbols(2, 9), torch.tensor([8, 2]))


@pytest.mark.parametrize(
    ("target_in", "sentence"),
    [
        (torch.tensor([[4, 9]]), "target_in holds symbol 9, but must hold numbers from 0 to 8 only."),
        (symbols(1, 0), "target_in has shape (1, 0), but must be (batch, time), none of them 0."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_targets(unchecked, target_in, sentence):
    with pytest.raises(ValueError) as error:
        Seq2Seq(encoder(), attention())(symbols(1, 3), target_in)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: Seq2Seq(encoder(unit=nn.GRU), decoder()),
            "encoder.unit is GRU, but decoder.unit is LSTM: they must be the same, because the decoder starts from the "
            "encoder's last state.",
        ),
        (
            lambda: Seq2Seq(encoder(bidirectional=True), attention()),
            "decoder.memory_size is 6, but encoder.output_size is 12: they must be equal.",
        ),
        (lambda: attention(8), "addressing.emit_size is 8, but hidden_size is 6: they must be equal."),
        (
            lambda: attention(8, project_query=True),
            "addressing does not fit this decoder: key_size is 8, but the memory's key width is 6: they must be equal.",
        ),
        (
            lambda: attention(key_size=5),
            "addressing does not fit this decoder: key_size is 6, but the memory's key width is 5: they must be equal.",
        ),
        (
            lambda: Seq2Seq(encoder(), decoder(), max_source_length=0),
            "max_source_length is 0, but must be a whole number of at least 1.",
        ),
        (lambda: decoder(vocab_size=0), "vocab_size is 0, but must be a whole number of at least 1."),
        (lambda: encoder(vocab_size=0), "vocab_size is 0, but must be a whole number of at least 1."),
        (lambda: encoder(embedding_size=0), "embedding_size is 0, but must be a whole number of at least 1."),
        (lambda: decoder(embedding_size=0), "embedding_size is 0, but must be a whole number of at least 1."),
        (lambda: decoder(hidden_size=0), "hidden_size is 0, but must be a whole number of at least 1."),
        (lambda: encoder(num_layers=0), "num_layers is 0, but must be a whole number of at least 1."),
        (lambda: attention(key_size=0), "key_size is 0, but must be a whole number of at least 1."),
        (lambda: attention(memory_size=0), "memory_size is 0, but must be a whole number of at least 1."),
        (lambda: attention(attention_size=0), "attention_size is 0, but must be a whole number of at least 1."),
        (lambda: decoder(dropout=1.5), "dropout is 1.5, but must be at least 0 and less than 1."),
        (lambda: encoder(dropout=-0.1), "dropout is -0.1, but must be at least 0 and less than 1."),
        (lambda: decoder(unit=nn.RNN), "unit is RNN, but must be torch.nn.LSTM or torch.nn.GRU."),
        (
            lambda: GNMT(11, 9, 6, num_layers=1),
            "num_layers is 1, but must be at least 2: the first layer is of another kind.",
        ),
        (lambda: GNMT(0, 9, 6), "source_vocab_size is 0, but must be a whole number of at least 1."),
        (lambda: GNMT(11, 0, 6), "target_vocab_size is 0, but must be a whole number of at least 1."),
        (lambda: GNMT(11, 9, 0), "hidden_size is 0, but must be a whole number of at least 1."),
        (lambda: GNMT(11, 9, 6, dropout=1), "dropout is 1, but must be at least 0 and less than 1."),
        (
            lambda: GNMT(11, 9, 6, addressing=ContentAddressing(DotScore(5))),
            "addressing.emit_size is 5, but hidden_size is 6: they must be equal.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes(unchecked, build, sentence):
    with pytest.raises(ValueError) as error:
        build()
    assert str(error.value) == sentence
