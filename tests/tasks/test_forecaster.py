"""`Forecaster`: parts in time, step k ahead as step k, metrics and baselines by hand, what it gives and refuses."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import numpy as np
import pytest
import sklearn.base
from sklearn.linear_model import Ridge

from everloop.data.reading.stamps import Frequency
from everloop.data.series import SeriesCodec, read_series
from everloop.tasks import load
from everloop.tasks.forecaster import Forecaster
from everloop.tasks.forecaster.baselines import PENALTIES, forecaster_baselines
from everloop.tasks.forecaster.windows import Judge, Windows, borders, find_period, seasonal_error, spread_out
from everloop.testing import SAME, assert_close


def hours(n: int) -> list[str]:
    first = datetime(2024, 1, 1)
    return [str(first + timedelta(hours=k)) for k in range(n)]


def waves(n: int = 400, seed: int = 0) -> dict[str, list]:
    rng = np.random.default_rng(seed)
    steps = np.arange(n)
    value = 10 + 3 * np.sin(2 * np.pi * steps / 24) + rng.normal(0, 0.3, n)
    return {"time": hours(n), "value": value.tolist()}


def small(**options) -> Forecaster:
    plain = {"horizon": 6, "lookback": 24, "hidden": 8, "epochs": 1, "batch": 16}
    return Forecaster(**(plain | options))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return small().fit(waves(), quiet=True, out=tmp_path_factory.mktemp("runs") / "waves")


class TestParts:
    def test_windows_never_cross(self):
        """All steps to forecast of a window lie in its part, and parts follow each other in time."""
        task = small().fit([np.arange(300.0) % 7, np.arange(200.0) % 5], quiet=True)
        windows = task._windows
        for number, length in enumerate((300, 200)):
            parts = borders(length, 6, (0.1, 0.1), (), 0)
            assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
            assert parts[-1].stop == length
            for name, part in zip(("train", "valid", "test"), parts, strict=True):
                first = task._parts[name]
                ahead = first[windows.series_of(first) == number] - windows.begins[number]
                assert ahead.min() == max(part.start, 24)
                assert ahead.max() + 6 == part.stop

    def test_counts_and_gap(self):
        parts = borders(17420, 96, (0.1, 0.1), (8640, 2880, 2880), 0)
        assert parts == [slice(0, 8640), slice(8640, 11520), slice(11520, 14400)]
        assert borders(100, 5, (0.1, 0.1), (), 3) == [slice(0, 77), slice(80, 87), slice(90, 100)]
        assert borders(50, 12, (0.1, 0.1), (), 0)[1:] == [slice(26, 38), slice(38, 50)]
        with pytest.raises(ValueError, match=r"counts: 50 \+ 40 \+ 20 steps came for a series of 100"):
            borders(100, 5, (0.1, 0.1), (50, 40, 20), 0)
        task = small(counts=[200, 50, 60]).fit(waves(), quiet=True)
        assert [len(part) for part in task._parts.values()] == [200 - 30 + 1, 45, 55]

    def test_scaling_is_by_the_training_part_alone(self):
        data = waves()
        changed = data | {"value": [*data["value"][:320], *(1e3 * v for v in data["value"][320:])]}
        one, other = (small().fit(values, quiet=True) for values in (data, changed))
        assert one.codec_ == other.codec_
        assert one.seasonal_ == other.seasonal_

    def test_horizon_and_lookback_from_the_data(self):
        task = Forecaster(hidden=8, epochs=1).fit(waves(500), quiet=True)
        assert (task.horizon_, task.lookback_, task.period_) == (24, 48, 24)


class TestSteps:
    """Step k ahead is forecast as step k."""

    def test_what_is_known_of_a_step_reaches_that_step(self):
        """The value is the covariate of the same step, which is noise: a decoder that is one step off knows nothing."""
        rng = np.random.default_rng(0)
        noise = rng.normal(size=400)
        data = {"value": noise.tolist(), "noise": noise.tolist()}
        task = small(hidden=32, epochs=6, lr=1e-2, linear=False, dropout=0.0, norm="window", quantiles=()).fit(
            data, target="value", known="noise", quiet=True
        )
        assert task.error_by_step_.shape == (6,)
        assert task.error_by_step_.max() < 0.35  # of noise alone: 0.8 at every step
        made, truth = task._test_forecast[..., 0, 0], task._judge.truth[..., 0]
        assert made.shape == truth.shape
        for shift in (-1, 1):
            inner = slice(1, -1)
            moved = np.roll(truth, shift, axis=1)[:, inner]
            assert np.abs(made[:, inner] - moved).mean() > 2 * np.abs(made[:, inner] - truth[:, inner]).mean()

    def test_errors_of_a_random_walk_grow_as_they_must(self):
        """The best forecast of a random walk errs by the square root of the steps ahead."""
        walk = np.cumsum(np.random.default_rng(1).normal(size=1500))
        task = small(horizon=16, epochs=2, quantiles=(), lookback=16, batch=32).fit(walk, quiet=True)
        naive = next(task._judge.by_step(rival.forecast) for rival in task._rivals if rival.name == "last value")
        growth = task.error_by_step_[15] / task.error_by_step_[0]
        assert growth == pytest.approx(naive[15] / naive[0], rel=0.25)
        assert growth > 2.5

    def test_segments_need_not_fit(self):
        for segment in (1, 7, 24):
            task = small(segment=segment, epochs=1, lookback=23).fit(waves(), quiet=True)
            assert task._test_forecast.shape[1:] == (6, 1, 4)


class TestLearning:
    def test_learns_more_than_the_season_before(self):
        rng = np.random.default_rng(3)
        noise = np.zeros(1000)
        for k in range(1, 1000):
            noise[k] = 0.9 * noise[k - 1] + rng.normal(0, 0.4)
        value = 3 * np.sin(2 * np.pi * np.arange(1000) / 24) + noise
        task = small(epochs=6, hidden=16, lr=5e-3).fit({"time": hours(1000), "value": value.tolist()}, quiet=True)
        own, naive = task.results_[0][1], task.results_[1]
        assert naive[0].startswith("seasonal naive")
        assert own["mase"] < 0.8 * naive[1]["mase"]
        assert abs(own["coverage"] - 0.8) < 0.1

    @pytest.mark.parametrize("cell", ["lstm", "qrnn", "slstm", "lmu", "lru", "projection_lstm"])
    def test_cells_of_every_kind(self, cell):
        task = small(cell=cell, layers=2, epochs=1).fit(waves(150), quiet=True)
        assert task.outcome_.status == "finished"
        assert np.isfinite(task.predict()["forecast"]).all()

    def test_every_input_is_used(self):
        """A changed covariate, past or known, and a gap that is marked, change what is forecast."""
        data = waves(300) | {"a": np.sin(np.arange(300)).tolist(), "b": np.cos(np.arange(300)).tolist()}
        data["value"][50] = None
        data = {name: [*values, *([None] * 6)] for name, values in data.items()} | {"time": hours(306)}
        data["a"][300:] = [0.0] * 6
        task = small().fit(data, target="value", known="a", past="b", quiet=True)
        assert task.network_.embed_observed is not None
        before = task.predict(data)["forecast"]
        for name, row in (("a", 303), ("b", 299), ("a", 290), ("value", 298)):
            changed = data | {name: [*data[name][:row], 9.0 if name != "value" else None, *data[name][row + 1 :]]}
            assert task.predict(changed)["forecast"] != before, name

    def test_repeats_to_the_bit(self, same):
        assert same(*(small().fit(waves(), quiet=True) for _ in range(2)))

    def test_missing_values_are_not_scored(self):
        data = waves()
        holes = [None if 365 <= k < 375 else v for k, v in enumerate(data["value"])]
        task = small().fit(data | {"value": holes}, quiet=True)
        assert task._judge.observed.min() == 0
        assert task._judge.metrics(task._judge.truth)["mae"] == 0
        wrong = np.where(task._judge.observed > 0, task._judge.truth, 1e6)
        assert task._judge.metrics(wrong)["mse"] == 0


class TestJudging:
    def test_metrics_by_hand(self):
        rng = np.random.default_rng(0)
        truth, point = rng.normal(size=(2, 5, 3, 2)).astype(np.float32)
        quantiles = np.sort(rng.normal(size=(5, 3, 2, 3)), -1).astype(np.float32)
        observed = (rng.random((5, 3, 2)) > 0.2).astype(np.float32)
        centre, scale = np.full((5, 2), 4.0), np.full((5, 2), 2.0)
        series = np.array([0, 0, 1, 1, 1])
        seasonal = np.array([[0.5, 2.0], [3.0, np.nan]])[series]
        levels = (0.1, 0.5, 0.9)
        judge = Judge(truth, observed, centre, scale, seasonal, series, levels)
        found = judge.metrics(point, quantiles)
        cases = [place for place in itertools.product(range(5), range(3), range(2)) if observed[place]]
        error = {place: abs(float(point[place]) - float(truth[place])) for place in cases}
        ratios = []
        for one, column in ((0, 0), (0, 1), (1, 0)):
            own = [error[p] for p in cases if series[p[0]] == one and p[2] == column]
            ratios.append(np.mean(own) / {(0, 0): 0.5, (0, 1): 2.0, (1, 0): 3.0}[one, column])
        pinball = [
            max(q * (float(truth[p]) - float(quantiles[p][k])), (q - 1) * (float(truth[p]) - float(quantiles[p][k])))
            for p in cases
            for k, q in enumerate(levels)
        ]
        units = [(2 * float(point[p]) + 4, 2 * float(truth[p]) + 4) for p in cases]
        expected = {
            "mase": np.mean(ratios),
            "mse": np.mean([e**2 for e in error.values()]),
            "mae": np.mean(list(error.values())),
            "smape": np.mean([2 * abs(f - y) / (abs(f) + abs(y)) for f, y in units]),
            "pinball": np.mean(pinball),
            "coverage": np.mean([quantiles[p][0] <= truth[p] <= quantiles[p][2] for p in cases]),
        }
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-5), name

    def test_the_error_of_the_season_before(self):
        values = np.array([[1.0, 5], [2, 5], [4, 5], [8, 5]])
        observed = np.ones((4, 2))
        observed[2, 0] = 0
        assert_close(seasonal_error(values, observed, 2)[:1], np.array([6.0]), SAME)
        assert np.isnan(seasonal_error(values, observed, 2)[1])

    def test_periods(self):
        steps = np.arange(24 * 7 * 8)
        daily, weekly = np.sin(2 * np.pi * steps / 24)[:, None], (steps // 24 % 7 == 6)[:, None].astype(float)
        hour = Frequency("second", 3600)
        assert find_period([daily + np.random.default_rng(0).normal(0, 0.1, daily.shape)], hour, 24)[0] in (24, 168)
        assert find_period([daily + 3 * weekly], hour, 24) == (168, "a week")
        period, why = find_period([np.sin(2 * np.pi * np.arange(200) / 17)[:, None]], Frequency("number"), 5)
        assert (period, why[:16]) == (17, "the highest peak")
        noise = np.random.default_rng(0).normal(size=(300, 1))
        assert find_period([noise], Frequency("number"), 5) == (1, "no season was found")

    def test_quantiles_are_spread_to_the_coverage_of_validation(self):
        rng = np.random.default_rng(0)
        truth = rng.normal(size=(2000, 1, 1)).astype(np.float32)
        everywhere = np.ones_like(truth)
        judge = Judge(truth, everywhere, *[np.ones((2000, 1))] * 3, np.zeros(2000, dtype=int), (0.1, 0.5, 0.9))
        right = np.tile(np.array([-1.2816, 0, 1.2816], dtype=np.float32), (2000, 1, 1, 1))
        assert judge.spread(right) == 1.0
        for factor in (0.3, 3.0):
            wide = spread_out(factor * right, judge.spread(factor * right))
            assert abs(judge.metrics(truth, wide)["coverage"] - 0.8) < 0.06

    def test_a_judge_of_one_quantile(self):
        task = small(quantiles=[0.5]).fit(waves(), quiet=True)
        assert "pinball" in task.results_[0][1]
        assert "coverage" not in task.results_[0][1]
        assert task.spread_ == 1.0


class TestBaselines:
    def test_naive_ones(self):
        (series,) = read_series(np.arange(40.0)).inputs
        windows = Windows([SeriesCodec.fit([series]).encode(series)], 5, 7)
        first = windows.between(0, 20, 40)
        scaled = windows.values[:, 0].numpy()
        rivals = {r.name: r.forecast for r in forecaster_baselines(windows, first, first, first, period=3)}
        for row, begin in enumerate(first):
            expected = [scaled[begin - 3 + k % 3] for k in range(7)]
            assert rivals["seasonal naive (3 steps)"][row, :, 0].tolist() == expected
            assert rivals["last value"][row, :, 0].tolist() == [scaled[begin - 1]] * 7

    def test_ridge_is_that_of_scikit_learn(self):
        task = small().fit([waves(200, seed)["value"] for seed in range(2)], quiet=True)
        windows, parts = task._windows, task._parts
        rivals = forecaster_baselines(windows, parts["train"], parts["valid"], parts["test"], period=24)

        def pairs(first):
            whole = windows.batch(first, task.device_).values[..., 0].double().numpy()
            return whole[:, :24] - whole[:, [23]], whole[:, 24:] - whole[:, [23]], whole[:, [23]]

        (x, y, _), (u, v, _), (s, _, last) = (pairs(parts[name]) for name in ("train", "valid", "test"))
        with_one = [np.concatenate([rows, np.ones((len(rows), 1))], 1) for rows in (x, u, s)]
        models = [Ridge(alpha=penalty, fit_intercept=False).fit(with_one[0], y) for penalty in PENALTIES]
        best = min(models, key=lambda model: ((model.predict(with_one[1]) - v) ** 2).sum())
        expected = (best.predict(with_one[2]) + last).astype(np.float32)
        assert rivals[-1].name == "ridge regression on the same window"
        assert np.abs(rivals[-1].forecast[..., 0] - expected).max() < 1e-5


class TestUse:
    def test_the_table(self, fitted):
        table = fitted.predict()
        assert list(table) == ["series", "time", "column", "forecast", "q0.1", "q0.5", "q0.9"]
        assert table["time"] == hours(406)[400:] or table["time"] == [t.replace(" ", "T") for t in hours(406)[400:]]
        assert set(table["column"]) == {"value"}
        low, middle, high = (np.array(table[name]) for name in ("q0.1", "q0.5", "q0.9"))
        assert (low <= middle).all()
        assert (middle <= high).all()
        assert len(fitted.predict(horizon=2)["time"]) == 2

    def test_after_the_end_of_other_data(self, fitted):
        longer = waves(410)
        table = fitted.predict(longer)
        assert table["time"][0] == "2024-01-18T02:00:00"
        assert fitted.predict(waves()) == fitted.predict()
        assert next(fitted.predictions(fitted.read(longer)))["forecast"] == table["forecast"][0]

    def test_the_first_window_of_the_test_is_what_predict_says_there(self, fitted):
        data = waves()
        begin = int(fitted._parts["test"][0])
        told = fitted.predict({name: values[:begin] for name, values in data.items()})["forecast"]
        centre, scale = fitted._judge.centre[0, 0], fitted._judge.scale[0, 0]
        assert told == pytest.approx((fitted._test_forecast[0, :, 0, 0] * scale + centre).tolist(), rel=1e-5)

    def test_a_loaded_one_says_the_same(self, fitted):
        again = load(fitted.run_.folder)
        assert again.predict(waves()) == fitted.predict()
        assert again.evaluate(waves()) == fitted.evaluate(waves())
        with pytest.raises(ValueError, match="does not hold the data it was fitted to"):
            again.predict()

    def test_another_folder(self, fitted, tmp_path):
        fresh = small().fit(waves(), quiet=True)
        assert load(fresh.save(tmp_path / "run")).predict(waves()) == fresh.predict()

    def test_score_and_evaluate(self, fitted):
        metrics = fitted.evaluate(waves(100, seed=5))
        assert list(metrics) == ["mase", "mse", "mae", "smape", "pinball", "coverage"]
        assert fitted.score(waves(100, seed=5)) == -metrics["mase"]

    def test_many_series_and_one_that_was_not_trained_on(self):
        both = {name: [*values, *values] for name, values in waves(200).items()} | {"shop": ["a"] * 200 + ["b"] * 200}
        task = small().fit(both, series="shop", quiet=True)
        assert task.predict()["series"] == ["a"] * 6 + ["b"] * 6
        stranger = task.predict(waves(60, seed=3) | {"shop": ["c"] * 60})
        assert stranger["series"] == ["c"] * 6
        assert np.isfinite(stranger["forecast"]).all()

    def test_known_ahead_has_to_be_known(self):
        data = waves(200) | {"holiday": [k // 24 % 7 == 6 for k in range(200)]}
        task = small().fit(data, target="value", known="holiday", quiet=True)
        with pytest.raises(ValueError, match="holiday must be known for 6 steps after the last value, and are for 0"):
            task.predict(data)
        ahead = {name: [*values, *([None] * 6)] for name, values in data.items()}
        ahead |= {"time": hours(206), "holiday": [k // 24 % 7 == 6 for k in range(206)]}
        assert len(task.predict(ahead)["forecast"]) == 6

    def test_a_constant_column(self):
        data = waves(200) | {"still": [4.0] * 200}
        task = small(epochs=2).fit(data, quiet=True)
        assert np.isfinite(list(task.results_[0][1].values())).all()

    def test_the_report_draws(self, fitted):
        page = (fitted.run_.folder / "report.html").read_text()
        assert page.count("<svg") > 5
        assert "Error of each step ahead" in page
        assert "<script" not in page

    def test_conventions(self):
        task = small(quantiles=[0.2, 0.8])
        assert sklearn.base.clone(task).get_params() == task.get_params()

    def test_resumes(self, tmp_path):
        small().fit(waves(), quiet=True, out=tmp_path / "run")
        again = small().fit(waves(), quiet=True, out=tmp_path / "run", resume=True)
        assert again.outcome_.status == "finished"


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"quantiles": [0.9, 0.1]}, "quantiles: .* expected shares in ascending order"),
            ({"quantiles": [0.0]}, "quantiles: .* greater than 0"),
            ({"counts": [10, 10]}, "counts: .* expected steps of training, validation and test"),
            (
                {"lookback": 500},
                "the longest training part has 320 steps, and a window needs 500 to look back on and 6",
            ),
            ({"counts": [300, 3, 60]}, "no valid part has the 6 steps of a forecast"),
            ({"cell": "nothing"}, "nothing"),
        ],
    )
    def test_options(self, options, says):
        with pytest.raises(ValueError, match=says):
            small(**options).fit(waves(), quiet=True)

    def test_other_data(self, fitted):
        with pytest.raises(ValueError, match="the series has 20 steps; this model looks back on 24"):
            fitted.predict(waves(20))
        with pytest.raises(ValueError, match="no series has the 30 steps of a window"):
            fitted.evaluate(waves(29))
        with pytest.raises(ValueError, match="a step of 1 day came; this model was trained on a step of 1 hour"):
            fitted.predict({"time": [f"2024-01-{k:02}" for k in range(1, 31)], "value": list(range(30))})
        with pytest.raises(ValueError, match='no column "value"'):
            fitted.predict({"time": hours(30), "other": list(range(30))})
        with pytest.raises(ValueError, match="horizon: 7 came; this model was trained for 1 to 6 steps"):
            fitted.predict(horizon=7)

    def test_targets_and_unfitted(self):
        with pytest.raises(TypeError, match="targets came; a forecaster takes them from the columns"):
            small().fit([1.0, 2.0], [1.0, 2.0], quiet=True)
        with pytest.raises(ValueError, match="not fitted yet"):
            small().predict()


class TestRealData:
    def test_a_slice_of_etth1(self, shared_data):
        task = Forecaster(horizon=24, lookback=48, hidden=32, epochs=1, counts=[1500, 300, 300])
        task.fit(shared_data / "ETTh1.csv", target="OT HUFL", quiet=True)
        results = dict(task.results_)
        own = results.pop(task.model_name)
        assert own["mase"] < min(other["mase"] for name, other in results.items() if "ridge" not in name)
