"""Requests that a server runs before it calls a new version ready.

The first request of each size is slower than the others: kernels are made and memory is found. A
server that replays these records has that behind it when the first client comes.
"""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup_requests(model_dir, sizes):
    """Write `assets.extra/tf_serving_warmup_requests`: a PredictionLog record for each size.

    Args:
      model_dir: the SavedModel's folder.
      sizes: (height, width) pairs of the pictures, which hold noise.

    Raises:
      ImportError: tensorflow-serving-api, which defines the records, is not installed.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = pathlib.Path(model_dir) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for height, width in sizes:
            picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "JPEG")
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "serving_default"
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([file.getvalue()]))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
