"""The operations of the language in Triton, and the functions that generated source brings along.

Functions are made of exp and log alone: what Triton takes from a vendor's library is not in its interpreter.
Series are as long as the type needs where the plain formula would lose digits.
"""

from __future__ import annotations

import math
from fractions import Fraction

SPELLED: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "exp": "tl.exp({0})",
    "expm1": "expm1({0})",
    "log": "tl.log({0})",
    "log1p": "log1p({0})",
    "sqrt": "tl.sqrt({0})",
    "tanh": "tanh({0})",
    "sigmoid": "sigmoid({0})",
    "sin": "tl.sin({0})",
    "cos": "tl.cos({0})",
    "floor": "tl.floor({0})",
    "stop": "{0}",
    "spread": "{0}",
    # At a tie the gradient belongs to the second; NaN in either wins.
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "gt": "({0} > {1}).to({real})",
    "ge": "({0} >= {1}).to({real})",
    "where": "tl.where({0} != 0, {1}, {2})",
}

NEEDED: dict[str, tuple[str, ...]] = {
    "expm1": ("expm1",),
    "log1p": ("log1p",),
    "tanh": ("expm1", "tanh"),
    "sigmoid": ("sigmoid",),
    "sum": ("plus",),
    "cumsum": ("plus",),
    "max": ("larger",),
}
"""The functions, in order, that an operation calls."""


def function(name: str, real: str) -> str:
    """The source of a function. real: the type of what it takes, "tl.float32" or "tl.float64"."""
    wide = real == "tl.float64"
    match name:
        case "expm1":
            return _EXPM1.format(series=_horner([Fraction(1, math.factorial(n)) for n in range(1, 16 if wide else 9)]))
        case "log1p":
            return _LOG1P.format(series=_horner([Fraction(1, 2 * n + 1) for n in range(14 if wide else 8)], "s * s"))
    if name.startswith("then"):
        return _then(int(name.removeprefix("then")))
    return _FUNCTIONS[name]


def _then(states: int) -> str:
    """One affine step after another, as one: factors a and offsets b, of so many coupled states."""
    some = range(states)
    first, second = ([f"{x}a{i}{j}" for i in some for j in some] + [f"{x}b{i}" for i in some] for x in "xy")
    factors = [" + ".join(f"ya{i}{k} * xa{k}{j}" for k in some) for i in some for j in some]
    offsets = [" + ".join([*(f"ya{i}{k} * xb{k}" for k in some), f"yb{i}"]) for i in some]
    made = ", ".join([*factors, *offsets])
    return f"\n@triton.jit\ndef then({', '.join([*first, *second])}):\n    return {made}\n"


def number(value: float, real: str) -> str:
    """A number of full precision: a literal alone would be rounded to float32."""
    return f"tl.full([1, 1], {_literal(value)}, {real})"


def _literal(value: float) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _horner(series: list[Fraction], x: str = "x") -> str:
    """c0 + x * (c1 + x * (...)), each coefficient as the quotient that it is, rounded once."""
    text = _quotient(series[-1])
    for c in reversed(series[:-1]):
        text = f"({_quotient(c)} + {x} * {text})"
    return text


def _quotient(c: Fraction) -> str:
    return f"tl.full([1, 1], {c.numerator / c.denominator!r}, x.dtype)"


_EXPM1 = '''
@triton.jit
def expm1(x):
    """exp(x) - 1; near zero by its series."""
    return tl.where(tl.abs(x) < 0.35, x * {series}, tl.exp(x) - 1)
'''
_LOG1P = '''
@triton.jit
def log1p(x):
    """log(1 + x); near zero twice the series of the inverse hyperbolic tangent of x / (2 + x)."""
    s = x / (2 + x)
    return tl.where(tl.abs(x) < 0.4, 2 * s * {series}, tl.log(1 + x))
'''
_FUNCTIONS = {
    "tanh": """
@triton.jit
def tanh(x):
    e = expm1(-2 * tl.abs(x))
    return tl.where(x < 0, e, -e) / (e + 2)
""",
    "sigmoid": """
@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))
""",
    "plus": """
@triton.jit
def plus(a, b):
    return a + b
""",
    "larger": '''
@triton.jit
def larger(a, b):
    """NaN in either wins."""
    return tl.where((a > b) | (a != a), a, b)
''',
    "meet": '''
@triton.jit
def meet(arrived, all_here, failed, TRIES: tl.constexpr):
    """Wait until all programs of the group have come as far; what they wrote before can then be read. One that waits
    too long says so, and lets everybody go on."""
    tl.debug_barrier()
    tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu")
    tries = 0
    while (tl.atomic_add(arrived, 0, sem="acq_rel", scope="gpu") < all_here) & (tries < TRIES):
        tries += 1
    if tries >= TRIES:
        tl.atomic_max(failed, 1)
        tl.atomic_add(arrived, 1 << 29)
    tl.debug_barrier()
''',
}
