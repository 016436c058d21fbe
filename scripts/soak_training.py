"""Train as `wsss_tf.train` does, and say after each epoch how much memory is resident; Linux only.

For the row of memory of scripts/soak.py. What the allocator keeps of freed memory is given back to
the system first: it grows for thousands of steps, as memory is cut up, while what is in use does
not.
"""

import ctypes
import runpy

from process_memory import memory

from wsss_tf.training.callbacks import EndOfEpoch


def _with_memory(on_epoch_end):
    def told(self, epoch, logs=None):
        on_epoch_end(self, epoch, logs)
        ctypes.CDLL(None).malloc_trim(0)
        print(f"resident {memory('VmRSS'):.1f} MiB", flush=True)

    return told


if __name__ == "__main__":
    EndOfEpoch.on_epoch_end = _with_memory(EndOfEpoch.on_epoch_end)
    runpy.run_module("wsss_tf.train", run_name="__main__", alter_sys=True)
