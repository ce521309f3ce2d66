"""Work in a thread of its own while the network computes: reading ahead, writing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield items of which the next is always made in a thread while one is used.

    Never more than one is made ahead. What making it raises is raised here, in its
    turn. Closing the generator waits for the item that is being made.

    Examples
    --------
    >>> list(ahead(k * k for k in range(3)))
    [0, 1, 4]
    """
    end = object()
    source = iter(items)
    thread = ThreadPoolExecutor(1, thread_name_prefix="reading")
    try:
        future = thread.submit(next, source, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, source, end)
            yield item  # type: ignore[misc]
            item = None
    finally:
        thread.shutdown(cancel_futures=True)


def behind(items: Iterable[tuple[T, Callable[[], object]]]) -> Iterator[T]:
    """Do the work that belongs to each item in a thread while the next item is made.

    An item is yielded once its work is done. Never more than one work waits. What it
    raises is raised here, and closing the generator waits for it.

    Examples
    --------
    >>> done = []
    >>> list(behind((k, lambda k=k: done.append(k)) for k in range(3)))
    [0, 1, 2]
    >>> done
    [0, 1, 2]
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
    try:
        former = None
        for item, work in items:
            if former is not None:
                former[1].result()
                yield former[0]
            former = item, thread.submit(work)
        if former is not None:
            former[1].result()
            yield former[0]
    finally:
        thread.shutdown()
