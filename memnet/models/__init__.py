"""Whole models: plain modules, usable without Lightning."""

from memnet.models.decoders import AttentionDecoder, Decoder, PeekyDecoder, PlainDecoder
from memnet.models.encoders import Encoder, RecurrentEncoder
from memnet.models.gnmt import GNMT
from memnet.models.lstm import LSTM
from memnet.models.ntm import NTM
from memnet.models.seq2seq import Seq2Seq
from memnet.models.transformer import Transformer

__all__ = [
    "GNMT",
    "LSTM",
    "NTM",
    "AttentionDecoder",
    "Decoder",
    "Encoder",
    "PeekyDecoder",
    "PlainDecoder",
    "RecurrentEncoder",
    "Seq2Seq",
    "Transformer",
]
