"""Addressing schemes: from what the heads ask for to weights over the memory's slots."""

from memnet.addressing.base import Addressing
from memnet.addressing.content import ContentAddressing
from memnet.addressing.hard import HardAddressing, SampledSlots
from memnet.addressing.location import LocationAddressing, LocationState
from memnet.addressing.position import (
    LocalAddressing,
    LocalState,
    MonotonicLocalAddressing,
    PredictiveLocalAddressing,
)

__all__ = [
    "Addressing",
    "ContentAddressing",
    "HardAddressing",
    "LocalAddressing",
    "LocalState",
    "LocationAddressing",
    "LocationState",
    "MonotonicLocalAddressing",
    "PredictiveLocalAddressing",
    "SampledSlots",
]
