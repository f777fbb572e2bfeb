"""Everloop: recurrent neural networks.

A cell is one step, written once:

    from everloop import cell, sigmoid, tanh

    @cell(states="h c", gates="i f g o", init={"b.f": 1.0})
    def lstm(x, h, c, W, U, b):
        a = W @ x + U @ h + b
        c = sigmoid(a.f) * c + sigmoid(a.i) * tanh(a.g)
        return sigmoid(a.o) * tanh(c), c

`Recurrent(lstm, 32, 64)` is a layer of it. A file of sequences becomes a trained model:

    from everloop import Classifier, load

    model = Classifier().fit("reviews.csv", out="runs/reviews")
    load("runs/reviews").predict(["a film to remember"])

Names are imported when they are first used: importing everloop loads neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_FUNCTIONS = (
    "absolute blocks cos cumsum elu exp expm expm1 features fixed floor gelu hard_sigmoid hard_tanh identity "
    "largest leaky_relu log log1p logsigmoid maximum mean minimum mod norm position power relu shift "
    "sigmoid silu sin sized softmax softplus softsign sqrt square stop_gradient tanh total where window"
)
_TRANSFORMS = "layer_norm multiplicative_integration recurrent_dropout residual tie zoneout"

_HOME = {
    "Cell": "everloop.lang.cell",
    "Classifier": "everloop.tasks.classifier",
    "Forecaster": "everloop.tasks.forecaster",
    "Generator": "everloop.tasks.generator",
    "Recognizer": "everloop.tasks.recognizer",
    "Recurrent": "everloop.nn",
    "Seq2Seq": "everloop.tasks.seq2seq",
    "Stream": "everloop.stream",
    "StreamPool": "everloop.stream",
    "Tagger": "everloop.tasks.tagger",
    "cell": "everloop.lang.cell",
    "convert": "everloop.nn.convert",
    "explain": "everloop.nn.explain",
    "get_num_threads": "everloop.backends.llvm.threads",
    "load": "everloop.tasks",
    "read_cell": "everloop.lang.read",
    "record": "everloop.insight.recording",
    "set_num_threads": "everloop.backends.llvm.threads",
    "use_backend": "everloop.backends",
    **dict.fromkeys(_FUNCTIONS.split(), "everloop.lang.functions"),
    **dict.fromkeys(_TRANSFORMS.split(), "everloop.lang.transforms"),
}

__all__ = [
    "Cell",
    "Classifier",
    "Forecaster",
    "Generator",
    "Recognizer",
    "Recurrent",
    "Seq2Seq",
    "Stream",
    "StreamPool",
    "Tagger",
    "absolute",
    "blocks",
    "cell",
    "convert",
    "cos",
    "cumsum",
    "elu",
    "exp",
    "explain",
    "expm",
    "expm1",
    "features",
    "fixed",
    "floor",
    "gelu",
    "get_num_threads",
    "hard_sigmoid",
    "hard_tanh",
    "identity",
    "largest",
    "layer_norm",
    "leaky_relu",
    "load",
    "log",
    "log1p",
    "logsigmoid",
    "maximum",
    "mean",
    "minimum",
    "mod",
    "multiplicative_integration",
    "norm",
    "position",
    "power",
    "read_cell",
    "record",
    "recurrent_dropout",
    "relu",
    "residual",
    "set_num_threads",
    "shift",
    "sigmoid",
    "silu",
    "sin",
    "sized",
    "softmax",
    "softplus",
    "softsign",
    "sqrt",
    "square",
    "stop_gradient",
    "tanh",
    "tie",
    "total",
    "use_backend",
    "where",
    "window",
    "zoneout",
]

if TYPE_CHECKING:
    from everloop.backends import use_backend
    from everloop.backends.llvm.threads import get_num_threads, set_num_threads
    from everloop.insight.recording import record
    from everloop.lang.cell import Cell, cell
    from everloop.lang.functions import (
        absolute,
        blocks,
        cos,
        cumsum,
        elu,
        exp,
        expm,
        expm1,
        features,
        fixed,
        floor,
        gelu,
        hard_sigmoid,
        hard_tanh,
        identity,
        largest,
        leaky_relu,
        log,
        log1p,
        logsigmoid,
        maximum,
        mean,
        minimum,
        mod,
        norm,
        position,
        power,
        relu,
        shift,
        sigmoid,
        silu,
        sin,
        sized,
        softmax,
        softplus,
        softsign,
        sqrt,
        square,
        stop_gradient,
        tanh,
        total,
        where,
        window,
    )
    from everloop.lang.read import read_cell
    from everloop.lang.transforms import (
        layer_norm,
        multiplicative_integration,
        recurrent_dropout,
        residual,
        tie,
        zoneout,
    )
    from everloop.nn import Recurrent
    from everloop.nn.convert import convert
    from everloop.nn.explain import explain
    from everloop.stream import Stream, StreamPool
    from everloop.tasks import load
    from everloop.tasks.classifier import Classifier
    from everloop.tasks.forecaster import Forecaster
    from everloop.tasks.generator import Generator
    from everloop.tasks.recognizer import Recognizer
    from everloop.tasks.seq2seq import Seq2Seq
    from everloop.tasks.tagger import Tagger


def __getattr__(name: str) -> Any:
    if name in _HOME:
        try:
            return getattr(importlib.import_module(_HOME[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            missing = f"{name} needs torch, which is not installed: pip install 'everloop[train]'"
            raise ModuleNotFoundError(missing, name="torch") from error
    raise AttributeError(f"module 'everloop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
