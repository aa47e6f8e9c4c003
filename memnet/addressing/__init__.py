"""Addressing schemes: from what the heads ask for to weights over the memory's slots."""

from memnet.addressing.allocation import AllocationAddressing, AllocationState
from memnet.addressing.base import Addressing
from memnet.addressing.content import ContentAddressing
from memnet.addressing.gate import SlotGate
from memnet.addressing.hard import HardAddressing, SampledSlots
from memnet.addressing.least_used import LeastUsedAddressing, LeastUsedState
from memnet.addressing.link import LinkAddressing, LinkState
from memnet.addressing.location import LocationAddressing, LocationState
from memnet.addressing.position import (
    LocalAddressing,
    LocalState,
    MonotonicLocalAddressing,
    PredictiveLocalAddressing,
)

__all__ = [
    "Addressing",
    "AllocationAddressing",
    "AllocationState",
    "ContentAddressing",
    "HardAddressing",
    "LeastUsedAddressing",
    "LeastUsedState",
    "LinkAddressing",
    "LinkState",
    "LocalAddressing",
    "LocalState",
    "LocationAddressing",
    "LocationState",
    "MonotonicLocalAddressing",
    "PredictiveLocalAddressing",
    "SampledSlots",
    "SlotGate",
]
