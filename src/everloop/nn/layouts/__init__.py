"""Weights in the layouts of Keras and ONNX: out of a layer, and into one.

    lstm = Recurrent("lstm", 32, 64, num_layers=2, bidirectional=True)
    from_keras(lstm, [keras_layer.get_weights() for keras_layer in keras_layers])
    nodes = to_onnx(lstm)

The layer is a `Recurrent`, or an LSTM, GRU or RNN of torch.nn or of everloop.nn. What another system cannot say is
refused by name.
"""

from everloop.nn.layouts.keras import from_keras, to_keras
from everloop.nn.layouts.onnx import OnnxNode, from_onnx, onnx_nodes, to_onnx

__all__ = ["OnnxNode", "from_keras", "from_onnx", "onnx_nodes", "to_keras", "to_onnx"]
