"""Training by several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Under DDP and FSDP, in all their ways: `two_processes.py` says what has to be equal."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    program = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, str(program), str(tmp_path / "meeting")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
