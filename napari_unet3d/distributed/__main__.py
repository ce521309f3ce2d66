"""Train as one of the processes that torchrun starts.

torchrun --nproc-per-node 4 -m napari_unet3d.distributed train config.yaml
"""

from __future__ import annotations

import sys

from napari_unet3d._thread_waiting import wait_briefly

if __name__ == "__main__":
    wait_briefly()
    from .training import main

    sys.exit(main(sys.argv[1:]))
