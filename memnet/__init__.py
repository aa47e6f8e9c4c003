"""memnet: memory-augmented networks on one differentiable memory interface."""

from memnet.access import Access, ReadAccess, ReadWriteAccess
from memnet.addressing import Addressing, ContentAddressing, LocationAddressing
from memnet.cells import Cell, FeedForwardController, LSTMController, MemoryCell
from memnet.loading import load
from memnet.models import LSTM, NTM
from memnet.normalizers import Entmax15, Hard, Normalizer, Softmax, Sparsemax, TopK
from memnet.optim import GravesRMSprop
from memnet.recording import Trace, record
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
    "LSTM",
    "NTM",
    "Access",
    "AdditiveScore",
    "Addressing",
    "Cell",
    "ConstantMemory",
    "ContentAddressing",
    "CosineScore",
    "DotScore",
    "Entmax15",
    "FeedForwardController",
    "FirstSlot",
    "GeneralScore",
    "GravesRMSprop",
    "Hard",
    "LSTMController",
    "LearnedMemory",
    "LearnedWeights",
    "LocationAddressing",
    "MemoryCell",
    "MemoryStart",
    "Normalizer",
    "RandomMemory",
    "ReadAccess",
    "ReadWriteAccess",
    "ScaledDotScore",
    "Score",
    "Softmax",
    "Sparsemax",
    "TopK",
    "Trace",
    "WeightsStart",
    "load",
    "record",
    "unroll",
]
