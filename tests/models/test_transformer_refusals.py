"""What the Transformer refuses, and in which words."""

import re

import pytest

from memnet import ContentAddressing, CosineScore, LocationAddressing, Transformer
from tests.models.test_transformer import LENGTHS, batch, make


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source_vocab_size": 0}, "source_vocab_size is 0, but must be a whole number of at least 1."),
        ({"target_vocab_size": -1}, "target_vocab_size is -1, but must be a whole number of at least 1."),
        ({"model_size": 0}, "model_size is 0, but must be a whole number of at least 1."),
        ({"num_heads": 0}, "num_heads is 0, but must be a whole number of at least 1."),
        ({"num_heads": 3}, "num_heads is 3, but must divide model_size, which is 8."),
        ({"num_encoder_layers": 0}, "num_encoder_layers is 0, but must be a whole number of at least 1."),
        ({"num_decoder_layers": 0}, "num_decoder_layers is 0, but must be a whole number of at least 1."),
        ({"feed_forward_size": 0}, "feed_forward_size is 0, but must be a whole number of at least 1."),
        ({"max_source_length": 0}, "max_source_length is 0, but must be a whole number of at least 1."),
        ({"dropout": 1.0}, "dropout is 1.0, but must be at least 0 and less than 1."),
        ({"dropout": -0.1}, "dropout is -0.1, but must be at least 0 and less than 1."),
        (
            {"share_vocabulary": True},
            "share_vocabulary is True, but source_vocab_size is 13 and target_vocab_size is 11: they must be equal.",
        ),
        (
            {"addressing": lambda size: LocationAddressing(ContentAddressing(CosineScore(size)))},
            "addressing makes a LocationAddressing, which remembers something from step to step, "
            "but must make a scheme that does not, such as a ContentAddressing.",
        ),
    ],
)
def test_bad_settings(unchecked, settings, message):
    settings = {"source_vocab_size": 13, "target_vocab_size": 11, "model_size": 8, "num_heads": 2} | settings
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Transformer(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t, n: (s[:, :0], t, None), "source has shape (3, 0), but must be (batch, time), none of them 0."),
        (lambda s, t, n: (s, t[:, :0], n), "target_in has shape (3, 0), but must be (batch, time), none of them 0."),
        (lambda s, t, n: (s + 13, t, n), "source holds symbol "),
        (lambda s, t, n: (s - 30, t, n), "source holds symbol -"),
        (lambda s, t, n: (s, t + 11, n), "target_in holds symbol "),
        (lambda s, t, n: (s, t, n - 1), "source_lengths holds 0, but must lie between 1 and the inputs' 6 time steps."),
        (lambda s, t, n: (s, t, n + 1), "source_lengths holds 7, but must lie between 1 and the inputs' 6 time steps."),
        (lambda s, t, n: (s, t, n[:2]), "source_lengths has shape (2,), but the inputs hold 3 sequences."),
        (
            lambda s, t, n: (s.repeat(1, 2), t, n + 6),
            "source holds 12 symbols, but the model's max_source_length is 6.",
        ),
    ],
)
def test_bad_input(unchecked, change, message):
    model = make(max_source_length=6)
    source, target_in = batch()
    model(source, target_in, LENGTHS)
    with pytest.raises(ValueError, match=re.escape(message)):
        model(*change(source, target_in, LENGTHS))
