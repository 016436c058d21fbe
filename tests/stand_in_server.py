"""A stand-in for TensorFlow Serving: the same interfaces, for tests where there is no Docker.

    python tests/stand_in_server.py --model=segmentation=DIR [--rest_api_port=8501]

serves the highest version in DIR, and goes over to a higher one when it appears: status and
predictions over REST, in row and column format, and, with tensorflow-serving-api installed, over
gRPC. It imports nothing of wsss_tf. Its own part of a request is Python, so it is slower than the
real server; for production use that.
"""

import argparse
import base64
import binascii
import concurrent.futures
import http.server
import json
import os
import pathlib
import re
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

_PATH = re.compile(r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>\d+))?(?P<verb>:predict)?")
_HTTP_STATUS = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.NOT_FOUND: 404,
    tf.errors.RESOURCE_EXHAUSTED: 429,
    tf.errors.UNAVAILABLE: 503,
}


def _invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)


def _message(error):
    """Return an error's message as C++ has it, without what Python puts before."""
    return error.message.rpartition("<stack traces unavailable>\n")[2]


class Models:
    """The latest version of each of several models.

    Args:
      folders: {name: folder of versions}.
      threads: predictions that run at a time; more wait.
    """

    def __init__(self, folders, threads):
        self._folders = {name: pathlib.Path(folder) for name, folder in folders.items()}
        self._loaded = {}
        self._turn = threading.BoundedSemaphore(threads)
        self.refresh()

    def refresh(self):
        """Load versions that are new."""
        for name, folder in self._folders.items():
            numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
            if not numbers:
                raise SystemExit(f"error: {folder}: no version in it; run wsss_tf.export.")
            if self._loaded.get(name, (0,))[0] < max(numbers):
                model = tf.saved_model.load(folder / str(max(numbers)))
                self._loaded[name] = max(numbers), model
                print(f"{name}: version {max(numbers)}", flush=True)

    def find(self, name, version=None):
        """Return (version, model)."""
        if name not in self._loaded or version not in (None, self._loaded[name][0]):
            found = f"{name}, version {version or 'latest'}"
            raise tf.errors.NotFoundError(None, None, f"Servable not found for request: {found}")
        return self._loaded[name]

    def signature(self, name, version, signature_name):
        """Return a signature's function."""
        _, model = self.find(name, version)
        signature_name = signature_name or "serving_default"
        if signature_name not in model.signatures:
            raise _invalid(f"Serving signature name: {signature_name!r} not found")
        return model.signatures[signature_name]

    def run(self, function, inputs):
        """Return the outputs of a signature, arrays by name."""
        _, specs = function.structured_input_signature
        if inputs.keys() != specs.keys():
            raise _invalid(f"inputs {sorted(inputs)}, expected {sorted(specs)}")
        with self._turn:
            tensors = {name: tf.constant(x, specs[name].dtype) for name, x in inputs.items()}
            return {name: x.numpy() for name, x in function(**tensors).items()}


# === REST ===


def _from_json(value):
    """Return a JSON value with {"b64": text} replaced by bytes, other strings by UTF-8."""
    if isinstance(value, dict):
        if value.keys() != {"b64"}:
            raise _invalid("JSON object is not of the form {'b64': ...}")
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise _invalid(f"Unable to base64 decode: {error}") from error
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return value.encode("utf-8") if isinstance(value, str) else value


def _to_json(name, value):
    """Return an array as JSON: bytes where the output's name says so, other strings as text."""
    if value.dtype != object:
        return value.tolist()
    if value.ndim:
        return [_to_json(name, np.asarray(item, object)) for item in value]
    contents = value.item()
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(contents).decode("ascii")}
    return contents.decode("utf-8")


def _is_object(value):
    return isinstance(value, dict) and value.keys() != {"b64"}


def predict_json(models, name, version, body):
    """Return the answer to a `:predict` request, both as Python values of JSON."""
    if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
        raise _invalid("Missing 'inputs' or 'instances' key, or both")
    function = models.signature(name, version, body.get("signature_name"))
    names = list(function.structured_input_signature[1])
    if "inputs" in body:
        columns = body["inputs"] if _is_object(body["inputs"]) else {names[0]: body["inputs"]}
        outputs = models.run(function, {key: _from_json(x) for key, x in columns.items()})
        columns = {key: _to_json(key, x) for key, x in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    rows = body["instances"]
    if not isinstance(rows, list) or not rows:
        raise _invalid("No values in 'instances' array")
    rows = [row if _is_object(row) else {names[0]: row} for row in rows]
    inputs = {key: [_from_json(row.get(key)) for row in rows] for key in rows[0]}
    outputs = models.run(function, inputs)
    if any(x.ndim == 0 or len(x) != len(rows) for x in outputs.values()):
        raise _invalid("outputs have not all the same batch size: use the column format")
    columns = {key: _to_json(key, x) for key, x in outputs.items()}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    return {"predictions": [dict(zip(columns, row)) for row in zip(*columns.values())]}


def _status_json(version):
    status = {"error_code": "OK", "error_message": ""}
    row = {"version": str(version), "state": "AVAILABLE", "status": status}
    return {"model_version_status": [row]}


class Handler(http.server.BaseHTTPRequestHandler):
    """REST: GET /v1/models/NAME[/versions/N], POST /v1/models/NAME[/versions/N]:predict."""

    protocol_version = "HTTP/1.1"
    # Header and body go out in two packets; without this the second waits for an acknowledgement.
    disable_nagle_algorithm = True
    models = None

    def do_GET(self):
        """Answer with the model's state."""
        self._answer(lambda name, version, verb: _status_json(self._find(name, version, verb)[0]))

    def _find(self, name, version, verb):
        if verb:
            raise _invalid("GET is for the model's state")
        return self.models.find(name, version)

    def do_POST(self):
        """Answer with predictions."""
        contents = self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def predict(name, version, verb):
            if not verb:
                raise _invalid("POST is for :predict")
            try:
                body = json.loads(contents)
            except ValueError as error:
                raise _invalid(f"JSON Parse error: {error}") from error
            return predict_json(self.models, name, version, body)

        self._answer(predict)

    def _answer(self, function):
        match = _PATH.fullmatch(self.path)
        try:
            if not match:
                raise tf.errors.NotFoundError(None, None, f"Malformed request: {self.path}")
            version = match["version"] and int(match["version"])
            status, value = 200, function(match["model"], version, match["verb"])
        except tf.errors.OpError as error:
            status, value = _HTTP_STATUS.get(error.error_code, 500), {"error": _message(error)}
        except (TypeError, ValueError) as error:  # values that do not make a tensor
            status, value = 400, {"error": str(error)}
        contents = json.dumps(value).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents)

    def log_message(self, *_):
        """Keep still."""


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def start_rest(models, port, host="127.0.0.1"):
    """Serve REST from a thread and return the HTTP server; port 0 takes a free one."""
    handler = type("BoundHandler", (Handler,), {"models": models})
    server = _HttpServer((host, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# === gRPC ===


def start_grpc(models, port, host="127.0.0.1"):
    """Serve gRPC from threads and return (server, port)."""
    import grpc
    from tensorflow_serving.apis import (
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    codes = {code.value[0]: code for code in grpc.StatusCode}

    def version_of(spec):
        return spec.version.value if spec.HasField("version") else None

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec, answer = request.model_spec, predict_pb2.PredictResponse()
            try:
                function = models.signature(spec.name, version_of(spec), spec.signature_name)
                inputs = {key: tf.make_ndarray(x) for key, x in request.inputs.items()}
                outputs = models.run(function, inputs)
                unknown = set(request.output_filter) - outputs.keys()
                if unknown:
                    raise _invalid(f"output tensor alias not found in signature: {unknown}")
            except tf.errors.OpError as error:
                context.abort(codes[error.error_code], _message(error))
            for name in request.output_filter or outputs:
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
            answer.model_spec.CopyFrom(spec)
            return answer

    class Model(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            answer = get_model_status_pb2.GetModelStatusResponse()
            try:
                spec = request.model_spec
                version = models.find(spec.name, version_of(spec))[0]
            except tf.errors.OpError as error:
                context.abort(codes[error.error_code], _message(error))
            state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            answer.model_version_status.add(version=version, state=state)
            return answer

    pool = concurrent.futures.ThreadPoolExecutor(64)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(pool, options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Model(), server)
    port = server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server, port


def _model_flag(text):
    name, separator, folder = text.partition("=")
    if not separator or not pathlib.Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=FOLDER of versions")
    return name, folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=_model_flag, action="append", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--rest_api_port", type=int, default=8501)
    parser.add_argument("--port", type=int, default=8500, help="of gRPC")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    models = Models(dict(arguments.model), arguments.threads)
    rest = start_rest(models, arguments.rest_api_port, arguments.host)
    try:
        server, port = start_grpc(models, arguments.port, arguments.host)
    except ModuleNotFoundError as error:
        server, port = None, f"no gRPC without {error.name}"
    print(f"ready: REST {rest.server_port}, gRPC {port}", flush=True)
    stop = threading.Event()
    try:
        while not stop.wait(1):
            models.refresh()
    except KeyboardInterrupt:
        if server is not None:
            server.stop(grace=5)


if __name__ == "__main__":
    main()
