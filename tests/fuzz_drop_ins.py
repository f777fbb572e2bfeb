"""Random modules of everloop.nn, with right and wrong arguments, beside torch's of the same weights, until the time is
up:

make fuzz                                                      kernels, then layers, then drop-ins
python tests/fuzz_drop_ins.py --seconds 3600 --first 5         an hour, from module 5 on
python tests/fuzz_drop_ins.py --only 5.17                      call 17 of module 5 alone, as a failure names it
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._pytree import tree_leaves

import everloop
import everloop.nn
from everloop.testing import FLOAT32, SAME, Tolerance, assert_close

CALLS = 25
"""Of one module: making its kernels takes longer than running them."""

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
SIZES = (1, 2, 3, 5, 8, 17)
WRONG = (0, -1, 2.5, "3", None, True, False, 7, 1.0, "tanh", [2], float("nan"))
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.complex64, torch.bool)


def main() -> int:
    options = _options()
    only = [int(part) for part in options.only.split(".")] if options.only else []
    began, tried, failed, modules = time.monotonic(), 0, 0, 0
    for number in only[:1] or count(options.first):
        modules += 1
        made = made_number(number)
        calls = (only[1:] or range(CALLS)) if isinstance(made[1], nn.Module) else [-1]
        for place in calls:
            tried += 1
            complaint = check(number, place, made)
            if complaint:
                failed += 1
                print(f"{number}.{place}: {complaint}", flush=True)
                if failed >= options.failures:
                    return _report(tried, modules, failed, began)
            if time.monotonic() - began > options.seconds:
                return _report(tried, modules, failed, began)
    return _report(tried, modules, failed, began)


def made_number(number: int) -> tuple[str, Any, Any]:
    """What is made, torch's module and ours; what is raised where one is refused."""
    source = random.Random(f"module {number}")
    name = source.choice(NAMES)
    args, kwargs = _constructor(source, name)
    made = []
    for home in (nn, everloop.nn):
        torch.manual_seed(number)
        made.append(_done(lambda home=home: getattr(home, name)(*args, **kwargs)))
    return f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})", *made


def check(number: int, place: int, made: tuple[str, Any, Any]) -> str:
    """What differs, in words."""
    what, theirs, ours = made
    if not isinstance(theirs, nn.Module) or not isinstance(ours, nn.Module):
        return "" if theirs == ours else f"{what}: {ours} came; expected {theirs}"
    source = random.Random(f"call {number}.{place}")
    x, more, how = _call(source, theirs)
    threads, training, backend = source.choice((1, 1, 2)), source.random() < 0.7, source.choice(("auto", "llvm"))
    odd = any(leaf.dtype not in (torch.float32, torch.float64) for leaf in tree_leaves((_data(x), more)) if _is(leaf))
    everloop.set_num_threads(threads)
    found = []
    for module in (theirs, ours):
        module.train(training)
        given = copy.deepcopy((x, more))
        torch.manual_seed(place)
        # A backend that is asked for by name says itself what it does not run.
        with everloop.use_backend("auto" if odd else backend):
            found.append(_done(lambda module=module, given=given: _results(module, *given)))
    what = f"{what}, {how}, training {training}, backend {backend}, {threads} threads"
    return _difference(what, *found)


def _difference(what: str, expected: Any, found: Any) -> str:
    if isinstance(expected, str) or isinstance(found, str):
        came, right = (made if isinstance(made, str) else f"a result {made[0]}" for made in (found, expected))
        return "" if expected == found else f"{what}: {came} came; expected {right}"
    (form, laid, arrays), (ours, also, other) = expected, found
    if form != ours:
        return f"{what}: {ours} came; expected {form}"
    if any(theirs and not mine for theirs, mine in zip(laid, also, strict=True)):
        return f"{what}: without gaps {also} came; expected {laid}"
    scale = max((a.abs().max().item() for a in arrays if a.numel() and a.isfinite().all()), default=1.0)
    for place, (a, b) in enumerate(zip(arrays, other, strict=True)):
        near = _near(a.dtype)
        try:
            assert_close(b, a, Tolerance(near.relative, near.absolute * max(1.0, scale)), f"result {place}")
        except AssertionError as error:
            return f"{what}: {error}"
    return ""


def _near(dtype: torch.dtype) -> Tolerance:
    return SAME if dtype is torch.float64 else FLOAT32


def _done(do: Callable[[], Any]) -> Any:
    """What it gives, or what it raises, in words, and what it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return do()
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def _results(module: nn.Module, x: Any, more: tuple[Any, ...]) -> tuple[Any, list[bool], list[Tensor]]:
    """The form of what comes out, which of it is without gaps, and all tensors, those of all gradients too."""
    made = module(x, *more)
    out = tree_leaves(_unpacked(made))
    arrays = [leaf for leaf in out if leaf.is_floating_point()]
    ends = [leaf for leaf in tree_leaves((_data(x), more)) if _is(leaf) and leaf.requires_grad]
    ends += [weights for weights in module.parameters() if weights.requires_grad]
    number = torch.stack([(a * torch.linspace(-1, 1, a.numel()).to(a).view(a.shape)).sum() for a in arrays]).sum()
    found = torch.autograd.grad(number, ends, materialize_grads=True) if ends and number.requires_grad else ()
    form = [(leaf.shape, leaf.dtype, leaf.requires_grad) for leaf in out]
    return (_form(made), form), [leaf.is_contiguous() for leaf in out], [*out, *found]


def _form(made: Any) -> Any:
    if isinstance(made, PackedSequence):
        return "packed", made.sorted_indices is None
    return (type(made).__name__, *map(_form, made)) if isinstance(made, tuple) else type(made).__name__


def _unpacked(made: Any) -> Any:
    if isinstance(made, PackedSequence):
        return [part for part in made if part is not None]
    return [_unpacked(part) for part in made] if isinstance(made, tuple) else made


def _data(x: Any) -> Any:
    return x.data if isinstance(x, PackedSequence) else x


def _is(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


# -- random constructors and calls -----------------------------------------------------------------------------------


def _constructor(source: random.Random, name: str) -> tuple[list[Any], dict[str, Any]]:
    layer = not name.endswith("Cell")
    given: dict[str, Any] = {"input_size": source.choice(SIZES), "hidden_size": source.choice(SIZES)}
    options: dict[str, Callable[[], Any]] = {"bias": lambda: source.random() < 0.5}
    if layer:
        options |= {
            "num_layers": lambda: source.choice((1, 2, 3)),
            "batch_first": lambda: source.random() < 0.7,
            "dropout": lambda: source.choice((0.0, 0.3, 1.0, 0, 1)),
            "bidirectional": lambda: source.random() < 0.7,
        }
    if name.startswith("RNN"):
        options["nonlinearity"] = lambda: source.choice(("tanh", "relu"))
    if name == "LSTM":
        options["proj_size"] = lambda: source.choice((0, 1, max(1, given["hidden_size"] - 1)))
    given |= {option: draw() for option, draw in options.items() if source.random() < 0.4}
    given["dtype"] = source.choice((torch.float64, torch.float32))
    if source.random() < 0.2:
        given[source.choice([*given, *options, "proj_size", "nonlinearity", "depth", "device"])] = source.choice(WRONG)
    if source.random() < 0.05:
        del given[source.choice([*given])]
    args = [given.pop(key) for key in ("input_size", "hidden_size") if key in given and source.random() < 0.5]
    return args, given


def _call(source: random.Random, module: Any) -> tuple[Any, tuple[Any, ...], str]:
    """x, what comes after it, and both in words; a third of the time something is wrong with them."""
    draws = torch.Generator().manual_seed(source.randrange(1 << 30))
    dtype = next(module.parameters()).dtype
    layer = isinstance(module, nn.RNNBase)

    def draw(*shape: int) -> Tensor:
        array = torch.randn(*shape, dtype=dtype, generator=draws)
        if source.random() < 0.3:
            array = torch.stack([array, array], -1)[..., 0]
        return array.requires_grad_(source.random() < 0.5)

    batch, steps = source.choice((0, 1, 2, 3, 5, 9)), source.choice((0, 1, 2, 3, 5, 6, 9, 17))
    form = source.choice(("batch", "batch", "one", "packed", "sorted") if layer else ("batch", "one"))
    if not batch or not steps:
        form = "batch"
    sizes = [batch, steps] if layer and module.batch_first else [steps, batch]
    shape = {"one": [steps]}.get(form, sizes) if layer else [batch] * (form == "batch")
    x: Any = draw(*shape, int(module.input_size))
    of_batch = [] if form == "one" else [batch]
    count = [int(module.num_layers) * (1 + bool(module.bidirectional))] if layer else []
    widths = [int(module.proj_size or module.hidden_size) if layer else int(module.hidden_size)]
    widths += [int(module.hidden_size)] if type(module).__name__.startswith("LSTM") else []
    states: Any = tuple(draw(*count, *of_batch, width) for width in widths)
    wrong = ""
    if source.random() < 0.33:
        # Where torch does not look, it reads over the end, and the process is gone: shapes of what is packed and of
        # states beside it, dimensions of what a cell is given.
        unseen = "dimension" if not layer else "state|shape" if form in ("packed", "sorted") else "nothing"
        wrong = source.choice([name for name in WRONGED if not re.search(unseen, name)])
        x, states = WRONGED[wrong](source, x, states)
    if form in ("packed", "sorted") and _is(x) and x.dim() == 3:
        lengths = sorted((source.randint(1, steps) for _ in range(batch)), reverse=True)
        if form == "packed":
            source.shuffle(lengths)
        packed = _done(
            lambda: pack_padded_sequence(x, torch.tensor(lengths), module.batch_first, enforce_sorted=form == "sorted")
        )
        x = packed if isinstance(packed, PackedSequence) else x
    hx = states if len(widths) == 2 or len(states) != 1 else states[0]
    more = () if source.random() < 0.3 else (hx,)
    said = f"x {_said(x)} ({form}), hx {[_said(state) for part in more for state in tree_leaves(part)]}"
    return _detached(x), _detached(more), f"{said} {wrong}"


def _said(value: Any) -> Any:
    data = _data(value)
    return (tuple(data.shape), str(data.dtype)) if _is(data) else value


def _detached(value: Any) -> Any:
    """As leaves, of which alone a copy can be made."""
    if isinstance(value, PackedSequence):
        return PackedSequence(_detached(value.data), *value[1:])
    if isinstance(value, tuple):
        return tuple(map(_detached, value))
    return value.detach().requires_grad_(value.requires_grad) if _is(value) else value


def _other_type(source: random.Random, array: Tensor) -> Tensor:
    return array.detach().to(source.choice(TYPES))


def _one_more(source: random.Random, array: Tensor) -> Tensor:
    if not array.dim():
        return array
    dim = source.randrange(array.dim())
    return torch.cat([array, array.narrow(dim, 0, min(1, array.shape[dim]))], dim)


def _of_state(do: Callable[[random.Random, Tensor], Any]) -> Callable[[random.Random, Any, Any], Any]:
    def done(source: random.Random, x: Any, states: Any) -> Any:
        place = source.randrange(len(states))
        return x, tuple(do(source, one) if k == place else one for k, one in enumerate(states))

    return done


WRONGED: dict[str, Callable[[random.Random, Any, Any], Any]] = {
    "another type of x": lambda source, x, states: (_other_type(source, x), states),
    "a shape of x": lambda source, x, states: (_one_more(source, x), states),
    "a dimension more": lambda source, x, states: (x[None], states),
    "a dimension less": lambda source, x, states: (x[0] if x.dim() and len(x) else x, states),
    "x is no tensor": lambda source, x, states: (source.choice((None, [1.0], "x", 3)), states),
    "another type of a state": _of_state(_other_type),
    "a shape of a state": _of_state(_one_more),
    "a dimension more of a state": _of_state(lambda source, state: state[None]),
    "a dimension less of a state": _of_state(lambda source, state: state[0] if state.dim() and len(state) else state),
    "a state is no tensor": _of_state(lambda source, state: source.choice((None, 1, "h"))),
    "a state too many": lambda source, x, states: (x, (*states, states[0])),
    "no states": lambda source, x, states: (x, ()),
    "a state on meta": _of_state(lambda source, state: state.to("meta")),
    "x on meta": lambda source, x, states: (x.to("meta"), states),
    "a sparse x": lambda source, x, states: (x.detach().to_sparse(), states),
}


def _report(tried: int, modules: int, failed: int, began: float) -> int:
    seconds = time.monotonic() - began
    print(f"{tried} calls of {modules} modules in {seconds:.0f} s: {failed} failed")
    return int(failed > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--first", type=int, default=0, help="the module to begin with")
    parser.add_argument("--failures", type=int, default=5, help="failures to end after")
    parser.add_argument("--only", default="", help="one module (5), or one call of it (5.17)")
    return parser.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        # Kernels that nobody runs again have no place among those on disk.
        os.environ["EVERLOOP_CACHE"] = folder
        torch.set_num_threads(1)
        sys.exit(main())
