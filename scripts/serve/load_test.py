"""Measure a server under load: requests a second, latencies, and that no request is lost.

    python scripts/serve/load_test.py --input=FOLDER --model_dir=DIR [--clients=1,4,16]
    python scripts/serve/load_test.py --input=FOLDER --server=http://localhost:8501 ...

The first form starts the tests' stand-in (tests/stand_in_server.py) on DIR (the folder of versions)
in a process of its own and measures REST and gRPC; the second measures a server that runs. Then
--requests of which --corrupt hold broken bytes are sent by the largest number of clients: just
those may fail, and with the picture named as the reason. Each request is one picture; none is
repeated. Exit status 1 if a request was lost or another than the corrupt ones failed.
"""

import argparse
import concurrent.futures
import contextlib
import json
import pathlib
import re
import socket
import subprocess
import sys
import time

import numpy as np

from wsss_tf.serving.client import connect, find_pictures
from wsss_tf.serving.prediction import PictureRefused, ServerUnreachable

_STAND_IN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "stand_in_server.py"


@contextlib.contextmanager
def stand_in(models):
    """Run the stand-in server on {name: folder of versions} and yield the URLs it answers at."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):  # both held until both are known
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
    line = [
        sys.executable, str(_STAND_IN), f"--rest_api_port={ports[0]}",
        f"--port={ports[1]}", *(f"--model={name}={path}" for name, path in models.items()),
    ]  # fmt: skip
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        for out in process.stdout:
            if out.startswith("ready"):
                break
        else:
            raise SystemExit("error: the stand-in server did not start")
        urls = [f"http://127.0.0.1:{ports[0]}"]
        if "no gRPC" not in out:
            urls.append(f"grpc://127.0.0.1:{ports[1]}")
        yield urls
    finally:
        process.terminate()
        process.wait()


def corrupt(contents, kind):
    """Return an encoded picture with damage of one of four kinds."""
    return (
        b"",
        contents[: len(contents) // 3],
        bytes(range(256)) * 8,
        b"<html>not a picture</html>",
    )[kind % 4]


def ask(client, contents):
    """Return (seconds, error or None) of one request."""
    begin = time.perf_counter()
    try:
        client.predict(contents)
    except (PictureRefused, ServerUnreachable) as error:
        return time.perf_counter() - begin, error
    return time.perf_counter() - begin, None


def load(client, requests, clients):
    """Send requests from a number of clients, each waiting for its answer before the next.

    Returns:
      seconds in all, and the answers of `ask` in the order of `requests`.
    """
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda contents: ask(client, contents), requests))
    return time.perf_counter() - begin, answers


def latencies(answers):
    """Return {"p50": ..., "p95": ..., "p99": ...} in milliseconds."""
    milliseconds = [1000 * seconds for seconds, _ in answers]
    values = np.percentile(milliseconds, [50, 95, 99])
    return {f"p{q}": round(float(value), 1) for q, value in zip((50, 95, 99), values)}


def measure(url, model, pictures, arguments):
    """Print and return the rows for one server."""
    client = connect(url, model, timeout=arguments.timeout, retries=0)
    client.check()
    load(client, pictures[: 2 * max(arguments.clients)], max(arguments.clients))  # warm up
    rows = []
    for clients in arguments.clients:
        requests = [pictures[i % len(pictures)] for i in range(arguments.requests)]
        seconds, answers = load(client, requests, clients)
        errors = sum(error is not None for _, error in answers)
        row = {
            "server": url.split(":")[0],
            "clients": clients,
            "requests": len(requests),
            "answered": len(answers) - errors,
            "requests_per_second": round(len(requests) / seconds, 2),
            **latencies(answers),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return [*rows, _measure_corrupt(client, url, pictures, arguments)]


def _measure_corrupt(client, url, pictures, arguments):
    """Print and return the row for requests of which some are corrupt."""
    total, bad = arguments.corrupt_requests, arguments.corrupt
    is_bad = np.zeros(total, bool)
    is_bad[np.random.default_rng(0).choice(total, bad, replace=False)] = True
    requests = [pictures[i % len(pictures)] for i in range(total)]
    requests = [corrupt(x, i) if is_bad[i] else x for i, x in enumerate(requests)]
    _, answers = load(client, requests, max(arguments.clients))
    reasons = {}
    for is_corrupt, (_, error) in zip(is_bad, answers):
        if is_corrupt and error is not None:
            # Numbers, such as the length of the data, differ from one to the next.
            reason = re.sub(r"\d+", "N", f"{type(error).__name__}: {error}")
            reasons[reason] = reasons.get(reason, 0) + 1
    row = {
        "server": url.split(":")[0],
        "clients": max(arguments.clients),
        "requests": total,
        "corrupt": bad,
        "corrupt_refused": sum(
            isinstance(error, PictureRefused) for (_, error), x in zip(answers, is_bad) if x
        ),
        "good_failed": sum(error is not None for (_, error), x in zip(answers, is_bad) if not x),
        "reasons": reasons,
    }
    print(json.dumps(row, indent=1), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="folder of pictures")
    parser.add_argument("--model_dir", help="folder of versions; starts a stand-in server")
    parser.add_argument("--server", help="http://HOST:PORT or grpc://HOST:PORT that runs")
    parser.add_argument("--model", default="segmentation")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--requests", type=int, default=200, help="for each number of clients")
    parser.add_argument("--corrupt_requests", type=int, default=1000)
    parser.add_argument("--corrupt", type=int, default=100, help="of --corrupt_requests")
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    arguments = parser.parse_args()
    if bool(arguments.model_dir) == bool(arguments.server):
        parser.error("give either --model_dir or --server")
    arguments.clients = [int(number) for number in arguments.clients.split(",")]
    pictures = [path.read_bytes() for path in find_pictures(arguments.input).values()]
    with contextlib.ExitStack() as stack:
        urls = [arguments.server]
        if arguments.model_dir:
            urls = stack.enter_context(stand_in({arguments.model: arguments.model_dir}))
        rows = [row for url in urls for row in measure(url, arguments.model, pictures, arguments)]
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=2) + "\n")
    lost = [row for row in rows if row.get("answered", row["requests"]) != row["requests"]]
    wrong = [
        row
        for row in rows
        if "corrupt" in row and (row["good_failed"] or row["corrupt_refused"] != row["corrupt"])
    ]
    sys.exit(1 if lost or wrong else 0)


if __name__ == "__main__":
    main()
