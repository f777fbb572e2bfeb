"""One torch thread in all tests: they are small, and machines that run them are shared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that lies beside a checkout of the project where it is developed, and in CI."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not here: {SHARED} does not exist")
    return SHARED
