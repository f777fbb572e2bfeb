"""A trained layer without torch: what it computes is what torch's does, and a file holds all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from everloop import cells, load, relu
from everloop.lang.cell import cell
from everloop.lang.functions import tanh
from everloop.lang.read import read_cell
from everloop.lang.transforms import layer_norm, multiplicative_integration, recurrent_dropout, residual, tie, zoneout
from everloop.nn import Recurrent
from everloop.stream import Layers, Stream, load_layer, save_layer
from everloop.testing import FLOAT32, SAME, assert_close

TEXT = """
from everloop import cell, tanh, sigmoid

@cell(states="h", gates="z n")
def mine(x, h, W, U, b, *, slope=1.0):
    a = W @ x + U @ h + b
    return sigmoid(a.z) * h + tanh(slope * a.n)
"""


def layer_of(made: Any, *, depth: int = 2, both: bool = False, dtype: torch.dtype = torch.float32) -> Recurrent:
    torch.manual_seed(0)
    found = cells.get(made)
    hidden = 4 if "hidden" in found.graph.size_names else 3
    sizes = {"proj": 2} if "proj" in found.graph.size_names else {}
    return Recurrent(found, 3, hidden, depth, both, sizes=sizes, dtype=dtype).eval()


def check(found: Layers, layer: Recurrent, tolerance: Any = FLOAT32) -> None:
    x = torch.randn(2, 6, 3)
    with torch.no_grad():
        expected, state = layer(x)
    assert_close(found(x.numpy()), expected, tolerance, "whole sequences")
    if not layer.bidirectional:
        stream = found.stream(batch=2)
        assert_close(stream.push(x.numpy()), expected, tolerance, "a stream")
        for k in range(layer.num_layers):
            for name, array in state._asdict().items():
                mine = stream.state[f"{k}.{name}"]
                assert_close(mine, array[k][:, : mine.shape[1]], tolerance, f"the state {k}.{name}")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", ["lstm", "projection_lstm", "mingru", "lmu", "exp_rnn"])
def test_it_computes_the_same(name: str, both: bool) -> None:
    layer = layer_of(name, both=both)
    check(Layers.of(layer), layer)


def test_as_wide_as_its_input() -> None:
    wide = layer_of(residual(cells.get("gru")), depth=2)
    found = Layers.of(wide)
    assert found.widths == [3, 3, 3]
    check(found, wide)


def test_no_sequences() -> None:
    found = Layers.of(layer_of("lstm", both=True))
    assert found(np.zeros((0, 5, 3))).shape == (0, 5, 8)


def test_in_double_precision() -> None:
    layer = layer_of("gru", dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x[None])[0][0]
    assert_close(Layers.of(layer).stream(dtype=np.float64).push(x.numpy()), expected, SAME)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    layer = layer_of("lstm", dtype=torch.bfloat16)
    save_layer(layer, tmp_path / "layer")
    found, wide = load_layer(tmp_path / "layer"), layer_of("lstm")
    wide.load_state_dict(layer.state_dict())
    check(found, wide)


def test_both_directions_cannot_be_streamed() -> None:
    found = Layers.of(layer_of("lstm", both=True))
    with pytest.raises(ValueError, match="a layer of both directions cannot be streamed: the reverse one begins at"):
        found.stream()
    with pytest.raises(ValueError, match="a layer of both directions cannot be streamed"):
        found.pool()


def test_a_pool_of_it() -> None:
    layer = layer_of("gru")
    pool = Layers.of(layer).pool(idle=5)
    id, x = pool.open(), torch.randn(4, 3)
    with torch.no_grad():
        assert_close(pool.push({id: x.numpy()})[id], layer(x[None])[0][0], FLOAT32)
    assert pool.idle == 5


KEPT = [
    cells.get("lstm"),
    cells.get("lmu")(span=50.0),
    cells.get("elman")(act=relu),
    read_cell(TEXT),
    read_cell(TEXT)(slope=0.5),
    zoneout(cells.get("lstm"), h=0.1, c=0.5),
    residual(layer_norm(cells.get("gru"), eps=1e-3)),
    recurrent_dropout(zoneout(cells.get("gru"), 0.2), 0.25),
    tie(cells.get("lstm"), {"W.f": "W.i"}),
    multiplicative_integration(cells.get("lstm")),
    zoneout(read_cell(TEXT), 0.2),
]


@pytest.mark.parametrize("made", KEPT, ids=lambda made: made.name)
def test_a_file_is_the_layer(tmp_path: Path, made: Any) -> None:
    layer = layer_of(made)
    save_layer(layer, tmp_path / "layer.safetensors")
    found = load_layer(tmp_path / "layer.safetensors")
    for kept in found.cells:
        assert kept.name == made.name
        assert kept.options == made.options
        assert kept.rewrites == made.rewrites
    check(found, layer)
    again = load(tmp_path / "layer.safetensors")
    assert isinstance(again, Layers)
    assert [path.name for path in tmp_path.iterdir()] == ["layer.safetensors"]


def test_a_loaded_layer_can_be_kept_again(tmp_path: Path) -> None:
    save_layer(layer_of("lstm", both=True), tmp_path / "one")
    save_layer(load_layer(tmp_path / "one"), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_of_the_first_format_still_loads(tmp_path: Path) -> None:
    """As it was written when all layers of a file were alike."""
    layer = layer_of(zoneout(cells.get("lstm"), c=0.5), both=True)
    header = {
        "format": 1,
        "cell": {"name": "lstm", "transforms": [{"name": "zoneout", "shares": [["c", 0.5]]}]},
        "sizes": {"input": 3, "hidden": 4},
        "layers": 2,
        "bidirectional": True,
    }
    save_file(layer.state_dict(), tmp_path / "old", {"everloop": json.dumps(header)})
    found = load_layer(tmp_path / "old")
    assert [sizes["input"] for sizes in found.sizes] == [3, 8]
    check(found, layer)
    header |= {"cell": {"name": "lstm"}, "bidirectional": False}
    plain = layer_of("lstm")
    save_file(plain.state_dict(), tmp_path / "plain", {"everloop": json.dumps(header)})
    check(load_layer(tmp_path / "plain"), plain)


def test_a_snapshot_survives_the_file(tmp_path: Path) -> None:
    layer, x = layer_of("lstm"), np.ones((3, 3), np.float32)
    before = Layers.of(layer).stream()
    before.push(x)
    save_layer(layer, tmp_path / "layer")
    after = load_layer(tmp_path / "layer").stream()
    after.restore(before.snapshot())
    assert (after.push(x) == before.push(x)).all()


class TestWhatCannotBeKept:
    def refused(self, made: Any, path: Path, words: str) -> None:
        with pytest.raises(ValueError) as caught:
            save_layer(layer_of(made), path / "layer")
        assert words in str(caught.value)
        assert not list(path.iterdir())

    def test_a_cell_of_this_program(self, tmp_path: Path) -> None:
        @cell(states="h", gates="h")
        def own(x, h, W):
            return tanh(W.h @ x) + h

        self.refused(
            own, tmp_path, "cell own is not in the catalogue, so a file cannot name it. Put its text in a file"
        )

    def test_an_option_that_has_no_name(self, tmp_path: Path) -> None:
        self.refused(cells.get("elman")(act=lambda v: v * v), tmp_path, "cell elman: the option act is <function")

    def test_a_transform_of_this_program(self, tmp_path: Path) -> None:
        self.refused(cells.get("lstm").rewritten(lambda graph: graph), tmp_path, "is none of the transforms residual")


def one_layer(kept: dict[str, Any]) -> dict[str, Any]:
    return {"layers": [{"cell": kept, "sizes": {"input": 3, "hidden": 4}}]}


class TestDamaged:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        save_layer(layer_of("lstm"), tmp_path / "layer")
        return tmp_path / "layer"

    def test_files(self, path: Path, change: Callable[..., None]) -> None:
        with pytest.raises(FileNotFoundError, match=r"there is no file .*other to load a layer from"):
            load_layer(path.with_name("other"))
        content = path.read_bytes()
        path.write_bytes(content[:-3])
        with pytest.raises(ValueError, match="layer cannot be read as safetensors: "):
            load_layer(path)
        path.write_bytes(b"no safetensors")
        with pytest.raises(ValueError, match="layer cannot be read as safetensors: "):
            load_layer(path)

    def test_another_file_of_safetensors(self, path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(2)}, path)
        with pytest.raises(ValueError, match="layer is no layer of Everloop; expected a file that save_layer wrote"):
            load_layer(path)

    @pytest.fixture
    def change(self, path: Path) -> Callable[..., None]:
        from safetensors.numpy import load, save

        def write(**entries: Any) -> None:
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            facts = {**json.loads(header["__metadata__"]["everloop"]), **entries}
            kept = {name: value for name, value in facts.items() if name not in entries or value is not None}
            path.write_bytes(save(load(content), {"everloop": json.dumps(kept)}))

        return write

    @pytest.mark.parametrize(
        ("entries", "words"),
        [
            ({"format": 3}, "format 3 came; this Everloop reads formats 1 to 2"),
            ({"format": []}, "format [] came; this Everloop reads formats 1 to 2"),
            ({"skip": None}, "its header is damaged (KeyError('skip'))"),
            ({"skip": "sparse"}, "skip: 'sparse' came; expected None, 'residual' or 'dense'"),
            ({"layers": []}, "0 cells and 0 sizes came; expected one of both per layer"),
            ({"layers": 2}, "its header is damaged (TypeError("),
            (one_layer({"name": "ltsm"}), "no cell is named 'ltsm'; did you mean"),
            (one_layer({"name": "lstm", "transforms": [{"name": "odd"}]}), "the transform 'odd' came; there are"),
            (one_layer({"name": "lstm", "options": {"act": "tanh"}}), "lstm has no option 'act'"),
            ({"format": 1, "layers": 2}, "its header is damaged (KeyError('cell'))"),
        ],
    )
    def test_headers(self, path: Path, change: Callable[..., None], entries: dict[str, Any], words: str) -> None:
        change(**entries)
        with pytest.raises(ValueError) as caught:
            load_layer(path)
        assert words in str(caught.value)

    def test_sizes_that_do_not_fit(self, path: Path, change: Callable[..., None]) -> None:
        lstm = {"name": "lstm"}
        change(layers=[{"cell": lstm, "sizes": {"input": 3, "hidden": 5}}])
        with pytest.raises(ValueError, match=r"weights: W of shape \(16, 3\) came; expected \(20, 3\)"):
            load_layer(path).stream()
        alike = {"cell": lstm, "sizes": {"input": 4, "hidden": 4}}
        change(layers=[{"cell": lstm, "sizes": {"input": 3, "hidden": 4}}, alike, alike])
        with pytest.raises(
            ValueError, match=r"weights: layers\.2\.0\.W is missing; there are layers\.0\.0\.U, layers\.0\.0\.W"
        ):
            load_layer(path).stream()
        change(layers=[{"cell": lstm, "sizes": {"input": 3, "hidden": 5}}, alike])
        with pytest.raises(ValueError, match=r"sizes: an input of 4 came for layer 1, which is given 5"):
            load_layer(path)


def test_what_is_streamed_is_one_step(numbers: np.random.Generator) -> None:
    """All layers in one graph, so that a step is one call."""
    stream = Layers.of(layer_of("lstm", depth=3)).stream()
    assert isinstance(stream, Stream)
    assert list(stream.engine.graph.states) == ["0.h", "0.c", "1.h", "1.c", "2.h", "2.c"]
