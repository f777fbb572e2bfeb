"""Layers: `Recurrent` runs any cell over whole sequences, deep, in both directions, ragged; RNN, LSTM, GRU and their
cells are those of torch.nn, to the letter.
"""

from everloop.nn import operator  # noqa: F401 torch learns the operators
from everloop.nn.drop_in import GRU, LSTM, RNN
from everloop.nn.drop_in_cells import GRUCell, LSTMCell, RNNCell
from everloop.nn.recurrent import Recurrent

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Recurrent"]
