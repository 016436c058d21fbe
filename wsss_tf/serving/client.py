"""Have a server label a folder of pictures.

  python -m wsss_tf.serving.client --input=FOLDER --output=FOLDER2 [--server=http://localhost:8501]
  python -m wsss_tf.serving.client --input=FOLDER --output=FOLDER2 --server=grpc://localhost:8500

writes masks/<id>.png (palette masks), overlays/<id>.jpg and classes/<id>.json. A picture with a
mask is left alone, so an interrupted command can be run again. Pictures that the server refuses, or
does not answer for within --timeout, are named, and listed in errors.json.
"""

import concurrent.futures
import io
import pathlib

from absl import flags
from PIL import Image, ImageOps
from tqdm import tqdm

from wsss_tf import command
from wsss_tf.bounded_map import bounded_map
from wsss_tf.errors import UserError, warn
from wsss_tf.files import picture_files, run_folder
from wsss_tf.files.pictures import DAMAGED
from wsss_tf.serving.prediction import NoAnswerInTime, PictureRefused, ServerUnreachable

_INPUT = flags.DEFINE_string("input", None, "Folder of pictures; its subfolders are searched too.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write into.")
_SERVER = flags.DEFINE_string(
    "server", "http://localhost:8501", "http://HOST:PORT (REST) or grpc://HOST:PORT."
)
_MODEL = flags.DEFINE_string("model", "segmentation", "Name of the model on the server.")
_VERSION = flags.DEFINE_integer("version", None, "Version to ask; default: the latest.", 1)
_CONCURRENCY = flags.DEFINE_integer("concurrency", 4, "Requests under way at a time.", 1)
_TIMEOUT = flags.DEFINE_float("timeout", 60, "Seconds to wait for one answer.", 0.1)
_RETRIES = flags.DEFINE_integer(
    "retries", 4, "How often to ask again where no answer comes; the pauses double.", 0
)
_OVERLAY = flags.DEFINE_float(
    "overlay", 0.5, "Weight of the mask's colours in overlays; 0 for no overlays.", 0, 1
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Ask again for pictures that have a mask.")


def connect(server, model, version=None, timeout=60, retries=4):
    """Return a `rest.RestClient` or `grpc_client.GrpcClient`, by the scheme of `server`.

    Raises:
      UserError: another scheme, or gRPC without the packages that it needs.
    """
    scheme, separator, target = server.partition("://")
    if separator and scheme in ("http", "https"):
        from wsss_tf.serving.rest import RestClient

        return RestClient(server, model, version, timeout, retries)
    if separator and scheme == "grpc":
        try:
            from wsss_tf.serving.grpc_client import GrpcClient
        except ImportError as error:
            raise UserError(
                f"--server={server}: {error.name} is missing; pip install 'wsss_tf[serving]', or "
                "use REST."
            ) from error
        return GrpcClient(target, model, version, timeout, retries)
    raise UserError(f"--server={server}: give http://HOST:PORT or grpc://HOST:PORT.")


def find_pictures(folder):
    """Return {path below the folder without suffix: path}, sorted, without hidden files.

    Files in other formats are counted in a warning.

    Raises:
      UserError: no such folder, no picture in it, or two that differ by suffix only.
    """
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"--input={folder}: no such folder.")
    files, note = picture_files.find_pictures(folder)
    if note:
        warn(note)
    return {name: pathlib.Path(path) for name, path in files.items()}


def overlay(contents, mask_bytes, weight, keep_background):
    """Return the picture under its mask's colours, a Pillow image of the mask's size.

    Args:
      contents: the encoded picture, which may have to be turned.
      mask_bytes: its mask, as the server gives it.
      weight: of the colours, in [0, 1].
      keep_background: leave the pixels of mask value 0 as they are.
    """
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).convert("RGB")
    mask = Image.open(io.BytesIO(mask_bytes))
    blended = Image.blend(picture, mask.convert("RGB"), weight)
    if keep_background:
        values = Image.frombytes("L", mask.size, mask.tobytes())
        blended.paste(picture, mask=values.point(lambda value: 255 if value == 0 else 0))
    return blended


class Labeller:
    """Writes what a server says about pictures.

    Args:
      client: with `predict`, as `connect` gives it.
      output: folder, a `pathlib.Path`.
      weight: as in `overlay`; 0 writes none.
    """

    def __init__(self, client, output, weight=0.5):
        self.client = client
        self.output = output
        self.weight = weight

    def mask_path(self, image_id):
        """Return where the mask of a picture goes."""
        return self.output / "masks" / f"{image_id}.png"

    def is_server_there(self):
        """Return whether the server still answers, to a question that takes it no time."""
        try:
            self.client.check()
        except UserError:
            return False
        return True

    def label(self, image_id, path):
        """Ask for one picture and write mask, overlay and classes; the mask last: it is the proof.

        Raises: as the client's `predict`.
        """
        contents = path.read_bytes()
        prediction = self.client.predict(contents)
        if self.weight:
            keep = prediction.classes.get("background", {}).get("id") == 0
            try:
                picture = overlay(contents, prediction.mask_bytes, self.weight, keep)
            except DAMAGED as error:
                raise PictureRefused(f"its overlay cannot be drawn: {error}") from error
            with run_folder.atomic_path(self.output / "overlays" / f"{image_id}.jpg") as temporary:
                picture.save(temporary, "JPEG", quality=90)
        run_folder.write_json(self.output / "classes" / f"{image_id}.json", prediction.classes)
        with run_folder.atomic_path(self.mask_path(image_id)) as temporary:
            temporary.write_bytes(prediction.mask_bytes)


def label_pictures(labeller, pictures, concurrency):
    """Label pictures, several at a time.

    Args:
      labeller: `Labeller`.
      pictures: {id: path}.
      concurrency: requests under way at a time.

    Returns:
      {id: message} of the pictures that the server refused, or took too long for.

    Raises:
      UserError: the server is gone; what was written stays.
    """

    def refusal(image_id, path):
        try:
            labeller.label(image_id, path)
        except PictureRefused as error:
            return str(error)
        except NoAnswerInTime:
            # One picture that takes long must not keep all others from being labelled.
            if not labeller.is_server_there():
                raise
            return "no answer within the time limit; give a longer --timeout, or a smaller picture"

    refused = {}
    with (
        concurrent.futures.ThreadPoolExecutor(concurrency) as pool,
        tqdm(total=len(pictures), desc="masks", unit="image", disable=None) as bar,
    ):
        # Far ahead, so that the others need not wait for one that is asked for again.
        answers = bounded_map(pool, refusal, pictures.items(), ahead=16 * concurrency)
        try:
            for image_id, message in zip(pictures, answers):
                if message is not None:
                    refused[image_id] = message
                    tqdm.write(f"refused: {pictures[image_id]}: {message}")
                bar.update()
        except ServerUnreachable as error:
            raise UserError(
                f"no answer any more after {bar.n} of {len(pictures)} pictures: {error}; run the "
                "same command again to go on."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return refused


def main():
    """Run the command."""
    for name in ("input", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing.")
    pictures = find_pictures(_INPUT.value)
    client = connect(_SERVER.value, _MODEL.value, _VERSION.value, _TIMEOUT.value, _RETRIES.value)
    client.check()
    output = pathlib.Path(_OUTPUT.value)
    labeller = Labeller(client, output, _OVERLAY.value)
    todo = {
        image_id: path
        for image_id, path in pictures.items()
        if _OVERWRITE.value or not labeller.mask_path(image_id).is_file()
    }
    refused = label_pictures(labeller, todo, _CONCURRENCY.value)
    written, kept = len(todo) - len(refused), len(pictures) - len(todo)
    print(f"{written} written, {kept} kept: {output / 'masks'}, overlays, classes")
    errors = output / "errors.json"
    if refused:
        run_folder.write_json(errors, dict(sorted(refused.items())))
        raise UserError(f"{len(refused)} of {len(todo)} pictures were refused; see {errors}.")
    errors.unlink(missing_ok=True)


if __name__ == "__main__":
    command.run(main)
