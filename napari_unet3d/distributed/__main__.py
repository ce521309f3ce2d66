"""Train as one of the processes that torchrun starts.

torchrun --nproc-per-node 4 -m napari_unet3d.distributed train config.yaml
"""

from __future__ import annotations

import os
import sys

from napari_unet3d._thread_waiting import wait_briefly

if __name__ == "__main__":
    wait_briefly()
    from .training import main

    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of Gloo may still let go of Python objects; where the interpreter is being
    # taken down meanwhile, that aborts a process that has done all it had to.
    os._exit(status)
