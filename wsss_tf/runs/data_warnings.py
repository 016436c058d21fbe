"""What is said of a data set before anything is made from it."""

from wsss_tf.data.agreement import compare_labels_with_masks
from wsss_tf.data.bit_depth import unused_bits
from wsss_tf.errors import warn


def warn_of_data(source, compare_masks=True):
    """Say what else is in the folder, that pictures are nearly black, or labels and masks differ.

    Args:
      source: `data.source.Source`.
      compare_masks: compare labels with masks.

    Raises:
      UserError: most labels differ from the masks.
    """
    differences = compare_labels_with_masks(source) if compare_masks else []
    for line in (*source.warnings, unused_bits(source.paths or ()), *differences):
        if line:
            warn(line)
