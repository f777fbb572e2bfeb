"""The network of a `Forecaster`: segments of the past are its steps, and segments of the future its queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.nn import Recurrent
from everloop.tasks.forecaster.windows import Batch, level


class SegmentForecaster(nn.Module):
    """Windows (`Batch`) -> forecasts [B, H, C, 1 + Q]: the point forecast, then the quantiles in ascending order.

    After SegRNN (Lin et al. 2023): each column is read by itself, the last value taken off, in segments of
    `segment` steps; a recurrent network reads them one after the other; then one more step from its last state, for
    all segments to come at once, each told by an embedding which it is, and of which column. Unlike there, a segment
    brings covariates and the calendar of its steps, those to come bring what is known of theirs, several quantiles come
    out, and a linear map from the whole window is added: the recurrent network, which then begins with no say, learns
    what that leaves over.

    linear: features of that map, the window and perhaps what is known of the steps ahead; 0: there is none.

    norm: what is taken off a window before it is read and given back after (`everloop.tasks.forecaster.windows.level`).
    """

    def __init__(
        self,
        recurrent: Recurrent,
        *,
        lookback: int,
        horizon: int,
        segment: int,
        columns: int,
        known: int,
        past: int,
        quantiles: int,
        gaps: bool,
        norm: str,
        linear: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.lookback, self.horizon, self.segment = lookback, horizon, segment
        self.norm, self.dropout, self.outputs = norm, dropout, 1 + quantiles
        self.segments = -(-horizon // segment)
        width = recurrent.input_size
        self.embed = nn.Linear(segment, width)
        self.embed_observed = nn.Linear(segment, width, bias=False) if gaps else None
        self.embed_side = nn.Linear(segment * (known + past), width, bias=False) if known + past else None
        self.place = nn.Parameter(0.1 * torch.randn(self.segments, width))
        self.column = nn.Parameter(0.1 * torch.randn(columns, width))
        self.ahead = nn.Linear(segment * known, width) if known else None
        self.recurrent = recurrent
        self.read_out = nn.Linear(recurrent.output_size, segment * self.outputs)
        self.linear = nn.Linear(linear, horizon) if linear else None
        if self.linear is not None:
            nn.init.zeros_(self.read_out.weight)
            nn.init.zeros_(self.read_out.bias)

    def forward(self, batch: Batch) -> Tensor:
        rows, columns = len(batch.values), batch.values.shape[2]
        window = batch.values[:, : self.lookback].transpose(1, 2)
        centre, scale = level(window, self.norm)
        window = ((window - centre) / scale).reshape(rows * columns, self.lookback)
        _, state = self.recurrent(self._segments_read(window, batch))
        y = self._segments_asked(state, batch)
        made = self.read_out(F.dropout(y, self.dropout, self.training))
        made = made.view(rows, columns, self.segments * self.segment, self.outputs)[:, :, : self.horizon]
        if self.linear is not None:
            made = made + self.linear(self._linear_features(window, batch)).view(rows, columns, self.horizon, 1)
        quantiles = made[..., 1:].sort(-1).values
        made = torch.cat([made[..., :1], quantiles], -1)
        return (made * scale[..., None] + centre[..., None]).transpose(1, 2)

    def _linear_features(self, window: Tensor, batch: Batch) -> Tensor:
        """[B * C, F]: the window, and what is known of the steps ahead if the map reads that."""
        assert self.linear is not None
        if self.linear.in_features == self.lookback:
            return window
        known = batch.known[:, self.lookback :].flatten(1)
        return torch.cat([window, known.repeat_interleave(batch.values.shape[2], 0)], 1)

    def _segments_read(self, window: Tensor, batch: Batch) -> Tensor:
        """[B * C, N, E]: the inputs of the recurrent network."""
        rows, columns = len(batch.values), batch.values.shape[2]
        inputs = self.embed(self._cut(window[..., None]))
        if self.embed_observed is not None:
            observed = batch.observed[:, : self.lookback].transpose(1, 2).reshape(-1, self.lookback, 1)
            inputs = inputs + self.embed_observed(self._cut(1 - observed))
        if self.embed_side is not None:
            side = torch.cat([batch.known[:, : self.lookback], batch.past], -1)
            inputs = inputs.view(rows, columns, *inputs.shape[1:]) + self.embed_side(self._cut(side))[:, None]
            inputs = inputs.flatten(0, 1)
        return F.relu(inputs)

    def _segments_asked(self, state: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """[B * C * M, H]: the step that each segment to come takes from the last state."""
        rows, columns = len(batch.values), batch.values.shape[2]
        asked = (self.column[:, None] + self.place).expand(rows, -1, -1, -1)
        if self.ahead is not None:
            known = batch.known[:, self.lookback :]
            missing = self.segments * self.segment - self.horizon
            known = F.pad(known, (0, 0, 0, missing)).reshape(rows, self.segments, -1)
            asked = asked + self.ahead(known)[:, None]
        every = type(state)(*(array.repeat_interleave(self.segments, 1) for array in state))
        y, _ = self.recurrent(asked.reshape(rows * columns * self.segments, 1, -1), every)
        return y[:, 0]

    def _cut(self, steps: Tensor) -> Tensor:
        """[B, T, F] -> [B, N, segment * F]; what is missing for whole segments is zero, before the first step."""
        missing = -steps.shape[1] % self.segment
        return F.pad(steps, (0, 0, missing, 0)).reshape(len(steps), -1, self.segment * steps.shape[2])


def losses(made: Tensor, batch: Batch, quantiles: Tensor, point: str) -> tuple[Tensor, Tensor]:
    """The sum over all that was observed, and how much that is.

    made [B, H, C, 1 + Q]. Of each value: the squared (point "mse") or absolute ("mae") error of the point forecast and
    the mean pinball loss of the quantiles [Q].
    """
    horizon = made.shape[1]
    truth, there = batch.values[:, -horizon:], batch.observed[:, -horizon:]
    error = truth - made[..., 0]
    each = error.square() if point == "mse" else error.abs()
    if len(quantiles):
        rest = truth[..., None] - made[..., 1:]
        each = each + torch.maximum(quantiles * rest, (quantiles - 1) * rest).mean(-1)
    return (each * there).sum(), there.sum()
