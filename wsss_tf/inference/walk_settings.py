"""How random walks are done where nothing else is said. No TensorFlow."""

from typing import NamedTuple


class WalkSettings(NamedTuple):
    """The settings of a walk that come with the network that it goes by.

    Attributes:
      affinity_power, steps: as in `random_walk.label_by_walk`.
      threshold: likewise, for maps whose best threshold is 0.15; None where the background walks.
    """

    affinity_power: float
    steps: int
    threshold: float | None = None


# SEAM's; AffinityNet's own are 8 and 256.
AFFINITY_WALK = WalkSettings(affinity_power=8.0, steps=64)
IRN_WALK = WalkSettings(affinity_power=10.0, steps=256, threshold=0.25)
