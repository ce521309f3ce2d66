"""How torch's threads wait for work, which is settled before torch is loaded."""

from __future__ import annotations

import os

ENVIRONMENT = {
    # Threads of OpenMP wait busily for one another. With a program beside them, which
    # a desktop always has, each wait lasts until the system changes programs: a
    # training step on two cores took 12 times as long. Waiting busily for a moment
    # only, it takes 3 times as long then, and no longer than usual otherwise; not
    # waiting busily at all costs a quarter.
    "GOMP_SPINCOUNT": "2000",
    "KMP_BLOCKTIME": "0",
}
"""Variables of the implementations of OpenMP: GNU's, and those of Intel and LLVM."""


def wait_briefly() -> None:
    """Have threads wait briefly, unless the person has settled it otherwise."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
