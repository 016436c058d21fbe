"""Predictions over TensorFlow Serving's REST interface; needs no TensorFlow on this side."""

import base64
import binascii
import threading

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from wsss_tf.errors import UserError
from wsss_tf.serving.prediction import NoAnswerInTime, PictureRefused, Prediction, ServerUnreachable

# Overloaded, or between two versions: worth asking again.
_PASSING = (429, 502, 503, 504)


class RestClient:
    """Asks one model of one server; may be used by several threads.

    Args:
      url: such as "http://localhost:8501".
      model: its name there.
      version: int; None for the server's latest.
      timeout: seconds for one answer.
      retries: how often a request is repeated that got no answer or a passing error; the pauses
        double from half a second, with a random part.
    """

    def __init__(self, url, model, version=None, timeout=60, retries=4):
        suffix = "" if version is None else f"/versions/{version}"
        self.url = url.rstrip("/")
        self._model_url = f"{self.url}/v1/models/{model}{suffix}"
        self._model = model
        self._timeout = timeout
        self._retries = retries
        self._local = threading.local()

    def _session(self):
        """Return this thread's session, which keeps its connection open."""
        if not hasattr(self._local, "session"):
            retry = Retry(
                total=self._retries,
                backoff_factor=0.5,
                backoff_jitter=0.5,
                status_forcelist=_PASSING,
                allowed_methods=None,  # a prediction may be asked for twice
                raise_on_status=False,
            )
            self._local.session = requests.Session()
            for scheme in ("http://", "https://"):
                self._local.session.mount(scheme, HTTPAdapter(max_retries=retry))
        return self._local.session

    def check(self):
        """Ask for the model's state, once.

        Raises:
          UserError: no server there, or it has no such model, or none that is ready.
        """
        try:
            answer = requests.get(self._model_url, timeout=min(self._timeout, 10))
        except requests.RequestException as error:
            raise UserError(
                f"no server at {self.url} ({type(error).__name__}); start one as scripts/serve "
                "shows, or give another --server."
            ) from error
        if answer.status_code != 200:
            raise UserError(
                f"{self.url} has no model {self._model!r} ({_message(answer)}); see --model."
            )
        states = [row.get("state") for row in _json(answer).get("model_version_status", [])]
        if "AVAILABLE" not in states:
            raise UserError(f"{self._model_url}: not ready, its versions are {states}.")

    def predict(self, contents):
        """Return the `Prediction` for an encoded picture.

        Raises:
          PictureRefused: the server says that the picture is at fault.
          NoAnswerInTime: it takes longer than `timeout`.
          ServerUnreachable: no answer after all the retries, or an error of the server.
        """
        instance = {"b64": base64.b64encode(contents).decode("ascii")}
        try:
            answer = self._session().post(
                f"{self._model_url}:predict", json={"instances": [instance]}, timeout=self._timeout
            )
        except requests.RequestException as error:
            # Behind retries it is an error of the connection that tells of it.
            slow = isinstance(error, requests.ReadTimeout) or "Read timed out" in str(error)
            kind = NoAnswerInTime if slow else ServerUnreachable
            raise kind(f"{self.url}: {type(error).__name__}") from error
        if answer.status_code == 400:
            raise PictureRefused(_message(answer))
        if answer.status_code != 200:
            raise ServerUnreachable(f"{self.url}: status {answer.status_code}, {_message(answer)}")
        try:
            [row] = _json(answer)["predictions"]
            return Prediction.from_outputs(
                base64.b64decode(row["mask_bytes"]["b64"]),
                row["classes"],
                row["pixels"],
                row["scores"],
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise UserError(
                f"{self._model_url}: is no model that wsss_tf.export wrote, its answer has no "
                f"{error}."
            ) from error


def _json(answer):
    try:
        value = answer.json()
    except requests.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {}


def _message(answer):
    """Return the error of an answer in one line."""
    return " ".join(str(_json(answer).get("error", f"status {answer.status_code}")).split())
