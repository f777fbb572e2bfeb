"""A text becomes a generator that writes on from a prompt."""

from everloop import Generator

rhyme = "the wheels on the bus go round and round, round and round, round and round. "
model = Generator(hidden=48, batch=4, window=32, epochs=20, lr=1e-2).fit([rhyme * 60], quiet=True)
print(model.verdict())
print("the wheels", end="")
for piece in model.stream("the wheels", length=60, temperature=0.3, seed=1):
    print(piece, end="", flush=True)
print()
