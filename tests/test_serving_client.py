"""The client against a server with TensorFlow Serving's REST and gRPC interfaces."""

import base64
import http.server
import json
import threading

import numpy as np
import pytest
import requests
import stand_in_server
from as_user import run, user_error
from PIL import Image
from tiny_export import encoded, mask_predictor, picture, save_masks

from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.png import palette
from wsss_tf.serving import client as client_lib
from wsss_tf.serving.prediction import (
    NoAnswerInTime,
    PictureRefused,
    Prediction,
    ServerUnreachable,
)

PICTURES = {
    "a": picture(40, 52),
    "sub/b": picture(30, 21, seed=1),
    "c": picture(33, 33, seed=2),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(predictor, models of the server, folder of versions)."""
    folder = tmp_path_factory.mktemp("models")
    predictor = mask_predictor()
    save_masks(predictor, folder / "1")
    return predictor, stand_in_server.Models({"segmentation": folder}, threads=2), folder


@pytest.fixture(scope="module")
def rest(served):
    server = stand_in_server.start_rest(served[1], port=0)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def grpc(served):
    pytest.importorskip("tensorflow_serving", reason="skipped: no tensorflow-serving-api")
    server, port = stand_in_server.start_grpc(served[1], port=0)
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def folder(tmp_path):
    for name, values in PICTURES.items():
        path = tmp_path / f"in/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    (tmp_path / "in/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "in/.hidden.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_a_folder_is_labelled(kind, request, served, folder):
    url = request.getfixturevalue(kind)
    client = client_lib.connect(url, "segmentation", retries=0)
    client.check()
    labeller = client_lib.Labeller(client, folder / "out")
    found = client_lib.find_pictures(folder / "in")
    assert list(found) == ["a", "broken", "c", "sub/b"]
    refused = client_lib.label_pictures(labeller, found, concurrency=3)
    assert list(refused) == ["broken"]
    assert "neither a JPEG nor a PNG" in refused["broken"]
    for name, values in PICTURES.items():
        expected = np.argmax(served[0](values[None])[0], axis=-1)
        mask = images.load_mask(folder / f"out/masks/{name}.png")
        np.testing.assert_array_equal(mask, expected)
        classes = json.loads((folder / f"out/classes/{name}.json").read_text())
        assert [row["id"] for row in classes.values()] == np.unique(expected).tolist()
        counts = [row["pixels"] for row in classes.values()]
        assert counts == np.unique(expected, return_counts=True)[1].tolist()
        assert all(0 < row["score"] <= 1 for row in classes.values())
        overlay = np.array(Image.open(folder / f"out/overlays/{name}.jpg"), int)
        half = (values + palette()[expected].astype(int)) // 2
        blended = np.where(expected[..., None] > 0, half, values)
        assert np.abs(overlay - blended).mean() < 12  # JPEG


def test_unknown_models_and_versions(rest, grpc):
    for url in (rest, grpc):
        for model, version in (("other", None), ("segmentation", 7)):
            with pytest.raises(UserError, match="has no model"):
                client_lib.connect(url, model, version).check()


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_no_server(kind, request):
    if kind == "grpc":
        pytest.importorskip("tensorflow_serving", reason="skipped: no tensorflow-serving-api")
    url = {"rest": "http", "grpc": "grpc"}[kind] + "://127.0.0.1:9"
    client = client_lib.connect(url, "segmentation", timeout=1, retries=0)
    with pytest.raises(UserError, match="no server at"):
        client.check()
    with pytest.raises(ServerUnreachable):
        client.predict(b"")


@pytest.mark.parametrize("server", ["localhost:8501", "ftp://localhost"])
def test_server_flag(server):
    with pytest.raises(UserError, match=server):
        client_lib.connect(server, "segmentation")


def test_the_command(rest, folder):
    arguments = [f"--input={folder / 'in'}", f"--output={folder / 'out'}", f"--server={rest}"]
    user_error(run("serving.client", *arguments), "1 of 4 pictures were refused", "errors.json")
    assert list(json.loads((folder / "out/errors.json").read_text())) == ["broken"]
    (folder / "out/masks/c.png").unlink()
    (folder / "in/broken.jpg").unlink()
    result = run("serving.client", *arguments, fresh=True)
    assert "1 written, 2 kept" in result.stdout
    assert not (folder / "out/errors.json").exists()
    result = run("serving.client", *arguments[:2], "--server=http://127.0.0.1:9")
    user_error(result, "no server at http://127.0.0.1:9", "scripts/serve")


# === Retries ===


class _Flaky(http.server.BaseHTTPRequestHandler):
    """Answers the second time only; the first answer is "unavailable"."""

    protocol_version = "HTTP/1.1"
    answers = ()
    asked = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        kind = type(self)
        status, body = kind.answers[min(kind.asked, len(kind.answers) - 1)]
        kind.asked += 1
        contents = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents)

    def log_message(self, *_):
        pass


def _flaky_server(answers):
    kind = type("Flaky", (_Flaky,), {"answers": answers})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, kind


_UNAVAILABLE = (503, {"error": "no place in the queue"})
_ROW = {
    "mask_bytes": {"b64": base64.b64encode(b"png").decode()},
    "classes": "cat\nHütte",
    "pixels": [0, 5, 0, 7],
    "scores": [0.1, 0.9, 0.2, 0.8],
}


def test_unavailable_is_asked_again():
    server, kind = _flaky_server([_UNAVAILABLE, (200, {"predictions": [_ROW]})])
    client = client_lib.connect(f"http://127.0.0.1:{server.server_port}", "m", retries=1)
    prediction = client.predict(b"picture")
    assert kind.asked == 2
    assert prediction.mask_bytes == b"png"
    assert prediction.classes == {
        "cat": {"id": 1, "pixels": 5, "score": 0.9},
        "Hütte": {"id": 3, "pixels": 7, "score": 0.8},
    }
    server.shutdown()


@pytest.mark.parametrize(
    ("answer", "error", "asked"),
    [
        (_UNAVAILABLE, ServerUnreachable, 2),
        ((400, {"error": "bad\npicture"}), PictureRefused, 1),
        ((500, {"error": "a bug"}), ServerUnreachable, 1),
        ((200, {"predictions": [{"other": 1}]}), UserError, 1),
    ],
    ids=["unavailable", "refused", "bug", "foreign"],
)
def test_errors(answer, error, asked):
    server, kind = _flaky_server([answer])
    client = client_lib.connect(f"http://127.0.0.1:{server.server_port}", "m", retries=1)
    with pytest.raises(error) as raised:
        client.predict(b"picture")
    assert "\n" not in str(raised.value)
    assert kind.asked == asked
    server.shutdown()


def _slow_client():
    """Return a client that waits a moment only, for a server that is slow with one picture."""

    class Client:
        slow = threading.Event()

        def predict(self, contents):
            if contents == b"slow":
                raise NoAnswerInTime("http://server: ReadTimeout")
            return Prediction(b"mask", {})

        def check(self):
            if self.slow.is_set():
                raise UserError("no server")

    return Client()


def test_a_picture_that_takes_too_long_is_named_and_the_others_are_labelled(tmp_path):
    client = _slow_client()
    labeller = client_lib.Labeller(client, tmp_path / "out", weight=0)
    pictures = {}
    for name in ("a", "slow", "z"):
        pictures[name] = tmp_path / f"{name}.png"
        pictures[name].write_bytes(name.encode())
    refused = client_lib.label_pictures(labeller, pictures, concurrency=1)
    assert list(refused) == ["slow"]
    assert "give a longer --timeout" in refused["slow"]
    assert labeller.mask_path("a").is_file()
    assert labeller.mask_path("z").is_file()
    client.slow.set()
    with pytest.raises(UserError, match="no answer any more"):
        client_lib.label_pictures(labeller, pictures, concurrency=1)


def test_a_server_that_does_not_answer_in_time_is_told_from_one_that_is_not_there():
    answer = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            answer.wait(10)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for retries in (0, 1):
        url = f"http://127.0.0.1:{server.server_port}"
        client = client_lib.connect(url, "m", timeout=0.1, retries=retries)
        with pytest.raises(NoAnswerInTime):
            client.predict(b"picture")
    answer.set()
    server.shutdown()


def test_a_server_that_goes_away_ends_the_run(folder):
    server, _ = _flaky_server([_UNAVAILABLE])
    client = client_lib.connect(f"http://127.0.0.1:{server.server_port}", "m", retries=0)
    labeller = client_lib.Labeller(client, folder / "out")
    pictures = client_lib.find_pictures(folder / "in")
    with pytest.raises(UserError, match="no place in the queue; run the same command again"):
        client_lib.label_pictures(labeller, pictures, concurrency=2)
    server.shutdown()


# === REST, as TensorFlow Serving's documentation has it ===


def _post(rest, body, path="segmentation:predict"):
    answer = requests.post(f"{rest}/v1/models/{path}", data=json.dumps(body))
    return answer.status_code, answer.json()


def _b64(contents):
    return {"b64": base64.b64encode(contents).decode()}


def test_row_and_column_format(rest):
    contents = [_b64(encoded(image)) for image in PICTURES.values()]
    _, rows = _post(rest, {"instances": contents})
    _, named = _post(rest, {"instances": [{"image_bytes": item} for item in contents]})
    _, columns = _post(rest, {"inputs": {"image_bytes": contents}})
    _, plain = _post(rest, {"inputs": contents})
    assert rows == named
    assert columns == plain
    assert list(rows) == ["predictions"]
    for name, column in columns["outputs"].items():
        assert column == [row[name] for row in rows["predictions"]]
    assert set(rows["predictions"][0]) == {"mask_bytes", "classes", "pixels", "scores"}
    # A single output comes without its name, and other signatures are asked for by name.
    body = {"signature_name": "probabilities", "inputs": PICTURES["a"][None].tolist()}
    _, answer = _post(rest, body)
    assert np.shape(answer["outputs"]) == (1, 40, 52, 5)


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        ({"instances": []}, "segmentation:predict", 400),
        ({"instances": [{"b64": "!"}]}, "segmentation:predict", 400),
        ({"instances": [{"other": 1}]}, "segmentation:predict", 400),
        ({"instances": [1], "signature_name": "x"}, "segmentation:predict", 400),
        ({}, "segmentation:predict", 400),
        ({"instances": [1]}, "other:predict", 404),
    ],
)
def test_refused_requests(body, path, status, rest):
    found, answer = _post(rest, body, path)
    assert found == status
    assert list(answer) == ["error"]


# Last: it changes the server's model.
def test_a_new_version_takes_over(served, rest):
    predictor, models, folder = served
    state = f"{rest}/v1/models/segmentation"
    assert requests.get(state).json()["model_version_status"][0]["version"] == "1"
    (folder / ".2.unfinished").mkdir()
    models.refresh()
    assert requests.get(state).json()["model_version_status"][0]["version"] == "1"
    save_masks(predictor, folder / "2")
    models.refresh()
    assert requests.get(state).json()["model_version_status"][0]["version"] == "2"
    client_lib.connect(rest, "segmentation", 2).predict(encoded(PICTURES["c"]))
