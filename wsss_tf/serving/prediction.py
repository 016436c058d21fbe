"""What a server answers for one picture, and what can go wrong."""

import dataclasses

import numpy as np

from wsss_tf.errors import without_nodes


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
      mask_bytes: palette PNG of the picture's own size.
      classes: {name: {"id": mask value, "pixels": int, "score": float}} of the classes in the mask.
    """

    mask_bytes: bytes
    classes: dict

    @classmethod
    def from_outputs(cls, mask_bytes, classes, pixels, scores):
        """Return the prediction from one row of each output of the signature serving_default."""
        present = np.flatnonzero(np.asarray(pixels) > 0)
        return cls(
            mask_bytes,
            {
                name: {
                    "id": int(value),
                    "pixels": int(pixels[value]),
                    "score": round(float(scores[value]), 6),
                }
                for name, value in zip(classes.split("\n"), present)
            },
        )


class PictureRefused(Exception):
    """The server works, and refuses this picture.

    Args:
      message: the server's; what TensorFlow adds about the place in the graph is left out.
    """

    def __init__(self, message):
        super().__init__(" ".join(without_nodes(message).split()))


class ServerUnreachable(Exception):
    """No answer, after all the retries."""


class NoAnswerInTime(ServerUnreachable):
    """A server that is there has not answered within the time limit."""
