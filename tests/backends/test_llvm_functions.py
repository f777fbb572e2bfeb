"""The functions that kernels are made of: exact to a few units in the last place for any number there is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("llvmlite")

from everloop.backends.llvm.functions import FUNCTIONS, declarations, define, name
from everloop.backends.llvm.jit import library
from everloop.backends.llvm.machine import host

# How far a result may be from the true one, in units of its last place, in float32 and float64. The worst that was
# measured, of every 61st float32 and of 2 million float64: exp 1.04 0.96, expm1 1.57 1.78, log 0.82 0.79, log1p 1.38
# 1.37, tanh 2.54 2.50, sigmoid 2.35 2.16, sin 1.55 1.55, cos 1.54 1.53.
ULPS = {
    "exp": (1.5, 1.5),
    "expm1": (2.0, 2.0),
    "log": (1.0, 1.0),
    "log1p": (1.5, 1.5),
    "sqrt": (0.5, 0.5),
    "tanh": (2.75, 2.75),
    "sigmoid": (2.5, 2.5),
    "sin": (1.75, 1.75),
    "cos": (1.75, 1.75),
    "floor": (0.0, 0.0),
}

Array = NDArray[np.floating]
Wide = np.longdouble
SCALARS = {"float": np.float32, "double": np.float64}
TYPES = {"float": "<16 x float>", "double": "<8 x double>"}

needs_extended = pytest.mark.skipif(
    np.finfo(Wide).nmant < 63, reason="long double is no wider than double here: nothing to compare with"
)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(np.isnan(x), x, np.where(x < 0, e, 1) / (1 + e))


TRUE: dict[str, Callable[[Array], Array]] = {op: getattr(np, op) for op in FUNCTIONS if op != "sigmoid"}
TRUE["sigmoid"] = sigmoid


def module(ops: list[str], type_: str) -> str:
    """A loop around each function."""
    scalar = type_.strip("<>").split(" x ")[-1]
    lanes = int(type_[1:].split(" x ")[0]) if "x" in type_ else 1
    loops = [
        f"""
define void @all_{op}(ptr %from, ptr %to, i64 %count) "min-legal-vector-width"="512" {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %up, %loop ]
  %a = getelementptr {scalar}, ptr %from, i64 %i
  %b = getelementptr {scalar}, ptr %to, i64 %i
  %x = load {type_}, ptr %a, align 4
  %y = call {type_} {name(op, type_)}({type_} %x)
  store {type_} %y, ptr %b, align 4
  %up = add i64 %i, {lanes}
  %on = icmp ult i64 %up, %count
  br i1 %on, label %loop, label %done
done:
  ret void
}}
"""
        for op in ops
    ]
    return "\n".join([*sorted(declarations(ops, type_)), *(define(op, type_) for op in ops), *loops])


@cache
def compiled(type_: str, cpu: str) -> Callable[[str, Array], Array]:
    ir = module(list(FUNCTIONS), type_)
    code = library(f"test_llvm_functions {sha256(ir.encode()).hexdigest()}", lambda: ir)
    word, size = ctypes.c_void_p, ctypes.c_int64
    calls = {op: ctypes.CFUNCTYPE(None, word, word, size)(code.address(f"all_{op}")) for op in FUNCTIONS}

    def run(op: str, x: Array) -> Array:
        padded = np.concatenate([x, np.zeros(16 - len(x) % 16, x.dtype)])
        y = np.full_like(padded, 99)
        calls[op](padded.ctypes.data, y.ctypes.data, len(padded))
        assert code is not None
        return y[: len(x)]

    return run


def run(op: str, x: Array, type_: str | None = None, cpu: str = "") -> Array:
    return compiled(type_ or TYPES["float" if x.dtype == np.float32 else "double"], cpu)(op, x)


def ulps(y: Array, true: Array) -> NDArray[np.float64]:
    """The distance from what is true in extended precision, in units of the last place; infinite where not finite and
    not the same.
    """
    format_ = np.finfo(y.dtype)
    rounded = true.astype(y.dtype)
    exponent = np.frexp(np.maximum(np.abs(true), Wide(format_.tiny)))[1] - 1 - format_.nmant
    distance = np.abs(y - true) / np.ldexp(Wide(1), exponent)
    same = (y == rounded) | (np.isnan(y) & np.isnan(rounded))
    finite = np.isfinite(y) & np.isfinite(rounded)
    return np.where(finite, distance, np.where(same, 0, np.inf)).astype(np.float64)


def anything(dtype: type[np.floating], count: int) -> Array:
    """Any bits: every exponent, both signs, numbers too small to be normal, infinities, NaN."""
    word = np.uint32 if dtype == np.float32 else np.uint64
    return np.random.default_rng(0).integers(0, np.iinfo(word).max, count, dtype=word).view(dtype)


def ranges(dtype: type[np.floating]) -> Array:
    """Dense where the functions are neither constant nor powers."""
    draw = np.random.default_rng(1)
    widths = (0.3, 1, 3, 20, 120, 800, 1e5, 2e9)
    flat = [draw.uniform(-width, width, 20_000) for width in widths]
    small = np.exp2(draw.uniform(-80, 0, 20_000)) * draw.choice([-1, 1], 20_000)
    return np.concatenate([*flat, small, 1 + small, small - 1]).astype(dtype)


def around(dtype: type[np.floating]) -> Array:
    """The neighbours of every number where a formula or a result changes its kind."""
    tiny, least, most = (float(getattr(np.finfo(dtype), what)) for what in ("tiny", "smallest_subnormal", "max"))
    ends = [-np.log(Wide(value)) for value in (tiny, least, Wide(least) / 2, most)]
    halves = np.arange(1, 80) * (np.log(Wide(2)) / 2)
    quarters = np.concatenate([np.arange(1, 80), [10**k for k in range(2, 10)]]) * (Wide(np.pi) + Wide(1.2246e-16)) / 4
    places = [0.5, 1, 2, 9.0108, 9.2, 17.3, 19.06, 20, 36.7, 37.4, 40, 1e5, 1e9, tiny, least, 2 * tiny, most]
    places = np.concatenate([places, ends, halves, quarters, np.sqrt(Wide(2)) ** np.arange(-40, 41), np.arange(60)])
    signed = np.concatenate([places, -places]).astype(dtype)
    word = np.int32 if dtype == np.float32 else np.int64
    return (signed.view(word)[:, None] + np.arange(-30, 31, dtype=word)).ravel().view(dtype)


@needs_extended
@pytest.mark.parametrize("numbers", [anything, ranges, around])
@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("op", FUNCTIONS)
def test_results_are_true_to_the_last_places(op: str, scalar: str, numbers: Callable[..., Array]) -> None:
    dtype = SCALARS[scalar]
    x = anything(dtype, 100_000) if numbers is anything else numbers(dtype)
    with np.errstate(all="ignore"):
        far = ulps(run(op, x), TRUE[op](x.astype(Wide)))
    limit = ULPS[op][scalar == "double"]
    worst = int(far.argmax())
    print(f"{op} {scalar} {numbers.__name__}: {far[worst]:.3f} ulp at {x[worst]!r}")
    assert far[worst] <= limit, f"{op}({x[worst]!r}) is {far[worst]:.3g} ulp off; {limit} are allowed"


SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, -0.5, -2.0, 1e3, -1e3, 1e30, -1e30]


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("op", FUNCTIONS)
def test_special_values_are_as_in_torch(op: str, scalar: str) -> None:
    """What is NaN, infinite, zero or one there is that here, with its sign."""
    dtype = SCALARS[scalar]
    tiny, most = np.finfo(dtype).tiny, np.finfo(dtype).max
    x = np.array([*SPECIAL, tiny, -tiny, most, -most], dtype)
    theirs = getattr(torch, op)(torch.from_numpy(x)).numpy()
    for count in (1, len(x)):  # one by one: not helped by the others
        ours = np.concatenate([run(op, x[k : k + count]) for k in range(0, len(x), count)])
        special = ~np.isfinite(theirs) | (theirs == 0) | (np.abs(theirs) == 1)
        np.testing.assert_array_equal(ours[special], theirs[special])
        known = special & ~np.isnan(theirs)
        np.testing.assert_array_equal(np.signbit(ours[known]), np.signbit(theirs[known]))
        assert np.isfinite(ours[~special]).all()


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("op", ["expm1", "log1p", "tanh", "sin"])
def test_numbers_near_zero_are_kept(op: str, scalar: str) -> None:
    dtype = SCALARS[scalar]
    x = np.array([1e-30, 1.4e-45, 1e-40, 1e-310 if dtype == np.float64 else 1e-38, np.finfo(dtype).tiny], dtype)
    x = np.concatenate([x, -x])
    np.testing.assert_array_equal(run(op, x), x)


@pytest.mark.parametrize("scalar", SCALARS)
def test_gates_that_are_shut_keep_their_digits(scalar: str) -> None:
    """Down to the smallest number there is, where 1 / (1 + exp(-x)) is zero long before."""
    dtype = SCALARS[scalar]
    x = -np.array([30, 80, 87.5, 100, 103] + ([708, 710, 740, 744] if dtype == np.float64 else []), dtype)
    true = sigmoid(x.astype(Wide)).astype(dtype)
    assert (np.abs(run("sigmoid", x) - true) <= 4 * np.spacing(true)).all()
    assert (run("sigmoid", x) > 0).all()


MACHINES = ["", "sse", "avx2", "avx512"]


@pytest.mark.parametrize("cpu", MACHINES)
@pytest.mark.parametrize("scalar", SCALARS)
def test_bits_do_not_depend_on_lanes_or_machine(scalar: str, cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = SCALARS[scalar]
    x = np.concatenate([anything(dtype, 4096), ranges(dtype)[::37], np.array(SPECIAL, dtype)])
    x = x[: len(x) // 16 * 16]
    expected = {op: run(op, x) for op in FUNCTIONS}
    monkeypatch.setenv("EVERLOOP_CPU", cpu)
    try:
        host()
    except ValueError as error:
        pytest.skip(str(error))
    for type_ in (scalar, *(f"<{lanes} x {scalar}>" for lanes in (2, 4, 8, 16))):
        for op in FUNCTIONS:
            y = run(op, x, type_, cpu)
            # The bits of a NaN are left to the machine.
            number = ~np.isnan(expected[op])
            assert np.array_equal(np.isnan(y), ~number), f"{op} of {type_}"
            assert y[number].tobytes() == expected[op][number].tobytes(), f"{op} of {type_}"


floats = {
    "float": st.floats(width=32, allow_nan=False).map(np.float32),
    "double": st.floats(width=64, allow_nan=False).map(np.float64),
}


@pytest.mark.parametrize("scalar", SCALARS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_functions_keep_their_shape(scalar: str, data: st.DataObject) -> None:
    """Even, odd, bounded; rising but for the last places; constant where they saturate."""
    x = np.sort(np.array(data.draw(st.lists(floats[scalar], min_size=1, max_size=40)), SCALARS[scalar]))
    for op in ("tanh", "sin"):
        np.testing.assert_array_equal(run(op, -x), -run(op, x))
    for op in ("tanh", "expm1", "log1p"):
        y = run(op, x)
        np.testing.assert_array_equal(np.signbit(y)[~np.isnan(y)], np.signbit(x)[~np.isnan(y)])
    np.testing.assert_array_equal(run("cos", -x), run("cos", x))
    for op, low, high in (("tanh", -1, 1), ("sigmoid", 0, 1), ("sin", -1, 1), ("cos", -1, 1), ("expm1", -1, np.inf)):
        y = run(op, x)
        assert ((y >= low) & (y <= high) | np.isnan(y)).all(), op
    for op in ("exp", "expm1", "tanh", "sigmoid"):
        y = run(op, x).astype(Wide)
        slack = 4 * np.spacing(np.abs(y.astype(x.dtype)[1:]))
        assert (y[1:] + slack >= y[:-1])[np.isfinite(y[1:]) & np.isfinite(y[:-1])].all(), op
    saturated = 9.02 if scalar == "float" else 19.1
    np.testing.assert_array_equal(run("tanh", x[x > saturated]), 1)
    np.testing.assert_array_equal(run("sigmoid", x[x > 2 * saturated]), 1)
    np.testing.assert_array_equal(run("expm1", x[x < -2 * saturated]), -1)
    np.testing.assert_array_equal(run("exp", x[x > (88.73 if scalar == "float" else 709.8)]), np.inf)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, (1 << 22) - 1), st.booleans(), st.booleans(), st.integers(0, 15))
def test_nan_stays_nan_and_in_its_lane(payload: int, quiet: bool, negative: bool, lane: int) -> None:
    bits = np.uint32(0x7F800000 | quiet << 22 | payload | negative << 31)
    for op in FUNCTIONS:
        for dtype in SCALARS.values():
            clean = np.linspace(0.1, 3, 16, dtype=dtype)
            x = clean.copy()
            with np.errstate(invalid="ignore"):  # a signal, on the way to float64
                x[lane] = bits.view(np.float32)
            y = run(op, x)
            assert np.isnan(y[lane])
            others = np.arange(16) != lane
            np.testing.assert_array_equal(y[others], run(op, clean)[others])


def test_names() -> None:
    assert name("tanh", "<16 x float>") == "@el.tanh.v16f32"
    assert name("tanh", "float") == "@el.tanh.f32"
    assert name("exp", "<2 x double>") == "@el.exp.v2f64"


def test_text_can_be_read() -> None:
    text = define("tanh", "<8 x float>")
    assert text.startswith("define internal <8 x float> @el.tanh.v8f32(<8 x float> %x) alwaysinline nounwind {\n")
    assert len(text.splitlines()) < 40
    assert declarations(["tanh"], "<8 x float>") == {
        "declare <8 x float> @llvm.fabs.v8f32(<8 x float>)",
        "declare <8 x float> @llvm.fma.v8f32(<8 x float>, <8 x float>, <8 x float>)",
        "declare <8 x float> @llvm.copysign.v8f32(<8 x float>, <8 x float>)",
    }


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'softmax' is no function of vectors; expected one of exp, expm1"):
        define("softmax", "float")
    for type_ in ("half", "<x float>", "<8 x i32>", "8 x float", "<8 x float", ""):
        with pytest.raises(ValueError, match="is no type of numbers; expected float, double or a vector"):
            define("exp", type_)
