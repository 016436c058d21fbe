"""Run a command of the package in which no file may grow beyond so many bytes.

python tests/limited_files.py BYTES NAME [FLAGS]
"""

import resource
import runpy
import sys

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    name = sys.argv[2]
    sys.argv = sys.argv[2:]
    runpy.run_module(f"wsss_tf.{name}", run_name="__main__", alter_sys=True)
