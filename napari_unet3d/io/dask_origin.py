"""Whether a dask array is nothing but a part of one stored array, and which."""

from __future__ import annotations

import operator
from itertools import pairwise, product
from typing import Any

import numpy as np

from .affine_view import AffineView
from .stored_array import StoredArray, locate

MOST_CHUNKS = 512
"""That are looked at; more are taken at even distances."""

_GETTERS = ("getter", "getter_nofancy", "getter_inline")


class _Unknown(Exception):
    """Something other than slicing, turning and joining is done."""


def origin_of_dask(array: Any) -> tuple[StoredArray, AffineView] | None:
    """Find the stored array of which a dask array shows a part.

    The graph is followed from the chunks down, with views in the place of voxels.
    `None` where anything is computed, or more than one array is involved.

    Parameters
    ----------
    array : dask.array.Array
        Nothing of it is computed.
    """
    if not all(np.isfinite(n) for n in array.shape) or 0 in array.shape:
        return None
    offsets = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in array.chunks]
    count = int(np.prod(array.numblocks))
    numbers = np.unique(
        np.linspace(0, count - 1, min(count, MOST_CHUNKS)).round().astype(int)
    )
    # The corners too: evenly spaced numbers may miss the ends of an axis.
    corners = product(*({0, n - 1} for n in array.numblocks))
    places = {tuple(map(int, p)) for p in corners}
    places |= {
        tuple(int(k) for k in np.unravel_index(n, array.numblocks)) for n in numbers
    }
    first: tuple[StoredArray, AffineView] | None = None
    try:
        graph = array.__dask_graph__().cull({(array.name, *place) for place in places})
        trace = _Trace(dict(graph))
        for place in sorted(places):
            view = trace.view((array.name, *place))
            if first is None:
                assert trace.stored is not None
                start = AffineView(view.start, view.step, view.order, array.shape)
                first = trace.stored, start
            box = tuple(
                slice(int(o[k]), int(o[k + 1]))
                for o, k in zip(offsets, place, strict=True)
            )
            if first[1][box] != view:
                return None
    except (
        *(_Unknown, AssertionError, AttributeError, ImportError, LookupError),
        *(RecursionError, TypeError, ValueError),
    ):
        # What dask's graphs look like inside differs from version to version.
        return None
    if first is None or np.dtype(first[0].dtype) != array.dtype:
        return None
    view = first[1]
    if any(a < 0 and n > 1 for a, n in zip(view.order, view.shape, strict=True)):
        return None
    return first


class _Trace:
    """Follow a graph; every task stands for a view of the one array."""

    def __init__(self, graph: dict[Any, Any]) -> None:
        self._graph = graph
        self.stored: StoredArray | None = None

    def view(self, key: Any) -> AffineView:
        found = self._value(self._graph[key])
        if not isinstance(found, AffineView):
            raise _Unknown
        return found

    def _value(self, node: Any) -> Any:
        """Return what a node stands for: a view, or a plain value."""
        if isinstance(node, tuple | list | str) and self._is_key(node):
            return self._value(self._graph[node])
        if isinstance(node, tuple) and node and callable(node[0]):
            return self._call(node[0], node[1:], {})
        kind = type(node).__name__
        if kind in ("TaskRef", "Alias") and hasattr(node, "key"):
            target = getattr(node, "target", node.key)
            return self._value(self._graph[getattr(target, "key", target)])
        if kind == "DataNode":
            return self._value(node.value) if self._is_array(node.value) else node.value
        if hasattr(node, "func") and hasattr(node, "args"):
            if kind in ("List", "Tuple"):
                return [self._value(each) for each in node.args]
            return self._call(node.func, node.args, dict(node.kwargs or {}))
        if isinstance(node, list) and any(not isinstance(n, int) for n in node):
            return [self._value(each) for each in node]
        return self._leaf(node) if self._is_array(node) else node

    def _is_key(self, node: Any) -> bool:
        try:
            return node in self._graph
        except TypeError:  # a list or slice within
            return False

    @staticmethod
    def _is_array(node: Any) -> bool:
        return hasattr(node, "shape") and hasattr(node, "dtype")

    def _leaf(self, array: Any) -> AffineView:
        stored = locate(array)
        if stored is None or (self.stored is not None and stored != self.stored):
            raise _Unknown
        self.stored = stored
        return AffineView.whole(stored.shape)

    def _call(self, func: Any, args: Any, options: dict[str, Any]) -> AffineView:
        name = getattr(func, "__name__", "")
        home = str(getattr(func, "__module__", ""))
        values = [self._value(each) for each in args]
        if func is operator.getitem or (
            home.startswith("dask.") and name in (*_GETTERS, "getitem")
        ):
            view, index = values[:2]
        elif func is np.transpose:
            axes = values[1] if len(values) > 1 else options.get("axes")
            order = range(values[0].ndim)[::-1] if axes is None else axes
            return _checked(values[0]).transposed([int(a) for a in order])
        elif home.startswith("dask.") and name == "concatenate_shaped":
            parts = np.empty(len(values[0]), object)
            parts[:] = values[0]
            return _joined(parts.reshape(values[1]).tolist())
        elif home.startswith("dask.") and name == "concatenate3":
            return _joined(values[0])
        else:
            raise _Unknown
        index = tuple(index) if isinstance(index, list) else index
        return _checked(view)[index]


def _checked(value: Any) -> AffineView:
    if not isinstance(value, AffineView):
        raise _Unknown
    return value


def _joined(parts: Any, axis: int = 0) -> AffineView:
    """Join nested lists of views, one level of lists for each axis."""
    if not isinstance(parts, list):
        return _checked(parts)
    views = [_joined(each, axis + 1) for each in parts]
    whole = views[0]
    for _, following in pairwise(views):
        whole = whole.joined(following, axis)
    return whole
