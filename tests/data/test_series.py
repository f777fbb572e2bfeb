"""Series: what of a table is what, the grid of time, everything that is wrong in it, and numbers for a network."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from everloop.data import codecs
from everloop.data.reading.stamps import Frequency, calendar, infer_frequency, spell, to_local
from everloop.data.series import Form, Series, SeriesCodec, read_series
from everloop.testing import SAME, assert_close


def hours(n: int, start: str = "2024-01-01 00:00") -> list[str]:
    first = datetime.fromisoformat(start)
    return [str(first + timedelta(hours=k)) for k in range(n)]


def table(n: int = 6, **columns: object) -> dict[str, object]:
    return {"time": hours(n), "value": [float(k) for k in range(n)], **columns}


class TestForms:
    def test_every_form_reads_the_same(self, tmp_path):
        frame = pd.DataFrame(table(50))
        frame.to_csv(tmp_path / "a.csv", index=False)
        frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
        frame.to_parquet(tmp_path / "a.parquet")
        frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
        stamped = frame.assign(time=pd.to_datetime(frame["time"]))
        forms = [tmp_path / f"a.{end}" for end in ("csv", "tsv", "parquet", "jsonl", "csv.gz")]
        forms += [
            frame,
            stamped,
            pl.from_pandas(stamped),
            table(50),
            stamped.set_index("time"),
            frame.to_dict("records"),
        ]
        for data in (*forms, stamped.set_index("time")["value"], stamped.to_dict("list")):
            (series,) = read_series(data).inputs
            assert series.values[:, 0].tolist() == list(range(50)), type(data)
            assert series.form.frequency == Frequency("second", 3600)
            assert series.spelled(0, 1) == ["2024-01-01T00:00:00"] or series.spelled(0, 1) == ["2024-01-01"]

    def test_plain_arrays_count_steps(self):
        (series,) = read_series(np.arange(6.0)).inputs
        assert (series.form.columns, series.values.shape, series.spelled(5, 7)) == (("value",), (6, 1), ["5", "6"])
        (series,) = read_series([1, 2, 3]).inputs
        assert series.values[:, 0].tolist() == [1, 2, 3]
        several = read_series([np.zeros((4, 2)), np.ones((7, 2))]).inputs
        assert [(one.name, len(one), one.form.columns) for one in several] == [
            ("1", 4, ("1", "2")),
            ("2", 7, ("1", "2")),
        ]

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ([np.zeros((4, 2)), np.zeros((4, 3))], "series of 2 and 3 columns came"),
            (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\) came; expected \[T\] or \[T, C\]"),
            ([1.0, float("inf")], "step 1: an infinite value came"),
            (["a", "b"], "not an array of numbers"),
        ],
    )
    def test_arrays_that_are_none(self, data, says):
        with pytest.raises(ValueError, match=says):
            read_series(data)

    def test_columns_of_arrays(self):
        with pytest.raises(ValueError, match="target='a' came with plain arrays, which have no columns"):
            read_series(np.zeros(4), target="a")

    def test_what_is_no_data(self):
        with pytest.raises(TypeError, match="a float came; expected a path"):
            read_series(3.0)
        with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.csv"):
            read_series("nowhere.csv")


class TestColumns:
    def test_guesses_are_said(self):
        read = read_series(table(word=list("abcdef"), more=[1, 2, 3, 4, 5, 6]))
        assert read.inputs[0].form.columns == ("value", "more")
        assert read.notes == (
            'times in column "time" (a usual name)',
            'left out, because they hold no numbers: columns "word"',
            'to forecast: columns "value" and "more"',
            "a step is 1 hour",
        )

    def test_a_column_of_times_under_another_name(self):
        data = table()
        data["when"] = data.pop("time")
        assert 'times in column "when" (they are times)' in read_series(data).notes

    def test_no_times(self):
        read = read_series({"a": [1, 2, 3], "b": [4, 5, 6]})
        assert read.inputs[0].form.columns == ("a", "b")
        assert read.notes[0] == "no column of times: rows are taken as equal steps, in the order in which they come"

    def test_columns_by_name(self):
        data = table(a=[1] * 6, b=[2] * 6, c=[3] * 6, d=[True] * 6)
        (series,) = read_series(data, target="value", known=["a", "d"], past="b, c").inputs
        form = series.form
        assert (form.columns, form.known, form.past) == (("value",), ("a", "d"), ("b", "c"))
        assert series.known[0].tolist() == [1.0, 1.0]
        assert series.past[0].tolist() == [2.0, 3.0]

    def test_a_name_with_a_space(self):
        (series,) = read_series(table(**{"two words": [1] * 6}), target="two words").inputs
        assert series.form.columns == ("two words",)

    def test_mistakes_in_names(self):
        with pytest.raises(ValueError, match=r'no column "valeu" \(target\).*did you mean "value"'):
            read_series(table(), target="valeu")
        with pytest.raises(ValueError, match='column "value" was named twice'):
            read_series(table(), target="value", known="value")
        with pytest.raises(ValueError, match="no column of numbers to forecast"):
            read_series({"time": hours(3), "word": ["a", "b", "c"]})
        with pytest.raises(ValueError, match="bad_rows='maybe' came"):
            read_series(table(), bad_rows="maybe")

    def test_several_series(self):
        data = {"time": hours(4) * 2, "shop": ["b"] * 4 + ["a"] * 4, "value": range(8)}
        data["value"] = list(range(8))
        guessed, asked = read_series(data), read_series(data, series="shop")
        assert 'times come again: column "shop" says which series a row is of (a usual name)' in guessed.notes
        assert [one.name for one in asked.inputs] == ["b", "a"] == [one.name for one in guessed.inputs]
        assert asked.inputs[1].values[:, 0].tolist() == [4, 5, 6, 7]
        with pytest.raises(ValueError, match='row 2: column "shop" is empty'):
            read_series(data | {"shop": ["b", " ", *"bbaaaa"]}, series="shop")


class TestTrouble:
    """Everything that tables of measurements have in them: handled and said, or refused by row."""

    def test_unsorted_rows_are_sorted(self):
        data = table()
        data = {name: [values[k] for k in (3, 0, 5, 1, 2, 4)] for name, values in data.items()}
        read = read_series(data)
        assert read.inputs[0].values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert "rows were not in the order of time: sorted" in read.notes

    def test_missing_values_and_steps(self):
        data = {"time": [*hours(3), *hours(3, "2024-01-01 05:00")], "value": ["1", "", "NA", "4", "5", "null"]}
        read = read_series(data)
        expected = [1, np.nan, np.nan, np.nan, np.nan, 4, 5]
        np.testing.assert_array_equal(read.inputs[0].values[:, 0], expected)
        assert "2 steps without a row: taken as missing" in read.notes
        assert any(note.startswith("4 missing values of what is to be forecast: filled in") for note in read.notes)
        codec = SeriesCodec.fit(read.inputs)
        one = codec.encode(read.inputs[0])
        centre, scale = codec.statistics(read.inputs[0])
        between = (np.array([1, 1.6, 2.2, 2.8, 3.4, 4, 5]) - centre) / scale
        assert one.values[:, 0].tolist() == between.astype(np.float32).tolist()
        assert one.observed[:, 0].tolist() == [1, 0, 0, 0, 0, 1, 1]
        assert codec.features == 2

    def test_duplicate_rows(self):
        data = {"time": [*hours(3), hours(3)[1]], "value": [1, 2, 3, 2]}
        read = read_series(data)
        assert "1 row that came twice left out" in read.notes
        assert len(read.inputs[0]) == 3
        with pytest.raises(ValueError, match=r"rows 2 and 4 have the same time, 2024-01-01T01:00:00, and different"):
            read_series(data | {"value": [1, 2, 3, 9]})

    def test_irregular_times(self):
        data = table() | {"time": [*hours(4), "2024-01-01 04:07", "2024-01-01 05:00"]}
        with pytest.raises(ValueError, match=r"row 5: 2024-01-01T04:07:00 does not lie on the grid of 1 hour"):
            read_series(data)

    def test_mostly_nothing(self):
        times = [*hours(3), *hours(3, "2024-06-01 00:00")]
        with pytest.raises(ValueError, match=r"6 rows lie on a grid of 3,6.* so that most would be missing"):
            read_series(table() | {"time": times})

    def test_text_among_numbers(self):
        data = table() | {"value": ["1", "2", "broken", "4", "5", "6"]}
        with pytest.raises(ValueError, match="row 3: column \"value\": 'broken' came, a number expected; --bad-rows"):
            read_series(data)
        read = read_series(data, bad_rows="skip")
        assert np.isnan(read.inputs[0].values[2, 0])
        assert read.notes[-1].startswith("1 unreadable row left out: row 3")

    @pytest.mark.parametrize("value", [float("inf"), "-inf", "1e999"])
    def test_infinite_values(self, value):
        data = table() | {"value": [1, 2, 3, value, 5, 6]}
        with pytest.raises(ValueError, match='row 4: column "value": an infinite value came'):
            read_series(data)

    def test_rows_without_a_time(self):
        data = table() | {"time": [*hours(2), "", *hours(3, "2024-01-01 03:00")]}
        with pytest.raises(ValueError, match="row 3: no time came"):
            read_series(data)
        assert len(read_series(data, bad_rows="skip").inputs[0]) == 6

    def test_times_in_which_day_and_month_could_be_either(self):
        with pytest.raises(ValueError, match=r"row 1: '3/4/2024' came, in which day and month could be either"):
            read_series({"time": ["3/4/2024", "4/4/2024"], "value": [1, 2]}, time="time")

    def test_one_column_of_two_forms(self):
        data = {"time": ["2024-01-01", "2024-01-02T00:00+01:00"], "value": [1, 2]}
        with pytest.raises(
            ValueError, match="row 2: a time with an offset came, and a time without an offset in row 1"
        ):
            read_series(data)

    def test_fractions_of_a_second(self):
        data = {"time": ["2024-01-01 00:00:00.5", "2024-01-01 00:00:01"], "value": [1, 2]}
        with pytest.raises(ValueError, match="expected whole seconds"):
            read_series(data)

    def test_nothing_there(self):
        with pytest.raises(ValueError, match="has no rows"):
            read_series({"time": [], "value": []})
        with pytest.raises(ValueError, match="no row has a value to forecast from"):
            read_series(table() | {"value": [""] * 6}, target="value")
        with pytest.raises(ValueError, match="one row only"):
            read_series({"time": hours(1), "value": [1]})

    def test_empty_beginnings_are_no_part_of_a_series(self):
        (series,) = read_series(table() | {"value": [None, None, 2, 3, 4, 5]}).inputs
        assert (len(series), series.spelled(0, 1)) == (4, ["2024-01-01T02:00:00"])

    def test_rows_to_come_bring_what_is_known(self):
        data = table(6, known=[1, 2, 3, 4, 5, 6]) | {"value": [1, 2, 3, 4, None, None]}
        (series,) = read_series(data, target="value", known="known").inputs
        assert (series.values.shape, series.known[:, 0].tolist()) == ((4, 1), [1, 2, 3, 4, 5, 6])
        (series,) = read_series(data | {"known": [1, 2, 3, 4, 5, None]}, target="value", known="known").inputs
        assert series.known[:, 0].tolist() == [1, 2, 3, 4, 5]


class TestTime:
    @pytest.mark.parametrize(
        ("times", "expected", "after"),
        [
            (["2024-01-01 00:00", "2024-01-01 00:30", "2024-01-01 01:00"], "30 minutes", "2024-01-01T01:30:00"),
            (["2024-01-30", "2024-01-31", "2024-02-01"], "1 day", "2024-02-02"),
            (["2024-01-01", "2024-01-08", "2024-01-15"], "1 week", "2024-01-22"),
            (["2024-01", "2024-02", "2024-03"], "1 month", "2024-04-01"),
            (["2024-01-31", "2024-02-29", "2024-03-31"], "1 month", "2024-04-30"),
            (["2024-01-15", "2024-02-15", "2024-03-15"], "1 month", "2024-04-15"),
            (["1956 Q1", "1956 Q2", "1956 Q3"], "3 months", "1956-10-01"),
            (["1956 Jan", "1956 Feb", "1956 Mar"], "1 month", "1956-04-01"),
            ([1970, 1971, 1972], "1 year", "1973-01-01"),
            (["2024/1/1", "2024/1/2", "2024/1/3"], "1 day", "2024-01-04"),
            ([10, 20, 30], "10 steps", "40"),
            ([date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)], "1 day", "2024-01-04"),
        ],
    )
    def test_frequencies(self, times, expected, after):
        (series,) = read_series({"time": times, "value": [1, 2, 3]}, target="value").inputs
        assert str(series.form.frequency) == expected
        assert series.spelled(3, 4) == [after]

    def test_days_of_work(self):
        days = [str(day) for day in np.arange("2024-01-01", "2024-02-01", dtype="datetime64[D]") if np.is_busday(day)]
        del days[7]
        read = read_series({"date": days, "value": list(range(len(days)))}, target="value")
        assert str(read.inputs[0].form.frequency) == "1 business day"
        assert "1 step without a row: taken as missing" in read.notes

    def test_months_that_end(self):
        times = np.array(["2023-12-31", "2024-01-31", "2024-02-29"], dtype="datetime64[s]")
        frequency = infer_frequency([times])
        assert (frequency.unit, frequency.step, frequency.day) == ("month", 1, 0)
        places, on_grid = frequency.steps(times[0], times)
        assert (places.tolist(), on_grid.all()) == ([0, 1, 2], True)

    def test_an_hour_that_comes_twice(self):
        """The clocks of Berlin went back from 03:00 to 02:00 on 27 October 2024."""
        times = ["2024-10-27 00:00", "2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
        data = {"time": times, "value": [1, 2, 3, 4, 5]}
        with pytest.raises(ValueError, match=r"rows 3 and 4 have the same time.*if clocks went back there, name the"):
            read_series(data)
        (series,) = read_series(data, zone="Europe/Berlin").inputs
        assert series.values[:, 0].tolist() == [1, 2, 3, 4, 5]
        assert series.spelled(2, 4) == ["2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00"]

    def test_an_hour_that_does_not_come(self):
        times = ["2024-03-31 01:00", "2024-03-31 02:00", "2024-03-31 03:00"]
        with pytest.raises(ValueError, match="row 2: 2024-03-31 02:00:00 came, which no clock shows in Europe/Berlin"):
            read_series({"time": times, "value": [1, 2, 3]}, zone="Europe/Berlin")

    def test_days_of_a_place_with_daylight_saving(self):
        days = ["2024-03-30T00:00+01:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00", "2024-04-02T00:00+02:00"]
        (series,) = read_series({"time": days, "value": [1, 2, 3, 4]}, zone="Europe/Berlin").inputs
        assert (str(series.form.frequency), series.spelled(4, 5)) == ("1 day", ["2024-04-03"])

    def test_times_in_utc_have_the_calendar_of_their_zone(self):
        data = {"time": [t.replace(" ", "T") + "Z" for t in hours(30, "2024-07-01 00:00")], "value": list(range(30))}
        (utc,) = read_series(data).inputs
        (local,) = read_series(data, zone="Australia/Melbourne").inputs
        assert (utc.form.zone, local.form.zone) == ("UTC", "Australia/Melbourne")
        assert to_local(local.times(0, 1), local.form.zone)[0] == np.datetime64("2024-07-01T10:00")
        (fixed,) = read_series({"time": ["2024-01-01T00:00-05:00", "2024-01-01T01:00-05:00"], "value": [1, 2]}).inputs
        assert fixed.form.zone == "-05:00"
        assert fixed.spelled(2, 3) == ["2024-01-01T02:00:00-05:00"]

    def test_local_times_are_those_of_the_standard_library(self):
        times = np.arange("2024-03-30T20:00", "2024-04-01", 900, dtype="datetime64[s]")
        expected = [datetime.fromisoformat(text) for text in spell(times, "Europe/Berlin")]
        assert [t.astimezone(UTC).replace(tzinfo=None) for t in expected] == times.tolist()

    def test_zones_that_are_none(self):
        with pytest.raises(ValueError, match="zone: 'Berlin' came; expected a name such as Europe/Berlin"):
            read_series(table(), zone="Berlin")

    def test_the_calendar(self):
        """Mondays at noon lie at the middle of the day and the beginning of the week."""
        noon = np.array(["2024-01-01T12:00", "2024-01-01T18:00"], dtype="datetime64[s]")
        turned = calendar(noon, ("day", "week"))
        assert turned.shape == (2, 8)
        assert_close(turned[0], np.array([0, -1, 0, 1, 0, 1, 0, 1.0]), SAME)
        assert_close(turned[1, :4], np.array([-1, 0, 0, -1.0]), SAME)


class TestCodec:
    def test_scales_by_what_it_was_fitted_to(self):
        (series,) = read_series(np.arange(10.0)).inputs
        codec = SeriesCodec.fit([series])
        (encoded,) = codec.encode_batch([series])
        assert encoded.dtype == np.float32
        assert abs(encoded.mean()) < 1e-6
        assert abs(encoded.std() - 1) < 1e-6

    def test_a_constant_column(self):
        (series,) = read_series(np.full(10, 7.3)).inputs
        encoded = SeriesCodec.fit([series]).encode(series)
        assert np.isfinite(encoded.values).all()
        assert np.abs(encoded.values).max() < 1e-6

    def test_each_series_has_its_own_scale_and_an_unknown_one_that_of_its_values(self):
        several = read_series([np.arange(10.0), 1000 * np.arange(10.0)]).inputs
        codec = SeriesCodec.fit(several)
        one, other = codec.encode_batch(several)
        assert_close(one.astype(float), other.astype(float), SAME)
        stranger = Series("new", np.int64(0), 5 * several[0].values, *([np.zeros((10, 0))] * 2), several[0].form)
        assert_close(codec.encode_batch([stranger])[0].astype(float), one.astype(float), SAME)

    def test_calendar_only_of_what_the_training_part_has_twice(self):
        short = read_series(table(24 * 13)).inputs
        assert SeriesCodec.fit(short).cycles == ("day",)
        long = read_series(table(24 * 14)).inputs
        assert SeriesCodec.fit(long).cycles == ("day", "week")
        assert SeriesCodec.fit(long, calendar=False).cycles == ()
        assert SeriesCodec.fit(long).features == 1 + 8

    def test_known_ahead(self):
        data = table(8, known=[0, 1] * 4) | {"value": [1, 2, 3, 4, 5, 6, None, None]}
        (series,) = read_series(data, target="value", known="known").inputs
        codec = SeriesCodec.fit([series])
        encoded = codec.encode(series)
        assert (encoded.values.shape, encoded.known.shape) == ((6, 1), (8, 1))
        assert_close(encoded.known[:, 0].astype(float), np.array([-1, 1] * 4, dtype=float), SAME)

    def test_json(self):
        read = read_series(table(24 * 14, a=[1.5] * 336, b=[2] * 336), target="value", known="a", past="b")
        codec = SeriesCodec.fit(read.inputs)
        text = codec.to_json()
        assert json.loads(text)["modality"] == "series"
        again = codecs.from_json(text)
        assert again == codec
        assert isinstance(again, codecs.Codec)
        assert 'known ahead "a"' in codec.describe()
        assert codec.describe().endswith("calendar of the day and the week")
        with pytest.raises(ValueError, match="no codec of series"):
            SeriesCodec.from_json('{"modality": "series"}')

    def test_digest_tells_data_apart(self):
        one, other = read_series(np.arange(5.0)), read_series(np.arange(1.0, 6.0))
        assert one.digest() == read_series(np.arange(5.0)).digest() != other.digest()

    def test_form_is_what_it_says(self):
        assert Form(("a",)).frequency == Frequency("number")


class TestRealFiles:
    def test_etth1(self, shared_data):
        read = read_series(shared_data / "ETTh1.csv")
        (series,) = read.inputs
        assert series.values.shape == (17420, 7)
        assert str(series.form.frequency) == "1 hour"
        assert not np.isnan(series.values).any()
