// Cells to begin from. Each is complete, so that one learns the language by changing a line.
export const examples: { name: string; text: string }[] = [
  {
    name: "minimal gated unit",
    text: `@cell(states="h", gates="f n")
def mine(x, h, W, U, b):
    f = sigmoid(W.f @ x + U.f @ h + b.f)
    n = tanh(W.n @ x + U.n @ (f * h) + b.n)
    return (1 - f) * h + f * n
`,
  },
  {
    name: "LSTM",
    text: `@cell(states="h c", gates="i f g o", init={"b.f": 1.0})
def mine(x, h, c, W, U, b):
    a = W @ x + U @ h + b
    c = sigmoid(a.f) * c + sigmoid(a.i) * tanh(a.g)
    h = sigmoid(a.o) * tanh(c)
    return h, c
`,
  },
  {
    name: "GRU",
    text: `@cell(states="h", gates="r z n")
def mine(x, h, W, U, b):
    r = sigmoid(W.r @ x + U.r @ h + b.r)
    z = sigmoid(W.z @ x + U.z @ h + b.z)
    n = tanh(W.n @ x + r * (U.n @ h) + b.n)
    return (1 - z) * n + z * h
`,
  },
  {
    name: "tanh",
    text: `@cell(states="h", gates="h")
def mine(x, h, W, U, b):
    return tanh(W.h @ x + U.h @ h + b.h)
`,
  },
  {
    name: "leaky, no loop matrix",
    text: `@cell(states="h", gates="f n", init={"b.f": 2.0})
def mine(x, h, W, b):
    f = sigmoid(W.f @ x + b.f)
    n = W.n @ x + b.n
    return f * h + (1 - f) * n
`,
  },
];
