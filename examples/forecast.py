"""A table of measurements becomes forecasts with quantiles, beside the season before and a ridge regression.

python examples/forecast.py FILE [TARGET [KNOWN [EPOCHS]]]: a CSV or Parquet file with a column of times; the columns
to forecast; those that are known ahead. Without arguments, ten weeks of made-up visitors, more of them on holidays.
"""

import sys
from datetime import datetime, timedelta

import numpy as np

from everloop.tasks.forecaster import Forecaster

noise = np.random.default_rng(0)
hours = np.arange(24 * 70)
holiday = (hours // 24 % 7 >= 5) | (hours // 24 % 17 == 3)
visitors = (100 + 60 * np.sin(2 * np.pi * (hours - 8) / 24)) * (1 + holiday) + noise.normal(0, 8, len(hours))
# Of the last day only the holiday is known: its visitors are to be forecast.
made_up = {
    "time": [datetime(2026, 1, 5) + timedelta(hours=int(hour)) for hour in hours],
    "visitors": [*visitors[:-24].round(), *[None] * 24],
    "holiday": holiday,
}

given = dict(zip(("data", "target", "known", "epochs"), sys.argv[1:], strict=False))
data = given.get("data", made_up)
target, known = (given.get("target"), given.get("known")) if given else ("visitors", "holiday")

epochs = int(given.get("epochs", 0 if given else 5))
model = Forecaster(hidden=128 if given else 32, epochs=epochs).fit(data, target=target, known=known, quiet=not given)
print(model.verdict())
for name, metrics in model.results_:
    print(name, {metric: round(value, 3) for metric, value in metrics.items()})
if not known or data is made_up:
    table = model.predict(horizon=3)
    for row in zip(*table.values(), strict=True):
        print(dict(zip(table, row, strict=True)))
