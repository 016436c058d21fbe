"""How many channels a layer has in a network that is narrower than the published one."""


def scale_channels(count, width):
    """Return a channel count at a width factor: a multiple of 16, at least 16.

    Processors work on 8 or 16 channels at a time, and with fewer (8 channels with AVX-512, 4 with
    AVX2) oneDNN's convolutions corrupt memory in TensorFlow 2.21.
    """
    return max(16, 16 * round(count * width / 16))
