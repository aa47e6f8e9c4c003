"""Addressing schemes: from what the heads ask for to weights over the memory's slots."""

from memnet.addressing.base import Addressing
from memnet.addressing.content import ContentAddressing
from memnet.addressing.location import LocationAddressing, LocationState

__all__ = ["Addressing", "ContentAddressing", "LocationAddressing", "LocationState"]
