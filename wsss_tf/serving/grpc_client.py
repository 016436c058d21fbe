"""Predictions over TensorFlow Serving's gRPC interface; needs the extra `serving`."""

import json

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from wsss_tf.errors import UserError
from wsss_tf.serving.prediction import NoAnswerInTime, PictureRefused, Prediction, ServerUnreachable

_OUTPUTS = ("mask_bytes", "classes", "pixels", "scores")
_AT_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


class GrpcClient:
    """Asks one model of one server; may be used by several threads.

    Args:
      target: such as "localhost:8500".
      model, version, timeout, retries: as in `rest.RestClient`; gRPC makes at most four retries.
    """

    def __init__(self, target, model, version=None, timeout=60, retries=4):
        self.target = target
        self._timeout = timeout
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if retries:
            policy = {
                "maxAttempts": min(retries + 1, 5),
                "initialBackoff": "0.5s",
                "maxBackoff": "8s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            }
            config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
            options.append(("grpc.service_config", json.dumps(config)))
        else:
            options.append(("grpc.enable_retries", 0))
        self._channel = grpc.insecure_channel(target, options)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._request = predict_pb2.PredictRequest(output_filter=_OUTPUTS)
        self._request.model_spec.name = model
        self._request.model_spec.signature_name = "serving_default"
        if version is not None:
            self._request.model_spec.version.value = version

    def check(self):
        """Ask for the model's state, once.

        Raises:
          UserError: no server there, or it has no such model, or none that is ready.
        """
        model = self._request.model_spec.name
        try:
            grpc.channel_ready_future(self._channel).result(timeout=min(self._timeout, 10))
        except grpc.FutureTimeoutError as error:
            raise UserError(
                f"no server at {self.target}; start one as scripts/serve shows, or give another "
                "--server."
            ) from error
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.CopyFrom(self._request.model_spec)
        service = model_service_pb2_grpc.ModelServiceStub(self._channel)
        try:
            answer = service.GetModelStatus(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise UserError(
                f"{self.target} has no model {model!r} ({_message(error)}); see --model."
            ) from error
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        states = [status.state for status in answer.model_version_status]
        if available not in states:
            raise UserError(f"{self.target}, model {model!r}: not ready, its states are {states}.")

    def predict(self, contents):
        """Return the `Prediction` for an encoded picture; raises as `RestClient.predict`."""
        request = predict_pb2.PredictRequest()
        request.CopyFrom(self._request)
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([contents]))
        try:
            answer = self._service.Predict(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() in _AT_FAULT:
                raise PictureRefused(_message(error)) from error
            slow = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            raise (NoAnswerInTime if slow else ServerUnreachable)(
                f"{self.target}: {error.code().name}, {_message(error)}"
            ) from error
        mask_bytes, classes, pixels, scores = (
            tf.make_ndarray(answer.outputs[name])[0] for name in _OUTPUTS
        )
        return Prediction.from_outputs(mask_bytes, classes.decode("utf-8"), pixels, scores)


def _message(error):
    return " ".join(str(error.details()).split())
