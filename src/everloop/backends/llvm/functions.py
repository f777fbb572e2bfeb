"""Elementary functions of numbers and vectors of numbers, as LLVM functions without calls or tables.

An argument is reduced to a small interval around zero, a polynomial is evaluated there, and the result is scaled by
a power of two put together from its bits. All lanes do the same; what is unusual (infinities, results too small to
be normal numbers) comes out right by the order of the operations or by a selection. Only sines and cosines of very
large numbers branch, to the C library. No flag relaxes the arithmetic, so every machine gives the same bits; one
without fused multiplication and addition calls the C library for it, and is slow.

The polynomials were found for this file by the Remez exchange in 60 digits, for the smallest relative error of the
function on the reduced interval; their coefficients were rounded one after another from the lowest, the others
being fitted again each time. The equations of the logarithm are those of fdlibm's e_log.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from everloop.backends.llvm.reals import Bits, Body, Real, Type

FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sigmoid", "sin", "cos", "floor")


def name(op: str, type_: str) -> str:
    """The name of a function of FUNCTIONS for `float`, `double` or a vector of them: `@el.tanh.v16f32`."""
    return f"@el.{op}.{Type.read(type_).suffix}"


def define(op: str, type_: str) -> str:
    """The text of a function, complete but for what `declarations` names."""
    return _written(op, type_)[0]


def declarations(ops: Iterable[str], type_: str) -> set[str]:
    """What these functions need declared, a line each; a module declares each line once."""
    return set().union(*(_written(op, type_)[1] for op in ops))


@cache
def _written(op: str, type_: str) -> tuple[str, frozenset[str]]:
    if op not in _FORMULAS:
        raise ValueError(f"{op!r} is no function of vectors; expected one of {', '.join(FUNCTIONS)}")
    body = Body(Type.read(type_))
    result = _FORMULAS[op](Real(body, "%x"))
    text = body.function(f"{type_} {name(op, type_)}({type_} %x)", result)
    return text, frozenset(body.declared)


# The formulas.


def _exp(x: Real) -> Real:
    k = _format(x)
    t, r = _reduced(x.at_most(k.overflow).at_least(k.underflow), 2 * k.bias)
    # Two halves of the power of two: each is a normal number, and the last product rounds once, to whatever is left.
    half = t >> 1
    low, high = (half << k.mantissa).real(), ((t - half) << k.mantissa).real()
    return _fma(low, _grown(r), low) * high


def _sigmoid(x: Real) -> Real:
    """1 / (1 + e^-x), or with e^x above and below: e^-|x| never overflows."""
    k = _format(x)
    t, r = _reduced((-abs(x)).at_least(k.underflow), k.bias + k.lift)
    # Lifted by a power of two, e^-|x| is a normal number also where the result is not, which so is rounded only once.
    up, down = 2.0**k.lift, 2.0**-k.lift
    power = (t << k.mantissa).real()
    lifted = _fma(power, _grown(r), power)
    return x.below(0.0).choose(lifted, up) / _fma(lifted, down, 1.0) * down


def _tanh(x: Real) -> Real:
    """(e^2x - 1) / (e^2x + 1), both halved, where e^2x = 2^n (1 + 2q): no digits are lost at zero."""
    # x times a quotient of polynomials of x^2 is 15 % faster, but twice as far off, and in places above one.
    k = _format(x)
    size = abs(x).at_most(k.saturation)
    t, n = _nearest(size, 2 * k.log2_e, k.bias)
    r = _less(size, n, *(part / 2 for part in k.ln2[: k.ln2_parts_of_tanh]))
    q = _fma(r * r, _polynomial(r, [c * 2.0 ** (i + 1) for i, c in enumerate(k.expm1)]), r)
    power = (t << k.mantissa).real()
    above = _fma(power, q, _fma(power, 0.5, -0.5))
    return (above / (above + 1.0)).copysign(x)


def _expm1(x: Real) -> Real:
    k = _format(x)
    t, r = _reduced(x.at_most(k.overflow).at_least(k.minus_one), k.bias - 1)
    # Half the power of two, as the whole may lie beyond the largest number.
    power = (t << k.mantissa).real()
    half = _fma(power, _grown(r), power - 0.5)
    # Half of a number too small to be normal would lose a digit, and zero its sign.
    return abs(x).below(2.0 ** -(k.mantissa + 2)).choose(x, half + half)


def _log(x: Real) -> Real:
    k = _format(x)
    small, lift = x.below(k.smallest_normal), k.mantissa + 1
    exponent, m = _split(small.choose(x * 2.0**lift, x))
    zero = _number(Bits.constant(x.body, k.bias))
    n = _number(exponent) - small.choose(_number(Bits.constant(x.body, k.bias + lift)), zero)
    return _of_domain(_logarithm(m - 1.0, n), x, x)


def _log1p(x: Real) -> Real:
    k = _format(x)
    u = x + 1.0
    back = u - 1.0
    lost = (x - back) - ((u - back) - 1.0)
    exponent, m = _split(u)
    # What u lost of x is scaled as m is. Where the scale is too small to be normal, nothing of weight was lost.
    scale = ((Bits.constant(x.body, 2 * k.bias) - exponent) << k.mantissa).real()
    scale = u.below(2.0**k.bias).choose(scale, 0.0)
    n = _number(exponent) - _number(Bits.constant(x.body, k.bias))
    return _of_domain(_logarithm(_fma(lost, scale, m - 1.0), n), x, u).copysign(x)


def _sine(x: Real, turn: int) -> Real:
    """The sine after a quarter turn or none."""
    k = _format(x)
    size = abs(x)
    t, n = _nearest(size, 2 / math.pi, 0)
    r = _less(size, n, *k.quarter_turn)
    z = r * r
    sine = _fma(r * z, _polynomial(z, k.sin), r)
    cosine = _fma(z * z, _polynomial(z, k.cos), _fma(z, -0.5, 1.0))
    quarters = t + turn
    sign = (quarters & 2) << (k.bits - 2)
    if not turn:
        sign = sign ^ (x.bits() & (1 << (k.bits - 1)))
    near = ((quarters & 1).equals(1).choose(cosine, sine).bits() ^ sign).real()
    return near.within(k.far, x, "cos" if turn else "sin")


_FORMULAS: dict[str, Callable[[Real], Real]] = {
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "sqrt": lambda x: x.intrinsic("sqrt"),
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "sin": lambda x: _sine(x, 0),
    "cos": lambda x: _sine(x, 1),
    "floor": lambda x: x.intrinsic("floor"),
}


# Their parts.


def _nearest(x: Real, scale: float, offset: int) -> tuple[Bits, Real]:
    """The whole number n nearest to x * scale: n + offset in the lowest bits of the first result, n in the second."""
    # Numbers of this size are whole, and a sum rounds to the nearest.
    whole = 1.5 * 2.0 ** _format(x).mantissa + offset
    t = _fma(x, scale, whole)
    return t.bits(), t - whole


def _less(x: Real, n: Real, *parts: float) -> Real:
    """x - n * (the sum of the parts), where each part continues the one before: the first difference is exact."""
    for part in parts:
        x = _fma(n, -part, x)
    return x


def _reduced(x: Real, offset: int) -> tuple[Bits, Real]:
    """x = n ln 2 + r with |r| <= ln 2 / 2: n + offset in the lowest bits, and r."""
    k = _format(x)
    t, n = _nearest(x, k.log2_e, offset)
    return t, _less(x, n, *k.ln2)


def _grown(r: Real) -> Real:
    """e^r - 1 for |r| <= ln 2 / 2."""
    return _fma(r * r, _polynomial(r, _format(r).expm1), r)


def _split(x: Real) -> tuple[Bits, Real]:
    """x = 2^n m with m from sqrt(1/2) to sqrt(2): n + bias, and m. Of x that is no normal number > 0, anything."""
    k = _format(x)
    fraction = (1 << k.mantissa) - 1
    bits = x.bits() + ((k.bias << k.mantissa) - k.sqrt_half)
    return bits >> k.mantissa, ((bits & fraction) + k.sqrt_half).real()


def _number(n: Bits) -> Real:
    """n + 2^mantissa as a number, for n of few bits: conversions proper are slow where vectors have none."""
    k = _format(n)
    return (n | ((k.bias + k.mantissa) << k.mantissa)).real()


def _logarithm(f: Real, n: Real) -> Real:
    """ln(1 + f) + n ln 2 for 1 + f from sqrt(1/2) to sqrt(2), where ln(1 + f) = 2 artanh(f / (2 + f))."""
    k = _format(f)
    s = f / (f + 2.0)
    z = s * s
    square = f * 0.5 * f
    low = _fma(s, _fma(z, _polynomial(z, k.artanh), square), n * k.ln2[1])
    return _fma(n, k.ln2[0], f - (square - low))


def _of_domain(y: Real, x: Real, argument: Real) -> Real:
    """The logarithm y of an argument, put right where that is zero, negative, infinite or NaN. x: what it is then."""
    y = argument.below(math.inf).choose(y, x)
    outside = argument.equals(0.0).choose(-math.inf, math.nan)
    return argument.above(0.0).choose(y, outside)


def _polynomial(x: Real, coefficients: Sequence[float]) -> Real:
    """The coefficients from the lowest."""
    value = Real.constant(x.body, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = _fma(value, x, c)
    return value


def _fma(a: Real, b: Real | float, c: Real | float) -> Real:
    """a * b + c, rounded once."""
    return a.intrinsic("fma", b, c)


# What the formulas need to know of float32 and float64.


@dataclass(frozen=True)
class _Format:
    bits: int
    mantissa: int
    bias: int
    # Beyond `overflow` e^x is infinite, below `underflow` zero; e^x - 1 is -1 below `minus_one`, tanh 1 beyond
    # `saturation`, each exactly.
    overflow: float
    underflow: float
    minus_one: float
    saturation: float
    # 2^lift e^underflow is a normal number, and so is 2^lift.
    lift: int
    # The bits of sqrt(1/2).
    sqrt_half: int
    # ln 2 and pi / 2 as sums, each part the next digits; those of pi / 2 are cut off, not rounded, so that all are
    # positive and a rest of zero is too.
    ln2: tuple[float, ...]
    ln2_parts_of_tanh: int
    quarter_turn: tuple[float, ...]
    # Beyond this, n is not near enough to x / (pi / 2), or the parts of pi / 2 are too few.
    far: float
    # (e^r - 1 - r) / r^2 in r; 2 (artanh(s) - s) / s^3 in s^2; (sin r - r) / r^3 in r^2; (cos r - 1 + r^2 / 2) / r^4
    # in r^2.
    expm1: tuple[float, ...]
    artanh: tuple[float, ...]
    sin: tuple[float, ...]
    cos: tuple[float, ...]
    log2_e: float = math.log2(math.e)

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)


def _format(value: Real | Bits) -> _Format:
    return _FLOAT if value.body.type.bits == 32 else _DOUBLE


# The relative errors of the polynomials, by their functions: 1.7e-8, 1.6e-9, 4.7e-9, 2.5e-10.
_FLOAT = _Format(
    bits=32,
    mantissa=23,
    bias=127,
    overflow=89.0,
    underflow=-104.5,
    minus_one=-20.0,
    saturation=9.2,
    lift=64,
    sqrt_half=0x3F3504F3,
    ln2=(0.6931471824645996, -1.9046542121259336e-09),
    ln2_parts_of_tanh=1,
    quarter_turn=(1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15),
    far=1e5,
    expm1=(0.4999999701976776, 0.1666652262210846, 0.04166760668158531, 0.008369183167815208, 0.0013858018210157752),
    artanh=(0.6666677594184875, 0.39977580308914185, 0.29870909452438354),
    sin=(-0.16666653752326965, 0.008332093246281147, -0.0001950514124473557),
    cos=(0.041666653007268906, -0.0013887574896216393, 2.4455021048197523e-05),
)

# The same: 3.0e-19, 2.5e-18, 5.4e-18, 1.3e-19.
_DOUBLE = _Format(
    bits=64,
    mantissa=52,
    bias=1023,
    overflow=710.0,
    underflow=-746.0,
    minus_one=-40.0,
    saturation=20.0,
    lift=512,
    sqrt_half=0x3FE6A09E667F3BCD,
    ln2=(0.6931471805599453, 2.3190468138462996e-17),
    ln2_parts_of_tanh=2,
    quarter_turn=(1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32),
    far=1e9,
    expm1=(
        0.5,
        0.16666666666666674,
        0.041666666666666574,
        0.008333333333323216,
        0.001388888888894651,
        0.00019841269882775212,
        2.4801587187734144e-05,
        2.7557247107994684e-06,
        2.755739774582824e-07,
        2.510815362123256e-08,
        2.087522282219466e-09,
    ),
    artanh=(
        0.6666666666666734,
        0.3999999999941641,
        0.285714287421167,
        0.22222198592819176,
        0.18183563638192204,
        0.1531406096327642,
        0.14795909278625882,
    ),
    sin=(
        -0.16666666666666635,
        0.008333333333322104,
        -0.00019841269829076237,
        2.7557313331135115e-06,
        -2.505068998446005e-08,
        1.5892350656170178e-10,
    ),
    cos=(
        0.04166666666666665,
        -0.001388888888888045,
        2.4801587292345542e-05,
        -2.7557314948101017e-07,
        2.0875780099970333e-09,
        -1.1361599858555325e-11,
    ),
)
