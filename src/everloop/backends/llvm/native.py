"""A function object over machine code: what Python calls for a step of a stream, at about the price of a function of C.

Called with an array (of no derived class) that has the shape of a chunk, it makes the array of the outputs, runs the
kernel and returns it; numbers of another type, or with gaps, are converted first. With anything else it does nothing
and returns None, and so it does while somebody has the stream's lock: the general way knows more, and says what is
wrong. native.ll is the code.

It knows objects by NumPy's C interface, which all extensions are compiled against: the places of an array's fields, and
the table of its functions. Both are looked over before the first use. Where they are not as expected, or Python is not
CPython with its lock, there is no such function, and streams take the general way.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from everloop.backends.llvm.jit import Library, library

Push = Callable[[Any], "np.ndarray | None"]


@dataclass(frozen=True)
class Call:
    """A run of a kernel that is ready but for its arrays.

    kernel: the address of the code. words: of the call. x, y: the places of the words that point to the inputs and the
    outputs; x is -1 where no inputs are read. steps: the word that says how many steps there are. room: how many there
    can be.
    """

    kernel: int
    words: np.ndarray
    x: int
    y: int
    steps: np.ndarray
    room: int


@dataclass(frozen=True)
class Chunks:
    """What a stream is pushed. shape: of one step, [I] or [B, I]; several steps, [T, I], can come where it is [I].
    width: of the outputs of one step. held: up to so many steps, the interpreter's lock is kept while they run.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    width: int
    held: int


def push_function(
    chunks: Chunks, one: Call | None, several: Call | None, lock: threading.Lock, kept: tuple[Any, ...]
) -> Push | None:
    """push(x), or None where there can be none.

    one, several: what runs one step, and several; None: it is not for them. lock: whoever has it has the stream. kept:
    all that the words of the calls point to.
    """
    longest = several or one
    if longest is None or not available():
        return None
    code, unused = _code(), np.zeros(1, np.int64)
    objects = np.ndarray, chunks.dtype, None, False, lock.locked, lock.acquire, lock.release
    record = np.zeros(len(_FIELDS), np.int64)
    facts = {
        **dict(zip(_OBJECTS, map(id, objects), strict=True)),
        **_functions(),
        **_call_words("one", one or longest, unused),
        **_call_words("several", longest, unused),
        # No array has -1 axes.
        "axes": len(chunks.shape) if one else -1,
        "first": chunks.shape[0],
        "features": chunks.shape[-1],
        "width": chunks.width,
        "held": chunks.held,
        "room": longest.room,
    }
    for place, name in enumerate(_FIELDS):
        record[place] = facts[name]
    return _maker()(ctypes.addressof(code.definition), record, (code, objects, one, several, unused, *kept))


def address(array: np.ndarray) -> int:
    """Where the numbers of an array begin."""
    return (_Array.from_address(id(array)).data or 0) if available() else _told_address(array)


def _told_address(array: np.ndarray) -> int:
    """The same, from the array itself, which takes it eight times as long."""
    return array.__array_interface__["data"][0]


def _call_words(name: str, call: Call, unused: np.ndarray) -> dict[str, int]:
    begin, size = address(call.words), call.words.itemsize
    x = address(unused) if call.x < 0 else begin + call.x * size
    return {
        f"{name}_kernel": call.kernel,
        f"{name}_words": begin,
        f"{name}_x": x,
        f"{name}_y": begin + call.y * size,
        f"{name}_steps": address(call.steps),
    }


_OBJECTS = ("ndarray", "dtype", "Py_None", "Py_False", "locked", "acquire", "unlock")
_PYTHON = (
    "Py_IncRef",
    "Py_DecRef",
    "PyObject_CallNoArgs",
    "PyObject_CallOneArg",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
)
# In NumPy's table, at places that are the same in all its versions.
_NUMPY = {"PyArray_NewFromDescr": 94, "PyArray_FromArray": 109}
_NDARRAY = 2
_CALL = ("kernel", "words", "x", "y", "steps")
_FIELDS = (
    *_OBJECTS,
    *_PYTHON,
    *_NUMPY,
    *(f"{call}_{word}" for call in ("one", "several") for word in _CALL),
    *("axes", "first", "features", "width", "held", "room"),
)

# Fields of an array that the code reads, and what its flags say when numbers lie in order and where they should; what
# is asked of an array that is made of another one: that, and any type can be converted.
_ARRAY = {"type": 1, "data": 2, "axes": 3, "lengths": 4, "dtype": 7, "flags": 8}
_GAPLESS = 0x1 | 0x100
_CONVERTED = _GAPLESS | 0x10


class _Array(ctypes.Structure):
    """An array as NumPy's headers have it."""

    _fields_ = (
        ("references", ctypes.c_int64),
        ("type", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("axes", ctypes.c_int),
        ("lengths", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("dtype", ctypes.c_void_p),
        ("flags", ctypes.c_int),
    )


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_O = 0x8


@dataclass(frozen=True)
class _Code:
    """The machine code, and how Python knows it."""

    library: Library
    definition: _Definition


@cache
def _code() -> _Code:
    made = library("push", _source)
    return _Code(made, _Definition(b"push", made.address("push"), _METH_O, b"push($self, x, /)\n--\n\n"))


def _source() -> str:
    places = {name: place for place, name in enumerate(_FIELDS)}
    return Template(Path(__file__).with_suffix(".ll").read_text(encoding="utf-8")).substitute(
        places,
        **{f"array_{name}": place for name, place in _ARRAY.items()},
        **{f"call_{name}": place for place, name in enumerate(_CALL)},
        one=places[f"one_{_CALL[0]}"],
        several=places[f"several_{_CALL[0]}"],
        GAPLESS=_GAPLESS,
        CONVERTED=_CONVERTED,
    )


@cache
def available() -> bool:
    """Whether this Python's objects, and NumPy's, are as the code takes them to be."""
    if platform.python_implementation() != "CPython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    # A longer head: no lock of the interpreter, or a build that traces objects.
    if object.__basicsize__ != ctypes.sizeof(ctypes.c_void_p) * 2:
        return False
    names = (*_PYTHON, "PyCFunction_NewEx", "PyCapsule_GetPointer")
    return all(hasattr(ctypes.pythonapi, name) for name in names) and _arrays_are_as_expected()


def _arrays_are_as_expected() -> bool:
    sample = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (sample, sample.T, np.arange(4.0)):
        seen = _Array.from_address(id(array))
        found = (seen.type, seen.data, seen.axes, seen.dtype, seen.flags, seen.lengths[: array.ndim])
        if found != (
            id(np.ndarray),
            _told_address(array),
            array.ndim,
            id(array.dtype),
            array.flags.num,
            [*array.shape],
        ):
            return False
    return _table()[_NDARRAY] == id(np.ndarray)


def _table() -> Any:
    core = "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    capsule = import_module(f"{core}._multiarray_umath")._ARRAY_API
    return ctypes.cast(get(capsule, None), ctypes.POINTER(ctypes.c_void_p))


@cache
def _functions() -> dict[str, int]:
    """The addresses of the functions that the code calls."""
    found = {name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for name in _PYTHON}
    return found | {name: _table()[place] for name, place in _NUMPY.items()}


@cache
def _maker() -> Callable[[int, np.ndarray, tuple[Any, ...]], Push]:
    """PyCFunction_NewEx. Its module may be any object: a tuple, so that nothing of it goes before the function does."""
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    return kind(("PyCFunction_NewEx", ctypes.pythonapi))
