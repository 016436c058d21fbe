"""AffinityNet's last layer: how alike neighbouring pixels are."""

import keras

from wsss_tf import ops


@keras.saving.register_keras_serializable("wsss_tf")
class PairAffinity(keras.layers.Layer):
    """Affinities of the pairs of pixels within a radius.

    It has no weights: it is a layer so that a network knows the radius that it was trained with.

    Args:
      radius: pixels of the feature map; maps under 2 radius + 1 pixels have a smaller one,
        `ops.search_radius`.

    Call: features [B, h, w, D] to float32 [B, O, M] in (0, 1], `ops.pairwise_affinity`. Where h and
    w are known in the running graph only, `radius` has to be given for small maps, as `radius_on`
    says; without it the layer's own is taken.

        affinity = PairAffinity(5, name="affinity")(features)
    """

    def __init__(self, radius=5, **kwargs):
        super().__init__(autocast=False, **kwargs)  # pairs are compared in float32
        self.radius = radius

    def radius_on(self, height, width):
        """Return the radius that is used on a map of that size, an int."""
        return ops.search_radius(height, width, self.radius)

    def call(self, features, radius=None):
        return ops.pairwise_affinity(features, self._radius(features, radius))

    def _radius(self, features, radius):
        size = features.shape[1:3]
        if radius is None:
            return self.radius if None in size else self.radius_on(*size)
        return radius

    def compute_output_spec(self, features, radius=None):
        radius = self._radius(features, radius)
        batch, height, width = features.shape[:3]
        margin, pixels = max(radius - 1, 0), None
        if None not in (height, width):
            pixels = (height - margin) * (width - 2 * margin)
        return keras.KerasTensor((batch, len(ops.pair_offsets(radius)), pixels), "float32")

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}
