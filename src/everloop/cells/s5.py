"""Diagonal state space with several inputs and outputs (S5), started as S4D-Lin."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import cos, exp, expm1, silu, sin, sized, square


@cell(
    states="s r",
    gates="s r y",
    source="Smith, Warrington, Linderman 2022, Simplified State Space Layers; start: Gu et al. 2022, S4D-Lin",
    year=2022,
    when="signals with a sampling rate: each state is a damped oscillation with a time step of its own",
    init={
        "decay": math.log(0.5),
        "turn": lambda u, k, n: math.pi * k,
        "step": lambda u, k, n: math.log(0.001) + u * (math.log(0.1) - math.log(0.001)),
    },
)
def s5(x, s, r, W, C, decay, turn, step, *, act=silu):
    """The state s + i r follows ds/dt = L s + B x with L = -exp(decay) + i turn, held over time steps exp(step).

    Zero-order hold: s is multiplied by M = exp(L dt), and B x by (M - 1) / L. Each state stands for itself and its
    conjugate, hence the 2 in y = 2 Re(C s) + D x (W holds B for both parts and, for y, D).
    Option: act, what follows the recurrence (silu; GELU in the paper; identity: the bare state space).
    torch, Keras, ONNX: have no such cell. S4D proper gives every feature its own small state space.
    Beware: decays and steps start for sequences of ten to a thousand steps; the paper starts from HiPPO.
    """
    dt, d = exp(step.s), exp(decay.s)
    # Re M - 1, accurate for small steps; then (M - 1) / L, both parts over |L| squared.
    less = expm1(-d * dt) * cos(turn.s * dt) - 2 * square(sin(turn.s * dt / 2))
    re, im = 1 + less, exp(-d * dt) * sin(turn.s * dt)
    whole = square(d) + square(turn.s)
    hold_re, hold_im = (turn.s * im - d * less) / whole, -(d * im + turn.s * less) / whole
    u, v = W.s @ x, W.r @ x
    s, r = re * s - im * r + hold_re * u - hold_im * v, re * r + im * s + hold_re * v + hold_im * u
    y = act(sized(2 * (C.s @ s - C.r @ r) + W.y @ x, "hidden"))
    return y, s, r
