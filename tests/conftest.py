"""One torch thread in all tests: they are small, and machines that run them are shared."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from everloop import cli

torch.set_num_threads(1)

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def kernels_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code is shared by the tests, and processes that they start, and by nobody else."""
    with pytest.MonkeyPatch.context() as patch:
        if "EVERLOOP_CACHE" not in os.environ:
            patch.setenv("EVERLOOP_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that lies beside a checkout of the project where it is developed, and in CI."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not here: {SHARED} does not exist")
    return SHARED


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said on standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def everloop_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """Run the command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["everloop", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, out, err)

    return run
