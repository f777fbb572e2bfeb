"""What `test_distributed.py` starts: the gradients of two processes, with half of a batch each, are those of one with
the whole batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from everloop.nn import GRU, LSTM, Recurrent
from everloop.testing import assert_close

PROCESSES = 2
DOUBLE = torch.float64
CPU = torch.device("cpu")
RATE = 0.5


class Model(nn.Module):
    """A model with a head, and perhaps one that nobody uses."""

    def __init__(self, layer: nn.Module, units: int, unused: bool = False) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(units, 2, dtype=DOUBLE)
        self.idle = nn.Linear(2, 2, dtype=DOUBLE) if unused else None

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "deep": (lambda: Recurrent("lstm", 3, 4, 2, bidirectional=True, dtype=DOUBLE), 8),
    "mixed": (lambda: Recurrent(["lstm", "qrnn"], 3, [4, 6], skip="dense", learn_start=True, dtype=DOUBLE), 6),
    "LSTM": (lambda: LSTM(3, 4, 2, bidirectional=True, batch_first=True, dtype=DOUBLE), 8),
    "GRU": (lambda: GRU(3, 4, batch_first=True, dtype=DOUBLE), 4),
}


def model_of(name: str, unused: bool = False) -> Model:
    torch.manual_seed(0)
    make, units = LAYERS[name]
    return Model(make(), units, unused)


def step(model: nn.Module, x: Tensor) -> None:
    """Two steps of training: some wrappers learn from the first how to do the second."""
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


WRAPPERS: dict[str, Callable[[Model], Any]] = {
    "DDP": DistributedDataParallel,
    "DDP, looking for unused parameters": lambda model: DistributedDataParallel(model, find_unused_parameters=True),
    "DDP, static graph": lambda model: DistributedDataParallel(model, static_graph=True),
    "FSDP, flat parameters": lambda model: FullyShardedDataParallel(model, device_id=CPU, use_orig_params=False),
    "FSDP, original parameters": lambda model: FullyShardedDataParallel(model, device_id=CPU, use_orig_params=True),
    "fully_shard": lambda model: sharded(model),
}


def sharded(model: Model) -> Model:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    fully_shard(model.layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def parameters_of(wrapped: Any) -> dict[str, Tensor]:
    """The parameters as they are, whole, by their own names."""
    if isinstance(wrapped, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(wrapped):
            return {name: array.detach().clone() for name, array in wrapped.module.named_parameters()}
    if isinstance(wrapped, DistributedDataParallel):
        return dict(wrapped.module.named_parameters())
    return {name: array.full_tensor() for name, array in wrapped.named_parameters()}  # type: ignore[attr-defined]


def work(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    x = torch.randn(4, 5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    mine = x.chunk(PROCESSES)[rank]
    for layer in LAYERS:
        alone = model_of(layer)
        start = {name: array.clone() for name, array in alone.state_dict().items()}
        step(alone, x)
        for name, wrap in WRAPPERS.items():
            wrapped = wrap(model_of(layer, unused="unused" in name))
            step(wrapped, mine)
            found = parameters_of(wrapped)
            for parameter, expected in alone.named_parameters():
                assert_close(found[parameter], expected, what=f"{name}: {layer}, {parameter}")
        assert any(not torch.equal(array, start[name]) for name, array in alone.state_dict().items())
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(work, (sys.argv[1],), nprocs=PROCESSES)
