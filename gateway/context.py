"""What every operation is handed: the ports and settings of one gateway process."""

from dataclasses import dataclass

from gateway.metadata.store import Metadata
from gateway.objects.port import Objects
from placement.clock import Clock, Randomness


@dataclass(slots=True)
class Context:
    """One per process. Handlers see ports, never adapters."""

    metadata: Metadata
    objects: Objects
    clock: Clock
    randomness: Randomness
    region: str
