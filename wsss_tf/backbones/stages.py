"""What all backbones have in common: the names of their feature maps, and how they are frozen."""

STAGES = ("stage1", "stage2", "stage3", "stage4")


def check_frozen_stages(count):
    """Check a backbone's `frozen_stages`.

    Raises:
      ValueError: it is not 0 to 4.
    """
    if count not in range(5):
        raise ValueError(
            f"frozen_stages={count}; choose 0 (train everything), 1 (freeze the stem), or 2 to 4 "
            "(and stages 1 to 3)."
        )
