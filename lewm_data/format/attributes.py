"""Root attributes of a file that may hold anything, as values of the types that the format promises.

Every function raises ValueError for a value of another type, and KeyError for an attribute that is missing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def hash_attributes(attributes: Mapping[str, Any], names: Iterable[str]) -> str:
    """SHA-256 of attributes as Python's own numbers and text, whichever types h5py returns."""
    values = [[name, plain(attributes[name])] for name in names]
    return hashlib.sha256(json.dumps(values, default=repr).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A number or text of Python for one of numpy; an array of several values stays as it is."""
    return (
        value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1) else value
    )


def number(attributes: Mapping[str, Any], name: str) -> float:
    """A number."""
    value = plain(attributes[name])
    if not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    if abs(value) > sys.float_info.max:
        raise ValueError(f"{name} is {value}")
    return float(value)


def integer(attributes: Mapping[str, Any], name: str) -> int:
    """A whole number."""
    value = plain(attributes[name])
    if not isinstance(value, int):
        raise ValueError(f"{name} is not a whole number")
    return value


def parse[T: (list[Any], dict[str, Any])](attributes: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Parses JSON text that holds a list or an object."""
    text = plain(attributes[name])
    value = json.loads(text) if isinstance(text, str | bytes) else None
    if not isinstance(value, kind):
        raise ValueError(f"{name} is not a JSON {'list' if kind is list else 'object'}")
    return value


def as_list(value: Any) -> list[Any]:
    """A list from JSON."""
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    return value


def as_integers(value: Any) -> tuple[int, ...]:
    """A list of whole numbers from JSON."""
    if not all(isinstance(item, int) for item in as_list(value)):
        raise ValueError(f"{value!r} is not a list of whole numbers")
    return tuple(value)


def as_object(value: Any) -> dict[str, Any]:
    """An object from JSON."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    return value
