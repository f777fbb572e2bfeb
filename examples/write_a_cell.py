"""An equation becomes a layer: the minimal gated unit (Zhou et al. 2016), which no framework has built in."""

import torch

from everloop import Recurrent, cell, sigmoid, tanh


@cell(states="h", gates="f n", source="Zhou et al. 2016, Minimal Gated Unit for Recurrent Neural Networks")
def mgu(x, h, W, U, b):
    f = sigmoid(W.f @ x + U.f @ h + b.f)
    n = tanh(W.n @ x + U.n @ (f * h) + b.n)
    return (1 - f) * h + f * n


layer = Recurrent(mgu, input_size=2, hidden_size=16)
head = torch.nn.Linear(16, 1)
optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=1e-2)
torch.manual_seed(0)

# The adding problem (Hochreiter and Schmidhuber 1997): of 20 numbers, add the two that are marked.
for step in range(1, 301):
    values = torch.rand(64, 20)
    marks = torch.zeros(64, 20)
    marks.scatter_(1, torch.stack([torch.randperm(20)[:2] for _ in range(64)]), 1.0)
    y, state = layer(torch.stack([values, marks], dim=-1))
    loss = (head(state.h[-1])[:, 0] - (values * marks).sum(1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"update {step}: mean squared error {loss.item():.4f} (always saying 1 gets 0.1667)")
