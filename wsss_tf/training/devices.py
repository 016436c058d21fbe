"""Which devices a run trains on."""

import tensorflow as tf

from wsss_tf.errors import UserError
from wsss_tf.training import hosts


def make_strategy(devices="auto", batch_size=None):
    """Return the distribution strategy for a list of devices.

    Args:
      devices: "auto" for all GPUs, of all the hosts in TF_CONFIG, else the one device there is;
        "one" for a single device; or a list such as ["GPU:0", "GPU:1"] or ["CPU:0", "CPU:1"] (the
        latter splits the processor into logical devices, to try replicas without GPUs; before
        TensorFlow has used it).
      batch_size: global batch, checked to be divisible by the replicas; None to leave it.

    Returns:
      `MirroredStrategy` for several devices, `MultiWorkerMirroredStrategy` (which waits for the
      other hosts) where TF_CONFIG names several processes, else the default strategy.

    Raises:
      UserError: unknown devices, or a batch that the replicas cannot share evenly.
    """
    if hosts.cluster_size() > 1:
        if devices != "auto":
            raise UserError(
                f"Recipe.devices = {devices!r} is for one host, but TF_CONFIG names "
                f'{hosts.cluster_size()} processes; leave it at "auto", or unset TF_CONFIG.'
            )
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        _check_batch_size(batch_size, strategy.num_replicas_in_sync)
        return strategy
    if devices == "auto":
        devices = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    elif devices == "one":
        devices = []
    elif isinstance(devices, str):
        raise UserError(
            f'Recipe.devices = {devices!r}; choose "auto", "one" or a list such as ["GPU:0"].'
        )
    _check_batch_size(batch_size, max(1, len(devices)))
    _split_processor(sum(str(name).upper().lstrip("/").startswith("CPU") for name in devices))
    known = {device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()}
    for name in devices:
        if name not in known:
            raise UserError(f"Recipe.devices: no {name!r} here; there are {sorted(known)}.")
    if not devices:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"/{name}" for name in devices])


def _check_batch_size(batch_size, replicas):
    if batch_size is not None and batch_size % replicas:
        raise UserError(
            f"Recipe.batch_size = {batch_size} cannot be split over {replicas} replicas evenly; "
            f"choose a multiple of {replicas}."
        )


def _split_processor(count):
    processors = tf.config.list_physical_devices("CPU")
    if count < 2 or not processors or tf.config.get_logical_device_configuration(processors[0]):
        return
    try:
        tf.config.set_logical_device_configuration(
            processors[0], [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        )
    except RuntimeError as error:  # TensorFlow is already running
        raise UserError(f"Recipe.devices: cannot make {count} logical CPUs now: {error}") from error
