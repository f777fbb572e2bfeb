"""One live stream: any chunking is the whole, and a state can be kept, copied and taken up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop import cells
from everloop.stream import Engine, Stream
from everloop.stream.numpy_step import NumpyStep
from everloop.testing import assert_close

Make = Callable[..., Any]


@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru", "lmu", "qrnn"])
def test_a_stack_streamed_is_the_layer(model: Make, numbers: np.random.Generator, cell: str) -> None:
    made = model(cell)
    x = numbers.normal(size=(3, 11, 3))
    stream = made.stream(batch=3)
    y = np.concatenate([stream.push(x[:, :4]), stream.push(x[:, 4:5]), stream.push(x[:, 5:])], 1)
    with torch.no_grad():
        expected, state = made.layer(torch.from_numpy(x))
    assert_close(y, expected)
    for k in (0, 1):
        for name, array in state._asdict().items():
            mine = stream.state[f"{k}.{name}"]
            assert_close(mine, array[k][:, : mine.shape[1]], what=f"{k}.{name}")


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 12), max_size=6),
    batch=st.sampled_from([1, 3]),
    cell=st.sampled_from(["lstm", "gru_before", "mingru", "slstm"]),
    singly=st.booleans(),
)
def test_any_chunking_is_the_whole(cuts: list[int], batch: int, cell: str, singly: bool) -> None:
    found = cells.get(cell)
    sizes = {"input": 3, "hidden": 4}
    numbers = np.random.default_rng(0)
    weights = {
        stack: numbers.normal(size=[sum(p.shape(sizes)[0] for p in members), *members[0].shape(sizes)[1:]])
        for stack, members in found.graph.stacks.items()
    }
    one, other = (Stream(found.graph, sizes, weights, batch, np.float64) for _ in range(2))
    x = numbers.normal(size=(12, 3) if batch == 1 else (batch, 12, 3))
    ends = sorted({0, 12, *cuts})
    parts = [other.push(x[..., a:b, :]) for a, b in pairwise(ends)]
    if singly:
        other.reset()
        parts = [other.push(x[..., t, :])[..., None, :] for t in range(12)]
    assert_close(np.concatenate(parts, -2), one.push(x))
    for name, array in one.state.items():
        assert_close(other.state[name], array)


class TestShapes:
    def test_with_and_without_a_batch(self, model: Make) -> None:
        alone, several = model().stream(), model().stream(2)
        assert alone.push(np.zeros((5, 3))).shape == (5, 4)
        assert alone.push(np.zeros(3)).shape == (4,)
        assert alone.push(np.zeros((0, 3))).shape == (0, 4)
        assert several.push(np.zeros((2, 5, 3))).shape == (2, 5, 4)
        assert several.push(np.zeros((2, 3))).shape == (2, 4)
        assert several.push(np.zeros((2, 0, 3))).shape == (2, 0, 4)
        assert {array.shape for array in alone.state.values()} == {(4,)}
        assert {array.shape for array in several.state.values()} == {(2, 4)}

    def test_whatever_holds_numbers(self, model: Make) -> None:
        """Lists, whole numbers, views with gaps, other types: the same as a plain array."""
        x = np.arange(12, dtype=np.float64).reshape(4, 3)
        plain = model().stream().push(x)
        for same in (x.tolist(), x.astype(int), x.astype(np.float32), np.asfortranarray(x), x.repeat(2, 0)[::2]):
            assert_close(model().stream().push(same), plain)
        alone = model().stream()
        for t, row in enumerate(np.asfortranarray(x)):
            assert_close(alone.push(row), plain[t])

    @pytest.mark.parametrize(
        ("batch", "shape", "words"),
        [
            (1, (4,), "an array of shape (4,) came; expected [T, 3], or one step [3]"),
            (1, (2, 4), "an array of shape (2, 4) came; expected [T, 3], or one step [3]"),
            (1, (1, 2, 3), "an array of shape (1, 2, 3) came; expected [T, 3], or one step [3]"),
            (1, (), "an array of shape () came; expected [T, 3], or one step [3]"),
            (2, (3,), "an array of shape (3,) came; expected [2, T, 3], or one step [2, 3]"),
            (2, (3, 5, 3), "an array of shape (3, 5, 3) came; expected [2, T, 3], or one step [2, 3]"),
        ],
    )
    def test_others(self, model: Make, batch: int, shape: tuple[int, ...], words: str) -> None:
        stream = model().stream(batch)
        before = stream.state
        with pytest.raises(ValueError) as caught:
            stream.push(np.zeros(shape))
        assert words in str(caught.value)
        assert all((stream.state[name] == array).all() for name, array in before.items())

    def test_batches(self, model: Make) -> None:
        with pytest.raises(ValueError, match="batch: 0 came; expected a whole number of 1 or more"):
            model().stream(0)

    def test_outputs_are_the_callers_own(self, model: Make) -> None:
        stream = model().stream()
        first = stream.push(np.ones(3))
        kept = first.copy()
        stream.push(np.ones(3))
        assert (first == kept).all()
        first[:] = 9
        stream.state["0.h"][:] = 9
        assert abs(stream.state["0.h"]).max() < 9


class TestSideInputs:
    def test_of_every_step(self, model: Make, numbers: np.random.Generator) -> None:
        made = model("time_aware_lstm")
        x, dt = numbers.normal(size=(2, 6, 3)), numbers.uniform(0.1, 2.0, (2, 6))
        stream, other = made.stream(2), made.stream(2)
        (name,) = (name for name in made.graph.inputs if name != "x")
        with torch.no_grad():
            expected, _ = made.layer(torch.from_numpy(x), side={name: torch.from_numpy(dt)})
        assert_close(stream.push(x, {name: dt}), expected)
        singly = [other.push(x[:, t], {name: dt[:, t] if t % 2 else dt[:, t, None]}) for t in range(6)]
        assert_close(np.stack(singly, 1), expected)

    def test_not_given(self, model: Make, numbers: np.random.Generator) -> None:
        made = model("gru_d", depth=1)
        x = numbers.normal(size=(4, 3))
        stream, other = made.stream(), made.stream()
        given = other.push(x, {"dt": np.ones(4), "mask": np.ones((4, 3))})
        assert_close(stream.push(x[:3]), given[:3])
        assert_close(stream.push(x[3]), given[3], what="one step")

    def test_mistakes(self, model: Make) -> None:
        stream = model("gru_d", depth=1).stream()
        with pytest.raises(ValueError, match=r"side: 'gap' came; gru_d has dt, mask"):
            stream.push(np.zeros(3), {"gap": 1.0})
        with pytest.raises(ValueError, match=r"side: 'x' came"):
            stream.push(np.zeros(3), {"x": np.zeros(3)})
        with pytest.raises(ValueError, match=r"side mask: an array of shape \(2, 2\) came; expected \(2, 3\)"):
            stream.push(np.zeros((2, 3)), {"mask": np.zeros((2, 2))})
        with pytest.raises(ValueError, match=r"side: 'dt' came; lstm \+ lstm has no side inputs"):
            model().stream().push(np.zeros(3), {"dt": 1.0})

    def test_that_must_be_given(self, model: Make) -> None:
        from everloop.lang.cell import cell
        from everloop.lang.functions import tanh

        @cell(states="h", gates="h", inputs="gap")
        def gapped(x, h, gap, W):
            return tanh(W.h @ x) * gap + h

        stream = model(gapped).stream()
        with pytest.raises(ValueError, match=r"side: gap is missing; gapped \+ gapped needs it at every step"):
            stream.push(np.zeros(3))
        assert stream.push(np.zeros(3), {"gap": 2.0}).shape == (4,)


class TestState:
    def test_reset_is_the_start(self, model: Make, numbers: np.random.Generator) -> None:
        stream, x = model("slstm").stream(), numbers.normal(size=(5, 3))
        start, first = stream.state, stream.push(x)
        assert (stream.push(x) != first).any()
        stream.reset()
        assert all((stream.state[name] == array).all() for name, array in start.items())
        assert (stream.push(x) == first).all()

    def test_a_fork_goes_its_own_way(self, model: Make, numbers: np.random.Generator) -> None:
        stream, x = model().stream(), numbers.normal(size=(6, 3))
        stream.push(x[:2])
        fork = stream.fork()
        assert fork.engine is stream.engine
        assert (fork.push(x[2:]) == stream.push(x[2:])).all()
        before = stream.state
        fork.push(x)
        assert all((stream.state[name] == array).all() for name, array in before.items())

    @pytest.mark.parametrize("batch", [1, 3])
    def test_a_snapshot_goes_on(self, model: Make, numbers: np.random.Generator, batch: int) -> None:
        stream = model().stream(batch)
        x = numbers.normal(size=(5, 3) if batch == 1 else (batch, 5, 3))
        stream.push(x)
        kept = stream.snapshot()
        assert isinstance(kept, bytes)
        expected = stream.push(x)
        # Another stream of the same weights, as another process would make it.
        other = model().stream(batch)
        other.restore(kept)
        assert (other.push(x) == expected).all()
        assert other.snapshot() == stream.snapshot()

    def test_what_lies_beside_a_state(self, model: Make) -> None:
        stream = model().stream()
        kept = stream.snapshot({"last": np.array([7])})
        assert stream.restore(kept)["last"].tolist() == [7]
        assert stream.restore(stream.snapshot()) == {}

    def test_infinity_and_nan_are_kept(self, model: Make) -> None:
        stream = model().stream()
        stream.push(np.full(3, np.nan))
        other = model().stream()
        other.restore(stream.snapshot())
        assert all(np.isnan(array).all() for array in other.state.values())

    def test_snapshots_that_do_not_fit(self, model: Make) -> None:
        stream = model().stream()
        before = stream.snapshot()
        with pytest.raises(ValueError, match="snapshot: it is of another model"):
            stream.restore(model("gru").stream().snapshot())
        with pytest.raises(ValueError, match="snapshot: it holds 2 sequences; this stream has 1"):
            stream.restore(model().stream(2).snapshot())
        with pytest.raises(ValueError, match="snapshot: these bytes are none, or damaged"):
            stream.restore(before[:-9])
        with pytest.raises(ValueError, match="snapshot: these bytes are none, or damaged"):
            stream.restore(b"")
        with pytest.raises(ValueError, match="snapshot: format 2 came; this Everloop reads format 1"):
            stream.restore(before.replace(b'\\"format\\": 1', b'\\"format\\": 2'))
        with pytest.raises(TypeError, match="snapshot: a dict came; expected the bytes that"):
            stream.restore({})  # type: ignore[arg-type]
        assert stream.snapshot() == before


class TestThreads:
    def test_one_stream_in_two_threads_is_refused(self, model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """The step waits inside until the other thread has been refused."""
        inside, refused = threading.Event(), threading.Event()
        plain = NumpyStep.bind

        def bind(self: NumpyStep, *args: Any) -> Any:
            run = plain(self, *args)

            def slow(*given: Any) -> None:
                inside.set()
                assert refused.wait(10)
                run(*given)

            return slow

        made = model()
        monkeypatch.setattr("everloop.stream.engine.make_step", NumpyStep)
        monkeypatch.setattr(NumpyStep, "bind", bind)
        stream = made.stream()
        thread = threading.Thread(target=stream.push, args=(np.zeros(3),))
        thread.start()
        assert inside.wait(10)
        for use in (lambda: stream.push(np.zeros(3)), stream.snapshot, stream.reset, stream.fork, lambda: stream.state):
            with pytest.raises(RuntimeError, match="another thread is using this stream: give each thread"):
                use()
        refused.set()
        thread.join()
        stream.push(np.zeros(3))

    def test_different_streams_in_many_threads(self, model: Make, numbers: np.random.Generator) -> None:
        engine = model().engine()
        xs = numbers.normal(size=(4, 200, 3))
        expected = [Stream.of(engine).push(x) for x in xs]
        found: list[Any] = [None] * 4

        def push(k: int) -> None:
            stream = Stream.of(engine)
            found[k] = np.stack([stream.push(row) for row in xs[k]])

        threads = [threading.Thread(target=push, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for k in range(4):
            assert_close(found[k], expected[k])

    def test_after_an_error_the_stream_is_free(self, model: Make) -> None:
        stream = model().stream()
        with pytest.raises(ValueError):
            stream.push("no numbers")
        assert stream.push(np.zeros(3)).shape == (4,)


def test_a_graph_without_states(numbers: np.random.Generator) -> None:
    from everloop.compiler.compose import compose, readout, scaling

    graph = compose([scaling(), readout()], ["scaling", "readout"])
    mean, scale, V, c = (numbers.normal(size=size) for size in (3, 3, (2, 3), 2))
    weights = {"scaling.mean": mean, "scaling.scale": scale, "readout.V": V, "readout.c": c}
    engine = Engine(graph, {"input": 3, "readout.output": 2}, weights, np.float64)
    x = numbers.normal(size=(5, 3))
    stream = Stream.of(engine)
    assert_close(stream.push(x), (x - mean) / scale @ V.T + c)
    assert stream.state == {}
    stream.restore(stream.snapshot())
