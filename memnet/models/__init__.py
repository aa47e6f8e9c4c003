"""Whole models: plain modules, usable without Lightning."""

from memnet.models.decoders import AttentionDecoder, Decoder, PeekyDecoder, PlainDecoder
from memnet.models.dnc import DNC
from memnet.models.encoders import Encoder, RecurrentEncoder
from memnet.models.entity_network import EntityNetwork
from memnet.models.gnmt import GNMT
from memnet.models.lstm import LSTM
from memnet.models.mann import MANN
from memnet.models.memn2n import AdjacentTying, LateSoftmax, LayerwiseTying, MemN2N, Tying
from memnet.models.ntm import NTM
from memnet.models.sam import SAM
from memnet.models.sentence_reader import SentenceReader
from memnet.models.seq2seq import Seq2Seq
from memnet.models.story_encoding import BagOfWords, LearnedMask, PositionEncoding, SentenceEncoding
from memnet.models.story_reader import StoryReader
from memnet.models.story_transformer import StoryTransformer
from memnet.models.transformer import Transformer

__all__ = [
    "DNC",
    "GNMT",
    "LSTM",
    "MANN",
    "NTM",
    "SAM",
    "AdjacentTying",
    "AttentionDecoder",
    "BagOfWords",
    "Decoder",
    "Encoder",
    "EntityNetwork",
    "LateSoftmax",
    "LayerwiseTying",
    "LearnedMask",
    "MemN2N",
    "PeekyDecoder",
    "PlainDecoder",
    "PositionEncoding",
    "RecurrentEncoder",
    "SentenceEncoding",
    "SentenceReader",
    "Seq2Seq",
    "StoryReader",
    "StoryTransformer",
    "Transformer",
    "Tying",
]
