"""AffinityNet's loss: pairs of confident pixels, balanced by kind.

Letters as in `wsss_tf.ops`: O pair offsets, M pixels that start a pair.
"""

from keras import ops

from wsss_tf.masks import IGNORE
from wsss_tf.ops import EPSILON, pair_values

# Half for pairs that belong together, half for pairs that do not.
TERM_WEIGHTS = {"bg": 0.25, "fg": 0.25, "neg": 0.5}


def pair_kinds(labels, radius):
    """Return which pairs should be alike and which not.

    Args:
      labels: integer [B, h, w]: 0 confident background, 1.. confident classes, 255 neither.
      radius: as in `ops.pair_values`.

    Returns:
      Dict of float32 [B, O, M] in {0, 1}: "bg" both background, "fg" both of one class, "neg"
      different (background against a class is so too). A pair with an end of 255 is in none.

    Source: AffinityNet, section 3.3; official `ExtractAffinityLabelInRadius`.
    """
    start, end = pair_values(ops.cast(labels, "int32"), radius)
    start = start[:, None]
    known = (start != IGNORE) & (end != IGNORE)
    equal = start == end
    kinds = {"bg": equal & (start == 0), "fg": equal & (start != 0) & known, "neg": ~equal & known}
    return {name: ops.cast(mask, "float32") for name, mask in kinds.items()}


def affinity_terms(affinity, kinds):
    """Return the sums and counts of the three kinds of pairs.

    Args:
      affinity: [B, O, M] in (0, 1], `ops.pairwise_affinity`.
      kinds: what `pair_kinds` gives.

    Returns:
      Dict of (total, count), both [B]: the sum of -ln(a + 1e-5) over the pairs of "bg" and of "fg",
      of -ln(1 + 1e-5 - a) over those of "neg", and how many they are. The loss is
      sum over the kinds of TERM_WEIGHTS * total / (count + 1e-5), counted over the global batch.

    Source: AffinityNet, equations 4 to 7; official `train_aff.py`.
    """
    alike = -ops.log(affinity + EPSILON)
    unlike = -ops.log(1.0 + EPSILON - affinity)
    terms = {}
    for name, mask in kinds.items():
        values = unlike if name == "neg" else alike
        terms[name] = (ops.sum(mask * values, axis=(1, 2)), ops.sum(mask, axis=(1, 2)))
    return terms
