"""Programs written against torch.nn, converted: the same losses step by step, the same answers, there and back."""

from __future__ import annotations

import copy
import importlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import everloop
from everloop.testing import SAME, assert_close

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


@dataclass(frozen=True)
class Program:
    """A model in float64, how it trains, what it answers, and which recurrent layers it has."""

    model: Callable[[], Any]
    train: Callable[[Any], list[float]]
    answer: Callable[[Any], Tensor]
    layers: dict[str, int]


@pytest.fixture(params=["tagger", "language model, LSTM", "language model, GRU", "translator"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Program:
    name, _, kind = request.param.partition(", ")
    module = program_of(name.replace(" ", "_"), monkeypatch)
    return {"tagger": tagger, "language model": language_model, "translator": translator}[name](module, kind)


def program_of(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file beside this one. The programs stand alone, as those of users do, and lie in no package."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module(name)


def tagger(module: ModuleType, _: str) -> Program:
    data = module.batches(30, size=16, words=30, tags=4, longest=12)
    return Program(
        lambda: module.Tagger(30, 4, embedding=16, hidden=24, dropout=0.2).double(),
        lambda model: module.train(model, data),
        lambda model: module.predict(model, data[0]),
        {"LSTM": 1},
    )


def language_model(module: ModuleType, kind: str) -> Program:
    tokens, words = module.tokens_of((ROOT / "LICENSE").read_text(encoding="utf-8"))
    text = module.columns(tokens, batch=8)
    return Program(
        lambda: module.LanguageModel(kind, words, size=24, dropout=0.2).double(),
        lambda model: module.train(model, text, steps=7, epochs=2),
        lambda model: module.generate(model, text[0], 5),
        {kind: 1},
    )


def translator(module: ModuleType, _: str) -> Program:
    data = module.batches(30, size=16, words=12, longest=5)
    return Program(
        lambda: module.Translator(12, 12, embedding=16, hidden=24, dropout=0.1).double(),
        lambda model: module.train(model, data),
        lambda model: module.translate(model, data[0]),
        {"GRU": 1, "GRUCell": 1},
    )


def seeded(run: Callable[..., Any], *given: Any) -> Any:
    random.seed(0)
    torch.manual_seed(0)
    return run(*given)


def recurrent_layers(model: nn.Module) -> Counter[tuple[str, str]]:
    """(package, name) of the classes of the recurrent layers of a model."""
    kinds = (type(module) for module in model.modules())
    return Counter((kind.__module__.partition(".")[0], kind.__name__) for kind in kinds if kind.__name__ in RECURRENT)


def converted(model: nn.Module) -> Any:
    return everloop.convert(copy.deepcopy(model))


def test_every_recurrent_layer_is_replaced_and_nothing_else(program: Program) -> None:
    plain = program.model()
    ours = converted(plain)
    assert recurrent_layers(plain) == {("torch", name): count for name, count in program.layers.items()}
    assert recurrent_layers(ours) == {("everloop", name): count for name, count in program.layers.items()}
    assert recurrent_layers(everloop.convert(ours, to="torch")) == recurrent_layers(plain)
    assert list(ours.state_dict()) == list(plain.state_dict())


def test_losses_step_by_step(program: Program) -> None:
    """With dropout: the masks are the same as well."""
    plain = seeded(program.model)
    ours = converted(plain)
    expected = seeded(program.train, plain)
    found = seeded(program.train, ours)
    assert len(expected) >= 30
    assert sum(expected[-5:]) < 0.95 * sum(expected[:5]), "nothing was learned"
    assert_close(found, expected, SAME, "losses of the converted model")
    for name, weights in plain.state_dict().items():
        assert_close(ours.state_dict()[name], weights, SAME, f"{name} after training")
    assert torch.equal(program.answer(ours), program.answer(plain))


def test_cells_on_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single step is torch's own unless a backend is asked for by name; asked for, it gives the same losses."""
    program = translator(program_of("translator", monkeypatch), "")
    plain = seeded(program.model)
    ours = converted(plain)
    with everloop.use_backend("llvm"):
        found = seeded(program.train, ours)
    assert_close(found, seeded(program.train, plain), SAME, "losses with the cell on the kernel")


def test_there_and_back_between_two_rounds_of_training(program: Program) -> None:
    plain = seeded(program.model)
    ours = converted(plain)
    for run in (plain, ours):
        seeded(program.train, run)
    back = everloop.convert(ours, to="torch")
    assert_close(seeded(program.train, back), seeded(program.train, plain), SAME, "losses back in torch")


def test_the_model_is_converted_where_it_stands(program: Program) -> None:
    """So that an optimizer that has its parameters goes on with them."""
    model = program.model()
    parameters = list(model.parameters())
    assert everloop.convert(model) is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_weights_move_either_way(program: Program) -> None:
    plain, ours = seeded(program.model), converted(program.model())
    assert not all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))
    ours.load_state_dict(plain.state_dict())
    assert torch.equal(program.answer(ours), program.answer(plain))
    other = program.model()
    other.load_state_dict(ours.state_dict())
    assert torch.equal(program.answer(other), program.answer(plain))


def test_tied_weights_stay_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = converted(program_of("language_model", monkeypatch).LanguageModel("LSTM", 20, 8))
    assert ours.decoder.weight is ours.encoder.weight


# -- the benchmark ----------------------------------------------------------------------------------------------------


@pytest.fixture
def drop_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/drop_in.py, which lies outside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("drop_in")


def test_the_benchmark_runs(drop_in: ModuleType) -> None:
    rows = drop_in.measure(drop_in.tag(quick=True), seconds=0.0)
    assert [row.what for row in rows] == ["train", "use"]
    assert all(row.torch > 0 and row.everloop > 0 for row in rows)


def test_the_benchmark_has_the_three_programs_and_all_six_classes(drop_in: ModuleType) -> None:
    names = {contest.name for contest in drop_in.contests(quick=True)}
    assert {"tagger", "language model, LSTM", "language model, GRU", "translator"} < names
    assert {f"nn.{kind}" for kind in RECURRENT} < names


def test_who_computes_something_else_is_not_timed(drop_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(2)
        return model

    monkeypatch.setattr(everloop, "convert", wrong, raising=False)
    with pytest.raises(AssertionError, match=r"tagger: a loss of .* came; expected torch's"):
        drop_in.measure(drop_in.tag(quick=True), seconds=0.0)
