"""A model written against torch.nn is converted, trained, differentiated sample by sample, and compiled."""

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from everloop import convert


class Majority(nn.Module):
    """Of the bits up to here, are most of them ones? Written for torch, which is all that it knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, 8)
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.answer = nn.Linear(32, 1)

    def forward(self, bits: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(self.embedding(bits))
        return self.answer(y)[..., 0]


def examples(sequences: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    bits = torch.randint(2, (sequences, steps))
    return bits, ((2 * bits - 1).cumsum(1) > 0).float()


cost = nn.functional.binary_cross_entropy_with_logits

torch.manual_seed(0)
model = Majority()
bits, answers = examples(8, 40)
before = model(bits)

model = convert(model)  # in place: the weights stay, and so does an optimizer that has them
print("converted:", model.lstm, "differs by", f"{(model(bits) - before).abs().max().item():.0e}")

optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for update in range(1, 101):
    bits, answers = examples(32, 40)
    loss = cost(model(bits), answers)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if update % 25 == 0:
        print(f"update {update}: loss {loss.item():.3f}")


def loss_of_one(weights: dict[str, torch.Tensor], bits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    return cost(functional_call(model, weights, (bits[None],))[0], answers)


# Which samples does the model still learn from? A gradient of each, for which torch's own layers have no rule.
weights = {name: array.detach() for name, array in model.named_parameters()}
each = vmap(grad(loss_of_one), (None, 0, 0))(weights, bits, answers)
norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in each.values()]).norm(dim=0)
print(f"gradients of {len(norms)} samples: norms from {norms.min().item():.3f} to {norms.max().item():.3f}")

# One graph for any number of sequences and steps. The default backend of torch.compile needs a C++ compiler; this one
# does not.
compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
with torch.no_grad():
    for steps in (20, 200):
        bits, answers = examples(64, steps)
        right = ((compiled(bits) > 0) == (answers > 0)).float().mean()
        print(f"compiled, {steps} steps: {right.item():.1%} right")
