"""Whole models: plain modules, usable without Lightning."""

from memnet.models.lstm import LSTM
from memnet.models.ntm import NTM

__all__ = ["LSTM", "NTM"]
