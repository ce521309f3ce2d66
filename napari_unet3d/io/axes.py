"""Which axis of a stored array is which: names, guesses and refusals."""

from __future__ import annotations

from napari_unet3d.engine.errors import EngineError

_MOST_CHANNELS = 4


def resolve_axes(
    shape: tuple[int, ...], named: str | None, override: str | None, source: str
) -> str:
    """Say what every axis of an array is.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array as it is stored.
    named : str or None
        One letter per axis, as the file says: T, C, Z, Y, X, S for samples of a
        colour, any other letter for "no name". None: no axis has a name.
    override : str or None
        The person's word, one letter per axis; axes of length 1 may be left out.
    source : str
        The path, for the message.

    Returns
    -------
    str
        One letter per axis: Z, Y and X once each, C at most once, ``-`` for an axis of
        length 1 that is to be dropped.

    Raises
    ------
    EngineError
        If the array is not one volume, or its axes cannot be told apart.

    Examples
    --------
    >>> resolve_axes((3, 20, 64, 64), None, None, "a.npy")
    'CZYX'
    >>> resolve_axes((1, 20, 1, 64, 64, 3), "TZCYXS", None, "a.tif")
    '-Z-YXC'
    """
    if override is not None:
        axes = _overridden(shape, named, override, source)
    elif named is None:
        axes = "Q" * len(shape)
    else:
        axes = "".join(a if a in "TCZYXS" else "Q" for a in named.upper())
    return _guessed(shape, _without_time_and_samples(shape, axes, source), source)


def _overridden(
    shape: tuple[int, ...], named: str | None, override: str, source: str
) -> str:
    axes = override.upper()
    plain = set(axes) <= set("TCZYX") and len(set(axes)) == len(axes)
    if not plain or not set("ZYX") <= set(axes):
        raise EngineError(
            f"axes={override!r} is not understood; name Z, Y and X once each and, "
            "where the file has them, C for channels and T for time, as in 'CZYX'."
        )
    # Axes of length 1 may be left out: first those that the override does not name.
    surplus = len(shape) - len(axes)
    single = [i for i, length in enumerate(shape) if length == 1]
    single.sort(key=lambda i: named is not None and named[i].upper() in axes)
    if surplus < 0 or surplus > len(single):
        raise EngineError(
            f"axes={override!r} names {len(axes)} axes, but {source} has "
            f"{described(shape, named)}; name each axis of that shape."
        )
    dropped = set(single[:surplus])
    letters = iter(axes)
    return "".join("-" if i in dropped else next(letters) for i in range(len(shape)))


def _without_time_and_samples(shape: tuple[int, ...], axes: str, source: str) -> str:
    letters = list(axes)
    if (time := axes.find("T")) >= 0:
        if shape[time] > 1:
            if (depth := axes.find("Z")) >= 0 and shape[depth] == 1:
                axes = axes.replace("Z", "-")
            as_depth = _bare(shape, axes.replace("T", "Z"))
            remedy = (
                ""
                if "Z" in axes
                else f", or pass axes={as_depth!r} if that axis is depth"
            )
            raise EngineError(
                f"{source} has {shape[time]} time points (axis T of "
                f"{described(shape, axes)}); save one time point as a file of its "
                f"own{remedy}."
            )
        letters[time] = "-"
    if (samples := axes.find("S")) >= 0:
        channel = axes.find("C")
        if shape[samples] == 1:
            letters[samples] = "-"
        elif channel >= 0 and shape[channel] > 1:
            raise EngineError(
                f"{source} has both channels and colours ({described(shape, axes)}); "
                "save it with one channel axis."
            )
        else:
            letters[samples] = "C"
            if channel >= 0:
                letters[channel] = "-"
    return "".join(letters)


def _guessed(shape: tuple[int, ...], axes: str, source: str) -> str:
    letters = list(axes)
    missing = [a for a in "ZYX" if a not in letters]
    unnamed = [i for i, a in enumerate(letters) if a == "Q"]
    while len(unnamed) > len(missing) and shape[unnamed[0]] == 1:
        letters[unnamed.pop(0)] = "-"
    if len(unnamed) < len(missing):
        raise EngineError(_flat(shape, "".join(letters), source))
    if len(unnamed) > len(missing):
        channel = unnamed.pop(0)
        rest = [s for i, s in enumerate(shape) if i != channel and letters[i] != "-"]
        if (
            len(unnamed) > len(missing)
            or "C" in letters
            or shape[channel] > _MOST_CHANNELS
            or min(rest) <= _MOST_CHANNELS
        ):
            raise EngineError(
                f"{source} has {described(shape, axes)} and does not say which axis is "
                "which; name them with the option axes, for example axes='CZYX'."
            )
        letters[channel] = "C"
    for position, letter in zip(unnamed, missing, strict=True):
        letters[position] = letter
    return "".join(letters)


def _flat(shape: tuple[int, ...], axes: str, source: str) -> str:
    kept = _bare(shape, axes)
    hint = ""
    if len(kept) == 3 and kept.startswith("C"):
        depth = kept.replace("C", "Z")
        hint = f" If its axis C is depth, pass axes={depth!r}."
    dimensions = min(len(shape), 2)
    return (
        f"{source} is {dimensions}D ({described(shape, axes)}); a volume with three "
        f"axes is needed.{hint}"
    )


def _bare(shape: tuple[int, ...], axes: str) -> str:
    """Leave out what has length 1 and is no axis of space."""
    return "".join(
        a for a, s in zip(axes, shape, strict=True) if s > 1 or a not in "TCS-"
    )


def described(shape: tuple[int, ...], named: str | None) -> str:
    """Put a shape, and the names of its axes where it has any, into words.

    >>> described((1, 7, 5, 6), "TCYX")
    'shape (7, 5, 6), axes CYX'
    """
    if named is None or not set(named.upper()) & set("TCZYXS"):
        return f"shape {tuple(shape)}"
    named = named.upper()
    kept = tuple(
        s for a, s in zip(named, shape, strict=True) if s > 1 or a not in "TCS-"
    )
    letters = "".join(a if a in "TCZYXS" else "?" for a in _bare(shape, named))
    return f"shape {kept}, axes {letters}"


def names_one_channel(shape: tuple[int, ...], named: str | None) -> bool:
    """Tell whether a file itself says which axes of a single channel are Z, Y and X.

    Examples
    --------
    >>> names_one_channel((1, 9, 8, 7), "TZYX")
    True
    >>> names_one_channel((9, 8, 7), "QYX"), names_one_channel((9, 1, 8, 7), "TZYX")
    (False, False)
    """
    if named is None or not set("ZYX") <= set(named.upper()):
        return False
    others = [n for n, a in zip(shape, named.upper(), strict=True) if a not in "ZYX"]
    return all(n == 1 for n in others)
