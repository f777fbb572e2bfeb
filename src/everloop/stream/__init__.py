"""Live sequences without torch: one at a time (`Stream`), or thousands stepped as one batch (`StreamPool`)."""

from everloop.stream.accuracy import Accuracy
from everloop.stream.engine import Engine
from everloop.stream.layers import Layers, Part, joined, load_layer, save_layer
from everloop.stream.pool import StreamPool
from everloop.stream.stream import Stream

__all__ = ["Accuracy", "Engine", "Layers", "Part", "Stream", "StreamPool", "joined", "load_layer", "save_layer"]
