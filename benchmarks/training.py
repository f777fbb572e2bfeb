"""Training whole tasks: Everloop's layers beside torch.nn's, in the same network, on the same loop and batches.

    python benchmarks/training.py [NAME ...] [--updates 12] [--seconds 40] [--json build/training.json]

The networks are those of benchmarks/application_list.py. A task is fitted for no update at all, its network is copied,
and in the copy every `Recurrent` of lstm, gru or elman becomes torch.nn's, given packed sequences, with the same
weights. Both take the same updates in turns, one thread, float32; an update is all that training does with a batch:
putting it together, forward, loss, backward, clipping, optimizer. The first losses have to agree. As the losses do, so
does the number of updates to any accuracy: the ratio of times per update is that of times to it.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from application_list import APPLICATIONS, Application
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from everloop import tasks
from everloop.bench.machine import machine, versions
from everloop.bench.measure import compare
from everloop.nn import Recurrent
from everloop.tasks.training import seed_everything

ROOT = Path(__file__).parents[1]
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
AGREE = 1e-3
"""How far, as a share, the first losses in float32 may differ between two ways to round."""


class TorchRecurrent(nn.Module):
    """torch.nn's layers in the place of a `Recurrent`, called as that is."""

    def __init__(self, ours: Recurrent) -> None:
        super().__init__()
        self.input_size, self.output_size = ours.input_size, ours.output_size
        self.bidirectional = ours.bidirectional
        self.layers = TORCH[ours.cell.name](
            ours.input_size,
            ours.hidden_size,
            ours.num_layers,
            batch_first=True,
            dropout=ours.dropout if ours.num_layers > 1 else 0.0,
            bidirectional=ours.bidirectional,
        )
        weights = dict(ours.named_parameters())
        with torch.no_grad():
            for depth in range(ours.num_layers):
                for direction in range(2 if ours.bidirectional else 1):
                    end = f"l{depth}" + ("_reverse" if direction else "")
                    of = f"layers.{depth}.{direction}"
                    for name, its in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b"), ("bias_hh", "d")):
                        value = weights.get(f"{of}.{its}")
                        getattr(self.layers, f"{name}_{end}").copy_(0 if value is None else value)

    def forward(self, x: Tensor, state: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        if state is not None and not isinstance(self.layers, nn.LSTM):
            state = state if isinstance(state, Tensor) else state[0]
            state = state if state.dim() == 3 else state[None]
        if lengths is None:
            y, state = self.layers(x, None if state is None else state)
        else:
            packed = pack_padded_sequence(x, torch.as_tensor(lengths), batch_first=True, enforce_sorted=False)
            y, state = self.layers(packed, state)
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return y, state if isinstance(state, tuple) else (state,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--updates", type=int, default=12, help="of a sample")
    parser.add_argument("--seconds", type=float, default=40, help="for each application at most")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    print(f"{'application':24}{'torch.nn':>12}{'Everloop':>12}{'ratio':>8}   predictions a second")
    for application in APPLICATIONS:
        if options.names and not application.name.startswith(tuple(options.names)):
            continue
        row = contest(application, options)
        if row is not None:
            found.append(row)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), "versions": versions(), "rows": found}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


def contest(application: Application, options: argparse.Namespace) -> dict[str, Any] | None:
    source, how = application.data(options.data, 0)
    if source is None:
        print(f"{application.name:24}{how}")
        return None
    model = prepared(application, source, how)
    layers = [one for one in model.network_.modules() if isinstance(one, Recurrent)]
    if any(one.cell.name not in TORCH for one in layers):
        return None
    ours, theirs = model.network_, copy.deepcopy(model.network_)
    for name, module in list(theirs.named_modules()):
        if isinstance(module, Recurrent):
            holder, _, attribute = name.rpartition(".")
            setattr(theirs.get_submodule(holder), attribute, TorchRecurrent(module))
    batches = list(model.problem().batches(1))[: options.updates]
    sides = {"torch.nn": updates(model, theirs, batches), "Everloop": updates(model, ours, batches)}
    first = {name: side(1) for name, side in sides.items()}
    if abs(first["Everloop"] - first["torch.nn"]) > AGREE * abs(first["torch.nn"]):
        raise SystemExit(f"{application.name}: the first losses are {first}; a comparison would say nothing")
    figures = compare(
        {name: lambda side=side: side(len(batches)) for name, side in sides.items()},
        repeats=25,
        seconds=options.seconds,
    )
    each = {name: figure.median / len(batches) for name, figure in figures.items()}
    ratio = each["torch.nn"] / each["Everloop"]
    counts = [model.problem().loss(ours, batch, None)[1] for batch in batches]
    pace = sum(counts) / len(counts) / each["Everloop"]
    shown = "".join(f"{1e3 * each[name]:9.1f} ms" for name in ("torch.nn", "Everloop"))
    print(f"{application.name:24}{shown}{ratio:8.2f}   {pace:,.0f}", flush=True)
    return {"name": application.name, "seconds": each, "ratio": ratio, "predictions_per_second": pace}


def prepared(application: Application, source: Any, how: dict[str, Any]) -> Any:
    """The task, ready for its first update: what `fit` does before it trains."""
    model = tasks.get(application.task)(**{**application.options, "seed": 0})

    class Ready(Exception):
        pass

    def stop(resume: bool) -> None:
        raise Ready

    model._train = stop
    try:
        model.fit(source, quiet=True, **how)
    except Ready:
        return model
    raise AssertionError("fit did not train")


def updates(model: Any, network: nn.Module, batches: list[Any]) -> Callable[[int], float]:
    """What takes so many updates, and gives the mean loss of them."""
    problem, optimizer = model.problem(), torch.optim.AdamW(network.parameters(), lr=1e-4)

    def run(count: int) -> float:
        seed_everything(0)
        network.train()
        total, carry = 0.0, None
        for batch in batches[:count]:
            optimizer.zero_grad(set_to_none=True)
            loss, _, carry = problem.loss(network, batch, carry)
            loss.backward()
            if all(weight.grad is None for weight in network.parameters()):
                raise SystemExit(f"{model.name}: the loss is not that of the network at hand; this would say nothing")
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            carry = None if carry is None else tuple(one.detach() for one in carry)
            total += loss.item()
        return total / count

    return run


if __name__ == "__main__":
    main()
