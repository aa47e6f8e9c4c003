"""Whole models: plain modules, usable without Lightning."""

from memnet.models.decoders import AttentionDecoder, Decoder, PeekyDecoder, PlainDecoder
from memnet.models.encoders import Encoder, RecurrentEncoder
from memnet.models.gnmt import GNMT
from memnet.models.lstm import LSTM
from memnet.models.memn2n import AdjacentTying, LateSoftmax, LayerwiseTying, MemN2N, Tying
from memnet.models.ntm import NTM
from memnet.models.seq2seq import Seq2Seq
from memnet.models.story_encoding import BagOfWords, PositionEncoding, SentenceEncoding
from memnet.models.story_reader import StoryReader
from memnet.models.transformer import Transformer

__all__ = [
    "GNMT",
    "LSTM",
    "NTM",
    "AdjacentTying",
    "AttentionDecoder",
    "BagOfWords",
    "Decoder",
    "Encoder",
    "LateSoftmax",
    "LayerwiseTying",
    "MemN2N",
    "PeekyDecoder",
    "PlainDecoder",
    "PositionEncoding",
    "RecurrentEncoder",
    "SentenceEncoding",
    "Seq2Seq",
    "StoryReader",
    "Transformer",
    "Tying",
]
