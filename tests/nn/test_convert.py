"""`convert`: what it changes in a model, what it leaves alone, and the way back."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import everloop.nn
from everloop import Recurrent, convert, use_backend
from everloop.testing import SAME, assert_close

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
every_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    """Few steps, and cells, run torch's own forward if no backend is asked for."""
    with use_backend("llvm"):
        yield


def made(name: str, *args: Any, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return getattr(nn, name)(*args, **{"dtype": torch.float64, **kwargs})


def first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else first(out[0])


def draw(name: str, width: int = 3) -> Tensor:
    shape = (5, width) if name.endswith("Cell") else (5, 2, width)
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Tagger(nn.Module):
    """All kinds in one model: in a list, shared, wrapped, tied."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 3, dtype=torch.float64)
        self.layers = nn.ModuleList([made("LSTM", 3, 4, 2, bidirectional=True), made("GRU", 8, 8)])
        self.again = self.layers[1]
        self.wrapped = nn.DataParallel(nn.Sequential(nn.Identity(), made("RNN", 8, 8, batch_first=True)))
        self.step = made("LSTMCell", 8, 8)
        self.step.weight_hh = self.step.weight_ih
        self.cells = nn.ModuleDict({"gru": made("GRUCell", 8, 8), "rnn": made("RNNCell", 8, 8)})

    def forward(self, words: Tensor) -> Tensor:
        y = self.layers[0](self.embed(words))[0]
        y = self.wrapped(self.again(self.layers[1](y)[0])[0])[0]
        h, c = self.step(y[0])
        for x in y[1:]:
            h, c = self.step(x, (h, c))
        return self.cells["rnn"](c, self.cells["gru"](c, h))


WORDS = torch.randint(0, 20, (6, 3), generator=torch.Generator().manual_seed(2))


def recurrent(model: nn.Module) -> set[type[nn.Module]]:
    return {type(m) for m in model.modules() if isinstance(m, nn.RNNBase | nn.RNNCellBase)}


def test_every_layer_of_a_model_is_converted_and_back() -> None:
    torch.manual_seed(0)
    model = Tagger()
    modules, before, names = [*model.modules()], model(WORDS), dict(model.named_parameters())
    assert convert(model) is model
    assert recurrent(model) == {getattr(everloop.nn, name) for name in NAMES}
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is names[key] for key, a in model.named_parameters())
    assert model.layers[1] is model.again
    assert model.step.weight_hh is model.step.weight_ih
    assert_close(model(WORDS), before)
    convert(model)
    assert recurrent(model) == {getattr(everloop.nn, name) for name in NAMES}
    assert convert(model, to="torch") is model
    assert recurrent(model) == {getattr(nn, name) for name in NAMES}
    assert torch.equal(model(WORDS), before)


def test_a_model_goes_on_training_as_it_would_have() -> None:
    """Converted in the middle, with the optimizer that there is."""
    losses = []
    for change in (False, True):
        torch.manual_seed(0)
        model = Tagger()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        found = []
        for step in range(6):
            if change and step == 2:
                convert(model)
            if change and step == 4:
                convert(model, to="torch")
            loss = model(WORDS).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    assert losses[0][-1] < losses[0][0]
    assert_close(losses[1], losses[0])


@every_name
def test_a_layer_by_itself(name: str) -> None:
    layer = made(name, 3, 4)
    before, state = first(layer(draw(name))), {key: value.clone() for key, value in layer.state_dict().items()}
    assert convert(layer) is layer
    assert type(layer) is getattr(everloop.nn, name)
    assert_close(first(layer(draw(name))), before)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    assert repr(layer) == repr(made(name, 3, 4))


@every_name
def test_hooks_and_what_else_a_module_has_stay(name: str) -> None:
    layer = made(name, 3, 4).eval()
    seen = []
    layer.register_forward_hook(lambda module, args, out: seen.append(type(module)))
    layer.register_buffer("scale", torch.ones(1))
    layer.note = "mine"
    convert(layer)
    layer(draw(name))
    assert seen == [getattr(everloop.nn, name)]
    assert layer.note == "mine"
    assert "scale" in layer.state_dict()
    assert not layer.training


@every_name
@pytest.mark.parametrize("how", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrized_modules(name: str, how: Any) -> None:
    layer = how(made(name, 3, 4), "weight_hh" if name.endswith("Cell") else "weight_hh_l0")
    called, before, keys = type(layer).__name__, first(layer(draw(name))), [*layer.state_dict()]
    convert(layer)
    assert isinstance(layer, getattr(everloop.nn, name))
    assert type(layer).__name__ == called
    assert [*layer.state_dict()] == keys
    assert parametrize.is_parametrized(layer)
    assert_close(first(layer(draw(name))), before)
    convert(layer, to="torch")
    assert isinstance(layer, getattr(nn, name))
    assert torch.equal(first(layer(draw(name))), before)
    convert(layer)
    parametrize.remove_parametrizations(layer, "weight_hh" if name.endswith("Cell") else "weight_hh_l0")
    assert type(layer) is getattr(everloop.nn, name)
    assert_close(first(layer(draw(name))), before)


def test_old_weight_norm_moves_along() -> None:
    layer = made("LSTM", 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(layer, "weight_hh_l0")
    before = first(layer(draw("LSTM")))
    assert_close(first(convert(layer)(draw("LSTM"))), before)
    first(layer(draw("LSTM"))).sum().backward()
    assert layer.weight_hh_l0_g.grad is not None


@every_name
def test_copies_and_files_of_converted_modules(name: str) -> None:
    layer = convert(made(name, 3, 4))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(layer)):
        assert type(other) is getattr(everloop.nn, name)
        assert torch.equal(first(other(draw(name))), first(layer(draw(name))))
        assert type(convert(other, to="torch")) is getattr(nn, name)


def test_classes_of_somebody_s_own_are_left_alone() -> None:
    class Mine(nn.LSTM):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            return super().forward(x.flip(0))

    class Ours(everloop.nn.LSTM):
        pass

    model = nn.ModuleList([Mine(3, 4), Ours(3, 4), Recurrent("lstm", 3, 4), nn.Linear(3, 4), nn.LSTM(3, 4)])
    kinds = [type(module) for module in model]
    convert(model)
    assert [type(module) for module in model] == [*kinds[:-1], everloop.nn.LSTM]
    convert(model, to="torch")
    assert [type(module) for module in model] == kinds
    mine = parametrizations.weight_norm(Mine(3, 4), "weight_hh_l0")
    kind = type(mine)
    assert type(convert(mine)) is kind


def test_the_same_seed_trains_a_converted_model_to_the_same_numbers() -> None:
    """With dropout between the layers."""
    found = []
    for change in (False, True):
        model = made("LSTM", 3, 4, 3, dropout=0.5)
        if change:
            convert(model)
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(4):
            optimizer.zero_grad()
            first(model(draw("LSTM"))).square().sum().backward()
            optimizer.step()
        found.append(nn.utils.parameters_to_vector(model.parameters()))
    assert_close(found[1], found[0], SAME)


def test_what_is_no_module_is_refused() -> None:
    for wrong, came in ((nn.LSTM, "type"), ({"a": nn.LSTM(3, 4)}, "dict"), (None, "NoneType")):
        with pytest.raises(TypeError, match=rf"convert: {came} came; expected a torch.nn.Module"):
            convert(wrong)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"convert: to='keras' came; expected \"everloop\" or \"torch\""):
        convert(nn.LSTM(3, 4), to="keras")
