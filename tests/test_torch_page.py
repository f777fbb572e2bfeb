"""docs/torch.md: each trap has the threads that report it, and each block would fail if the trap were still there.

That the blocks run is checked with those of all other pages, in test_docs.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch._dynamo.exc import Unsupported, UserError

PAGE = (Path(__file__).parents[1] / "docs" / "torch.md").read_text(encoding="utf-8")
TRAPS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| with", "| **"))]
THREAD = r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+"

# Blocks that use what replaces the layers of torch, each by a line of it, and how they fail with those of torch. What
# the others use is Recurrent, which torch has no like of.
TORCH_FAILS: dict[str, tuple[type[Exception], str]] = {
    "assert its_steps < all_steps / 3": (AssertionError, ""),
    "each = vmap(grad(loss), (None, 0))(weights, x)": (UserWarning, "not yet implemented the batching rule"),
    "compiled = torch.compile(model, backend=count, fullgraph=True, dynamic=True)": (Unsupported, "RNN, GRU, or LSTM"),
    "exported = export(model,": (UserError, "marked T as dynamic but your code specialized it"),
}


def test_every_trap_has_a_thread_that_reports_it() -> None:
    assert len(TRAPS) > 20
    for line in TRAPS:
        *_, sources = line.strip("| ").split(" | ")
        assert re.fullmatch(r"\[[^]]+\]\[\](, \[[^]]+\]\[\])*", sources), line


def test_threads_are_named_once_and_used() -> None:
    named = re.findall(rf"^\[([^]]+)\]: ({THREAD})$", PAGE, re.MULTILINE)
    assert len(named) == len(re.findall(r"^\[[^]]+\]: ", PAGE, re.MULTILINE))
    for column in zip(*named, strict=True):
        assert len(set(column)) == len(named)
    used = set(re.findall(r"\[([^]]+)\]\[\]", PAGE))
    assert used == {name for name, _ in named}


def test_a_number_is_that_of_its_thread() -> None:
    for name, link in re.findall(rf"^\[([^]]+)\]: ({THREAD})$", PAGE, re.MULTILINE):
        number = re.split(r"[# ]", name)[-1]
        assert link.endswith(f"/{number}"), name
        assert not name.startswith("#") or "/pytorch/pytorch/" in link, f"{name} is no thread of torch itself"


@pytest.mark.filterwarnings("ignore")
def test_with_the_layers_of_torch_the_traps_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The page once more, nothing replaced: what it says of torch is true, and what it asserts can fail."""
    page = PAGE.replace("from everloop.nn import LSTM", "from torch.nn import LSTM")
    page = page.replace("from everloop import convert\n", "convert = lambda model, to=None: model\n")
    given: dict[str, object] = {"__name__": "torch.md"}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        failing = [how for line, how in TORCH_FAILS.items() if line in code]
        if failing:
            error, words = failing.pop()
            with pytest.raises(error, match=words):
                exec(compile(code, "docs/torch.md", "exec"), given)
        else:
            exec(compile(code, "docs/torch.md", "exec"), given)
    assert all(line in page for line in TORCH_FAILS)
    capsys.readouterr()
