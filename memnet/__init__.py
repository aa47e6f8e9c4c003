"""memnet: memory-augmented networks on one differentiable memory interface."""

from memnet.access import Access, ReadAccess, ReadWriteAccess
from memnet.addressing import (
    Addressing,
    ContentAddressing,
    HardAddressing,
    LocationAddressing,
    MonotonicLocalAddressing,
    PredictiveLocalAddressing,
    SampledSlots,
)
from memnet.cells import Cell, FeedForwardController, LSTMController, MemoryCell
from memnet.clipped_sgd import ClippedSGD, HalvingLR
from memnet.ensemble import Ensemble
from memnet.loading import load
from memnet.models import (
    GNMT,
    LSTM,
    NTM,
    AdjacentTying,
    AttentionDecoder,
    BagOfWords,
    Decoder,
    Encoder,
    LateSoftmax,
    LayerwiseTying,
    MemN2N,
    PeekyDecoder,
    PlainDecoder,
    PositionEncoding,
    RecurrentEncoder,
    SentenceEncoding,
    Seq2Seq,
    StoryReader,
    Transformer,
    Tying,
)
from memnet.normalizers import Entmax15, GumbelStraightThrough, Hard, Normalizer, Softmax, Sparsemax, TopK
from memnet.optim import GravesRMSprop
from memnet.recording import Trace, record
from memnet.reinforce import reinforce_loss
from memnet.scores import AdditiveScore, CosineScore, DotScore, GeneralScore, ScaledDotScore, Score
from memnet.starts import (
    ConstantMemory,
    FirstSlot,
    LearnedMemory,
    LearnedWeights,
    MemoryStart,
    RandomMemory,
    WeightsStart,
)
from memnet.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "GNMT",
    "LSTM",
    "NTM",
    "Access",
    "AdditiveScore",
    "Addressing",
    "AdjacentTying",
    "AttentionDecoder",
    "BagOfWords",
    "Cell",
    "ClippedSGD",
    "ConstantMemory",
    "ContentAddressing",
    "CosineScore",
    "Decoder",
    "DotScore",
    "Encoder",
    "Ensemble",
    "Entmax15",
    "FeedForwardController",
    "FirstSlot",
    "GeneralScore",
    "GravesRMSprop",
    "GumbelStraightThrough",
    "HalvingLR",
    "Hard",
    "HardAddressing",
    "LSTMController",
    "LateSoftmax",
    "LayerwiseTying",
    "LearnedMemory",
    "LearnedWeights",
    "LocationAddressing",
    "MemN2N",
    "MemoryCell",
    "MemoryStart",
    "MonotonicLocalAddressing",
    "Normalizer",
    "PeekyDecoder",
    "PlainDecoder",
    "PositionEncoding",
    "PredictiveLocalAddressing",
    "RandomMemory",
    "ReadAccess",
    "ReadWriteAccess",
    "RecurrentEncoder",
    "SampledSlots",
    "ScaledDotScore",
    "Score",
    "SentenceEncoding",
    "Seq2Seq",
    "Softmax",
    "Sparsemax",
    "StoryReader",
    "TopK",
    "Trace",
    "Transformer",
    "Tying",
    "WeightsStart",
    "load",
    "record",
    "reinforce_loss",
    "unroll",
]
