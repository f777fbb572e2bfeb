"""Layers: `Recurrent` runs any cell over whole sequences, deep, in both directions, ragged."""

from everloop.nn.recurrent import Recurrent

__all__ = ["Recurrent"]
