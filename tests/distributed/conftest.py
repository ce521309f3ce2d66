"""Two processes that stay joined for the tests of this folder."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from tests.distributed import jobs


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Call a function with its arguments in two joined processes.

    The function gets their `Ranks` first; the results of both are returned.
    """
    place = str(tmp_path_factory.mktemp("joined") / "store")
    pools = [
        ProcessPoolExecutor(
            1, get_context("spawn"), initializer=jobs.join, initargs=(rank, 2, place)
        )
        for rank in range(2)
    ]

    def call(function, *arguments):
        futures = [pool.submit(jobs.call, function, *arguments) for pool in pools]
        return [future.result(280) for future in futures]

    yield call
    for pool in pools:
        pool.shutdown()
