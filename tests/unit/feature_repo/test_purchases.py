"""The demo's data: every line is accounted for, and no row knows more than was known at its instant."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.cdnow import parquet, purchases
from feature_repo.cdnow.history import purchase_history
from feature_repo.cdnow.snapshots import rfm
from rules_engine.errors import DataError, MissingExtraError

HEADER = " customer_id  date number_of_cds  dollar_value"
REPO = Path(__file__).parents[3] / "feature_repo"


@pytest.fixture(scope="module")
def cdnow() -> purchases.Purchases:
    return purchases.read(purchases.locate())


@pytest.fixture(scope="module")
def history(cdnow: purchases.Purchases) -> pd.DataFrame:
    return purchase_history(cdnow.accepted)


@pytest.fixture(scope="module")
def raw() -> dict[str, list[tuple[datetime, int, float]]]:
    """The file read once more, by other means: purchases of each customer as (instant, items, dollars)."""
    found: dict[str, list[tuple[datetime, int, float]]] = defaultdict(list)
    for line in purchases.locate().read_text().split("\n")[1:]:
        if line:
            user, day, items, dollars = line.split()
            instant = datetime.strptime(day + "235959", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            found[user].append((instant, int(items), float(dollars)))
    return found


def read(tmp_path: Path, *lines: str, header: str = HEADER, end: str = "\r\n") -> purchases.Purchases:
    file = tmp_path / "purchases.txt"
    file.write_bytes(end.join([header, *lines, ""]).encode())
    return purchases.read(file, frozenset({"00001", "00002", "00003"}))


# --- reading and validating ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_file_is_accepted_whole(cdnow: purchases.Purchases) -> None:
    assert len(cdnow.accepted) == 69_659
    assert cdnow.accepted["user_id"].nunique() == 23_570
    assert len(cdnow.rejected) == 0
    assert (cdnow.repeated, cdnow.free) == (255, 80)
    assert set(cdnow.accepted["user_id"]) == purchases.panel()
    assert "lifetimes" not in sys.modules  # its file is read; the package is not run


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("00001 19970101 1", "malformed: expected 4 columns"),
        ("00001 19970101 1 11.77 x", "malformed: expected 4 columns"),
        ("", "malformed: expected 4 columns"),
        ("00001 19970230 1 11.77", "malformed: the date is no day"),
        ("00001 1997-01-01 1 11.77", "malformed: the date is no day"),
        ("00001 19970101 one 11.77", "malformed: the number of CDs"),
        ("00001 19970101 1.5 11.77", "malformed: the number of CDs"),
        ("00001 19970101 1 nan", "malformed: the dollar value"),
        ("00001 19970101 1 1e3", "malformed: the dollar value"),
        ("00001 19970101 1 1.234", "malformed: the dollar value"),
        ("00001 19961231 1 11.77", "out of range: the date"),
        ("00001 19980701 1 11.77", "out of range: the date"),
        ("00001 19970101 0 11.77", "out of range: the number of CDs"),
        ("00001 19970101 -1 11.77", "out of range: the number of CDs"),
        ("00001 19970101 1 -11.77", "out of range: the dollar value"),
        ("99999 19970101 1 11.77", "unknown user"),
        ("00001\ufffd 19970101 1 11.77", "unknown user"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    found = read(tmp_path, "00001 19970102 2 20.00", line, "00002 19970103 1 5.5")
    assert found.accepted["line"].tolist() == [2, 4]
    assert found.rejected["line"].tolist() == [3]
    assert found.rejected["text"].tolist() == [line]
    assert found.rejected["reason"][0].startswith(reason)


def test_good_lines_keep_every_digit(tmp_path: Path) -> None:
    found = read(tmp_path, "00001 19970101 1 0.29", "00002   19980630\t99 1286.01", "00003 19970101 1 0", end="\n")
    assert found.accepted["cents"].tolist() == [29, 128601, 0]
    assert found.accepted["items"].tolist() == [1, 99, 1]
    assert found.free == 1


def test_equal_lines_of_one_day_are_kept_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, *["00001 19970101 1 11.77"] * 3, "00001 19970101 2 20.00")
    assert len(found.accepted) == 4
    assert found.repeated == 2


def test_a_line_that_comes_back_after_other_customers_is_a_duplicate(tmp_path: Path) -> None:
    block = ["00001 19970101 1 11.77", "00001 19970101 1 11.77", "00002 19970101 1 11.77"]
    late = "00001 19970105 1 11.77"  # also comes back, but is no duplicate
    found = read(tmp_path, *block, *block, late)
    assert found.accepted["line"].tolist() == [2, 3, 4, 8]
    assert found.rejected["line"].tolist() == [5, 6, 7]
    assert found.reasons == {"duplicate: the same line was delivered before": 3}


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the columns `customer_id date"):
        read(tmp_path, "00001,19970101,1,11.77", header="id,date,quantity,amount")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="expected the columns"):
        purchases.read(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="cannot read the purchases"):
        purchases.read(tmp_path / "nowhere.txt")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lifetimes", None)  # Python's own way to say that a package is not there
    with pytest.raises(MissingExtraError) as caught:
        purchases.locate()
    assert "feast-segments[demo]" in str(caught.value.hint)


# --- point in time ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_history_row_is_what_was_known_then(
    history: pd.DataFrame, raw: dict[str, list[tuple[datetime, int, float]]]
) -> None:
    """Each row against a computation from the file, of the purchases up to the row's instant alone."""
    chosen = sorted(raw, key=lambda user: (-len(raw[user]), user))[:150] + sorted(raw)[::150]
    by_user = dict(iter(history[history["user_id"].isin(chosen)].groupby("user_id")))
    for user in chosen:
        instants = sorted({at for at, _, _ in raw[user]})
        assert by_user[user]["event_timestamp"].tolist() == instants
        for row in by_user[user].itertuples():
            past = [purchase for purchase in raw[user] if purchase[0] <= row.event_timestamp]
            days = sorted({at for at, _, _ in past})
            spent = sum(dollars for _, _, dollars in past)
            assert (row.frequency, row.items) == (len(days), sum(items for _, items, _ in past))
            assert row.monetary_value == pytest.approx(spent)
            assert row.mean_basket == pytest.approx(spent / len(days))
            assert row.last_basket == pytest.approx(sum(dollars for at, _, dollars in past if at == days[-1]))
            assert (row.first_purchase, row.last_purchase) == (days[0], days[-1])
            gaps = [(later - earlier).days for earlier, later in itertools.pairwise(days)]
            if gaps:
                assert row.typical_gap_days == statistics.median(gaps)
            else:
                assert pd.isna(row.typical_gap_days)


@pytest.mark.slow
def test_every_snapshot_is_what_was_known_then(
    history: pd.DataFrame, raw: dict[str, list[tuple[datetime, int, float]]]
) -> None:
    snapshots = rfm(history)
    assert snapshots["event_timestamp"].min() == pd.Timestamp("1997-02-01", tz="UTC")
    assert snapshots["event_timestamp"].max() == pd.Timestamp("1998-07-01", tz="UTC")
    assert len(snapshots[snapshots["event_timestamp"] == "1998-07-01"]) == 23_570
    for row in snapshots.sample(3_000, random_state=1).itertuples():
        month = row.event_timestamp.to_pydatetime()
        past = [purchase for purchase in raw[row.user_id] if purchase[0] <= month]
        recent = [purchase for purchase in past if purchase[0] > month - timedelta(days=90)]
        days = sorted({at for at, _, _ in past})
        assert (row.recency_days, row.tenure_days) == ((month - days[-1]).days, (month - days[0]).days)
        assert (row.frequency, row.purchases_90d) == (len(days), len({at for at, _, _ in recent}))
        assert row.monetary_value == pytest.approx(sum(dollars for _, _, dollars in past))
        assert row.spend_90d == pytest.approx(sum(dollars for _, _, dollars in recent), abs=1e-9)
    assert (snapshots["spend_90d"] >= 0).all()


@pytest.mark.parametrize("day", ["1997-01-01", "1997-03-25", "1998-02-28"])
def test_the_future_changes_no_row(cdnow: purchases.Purchases, history: pd.DataFrame, day: str) -> None:
    """Built without what came after a day, the rows up to that day are the same: nothing leaks backwards."""
    last = pd.Timestamp(day)
    cut = purchase_history(cdnow.accepted[cdnow.accepted["day"] <= last])
    until = last.tz_localize("UTC") + pd.Timedelta(days=1)
    expected = history[history["event_timestamp"] < until].reset_index(drop=True)
    assert len(cut) > 0
    pd.testing.assert_frame_equal(cut.reset_index(drop=True), expected)
    months = pd.DatetimeIndex([until])
    pd.testing.assert_frame_equal(rfm(cut, months), rfm(history, months))


def test_instants_are_within_their_day(history: pd.DataFrame) -> None:
    """The last second: a row as of noon must not know the evening, and the day must stay the day."""
    times = history["event_timestamp"].dt.strftime("%H:%M:%S").unique()
    assert list(times) == ["23:59:59"]


# --- files ---------------------------------------------------------------------------------------


def test_files_have_the_declared_types(tmp_path: Path, history: pd.DataFrame) -> None:
    parquet.write(tmp_path / "history.parquet", history, parquet.PURCHASE_HISTORY)
    schema = pq.read_schema(tmp_path / "history.parquet")
    assert schema.remove_metadata() == parquet.PURCHASE_HISTORY
    assert schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    table = pq.read_table(tmp_path / "history.parquet")
    assert table["typical_gap_days"].null_count == 23_570  # one first purchase each: null, not NaN


def test_labels_that_are_there_stay(tmp_path: Path) -> None:
    file = tmp_path / "user_clusters.parquet"
    parquet.write_empty(file, parquet.USER_CLUSTERS)
    assert pq.read_table(file).num_rows == 0
    labels = pd.DataFrame(
        {
            "user_id": ["00001"],
            "event_timestamp": [pd.Timestamp("1998-07-01", tz="UTC")],
            "label": ["a"],
            "cluster": [0],
            "distance": [0.5],
            "model_version": ["1"],
        }
    )
    older = pa.schema([field for field in parquet.USER_CLUSTERS if field.name in labels.columns])
    parquet.write(file, labels, older)
    parquet.write_empty(file, parquet.USER_CLUSTERS)
    (row,) = pq.read_table(file, schema=parquet.USER_CLUSTERS).to_pylist()
    assert (row["label"], row["confidence"], row["outlier"]) == ("a", None, None), "columns that came since are added"
    assert pq.read_schema(file).remove_metadata() == parquet.USER_CLUSTERS
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.slow
def test_the_build_is_a_script_and_says_what_it_did(tmp_path: Path) -> None:
    copied = tmp_path / "feature_repo"
    (copied / "cdnow").mkdir(parents=True)
    for file in [REPO / "build.py", *(REPO / "cdnow").glob("*.py")]:
        (copied / file.relative_to(REPO)).write_text(file.read_text())
    command = [sys.executable, str(copied / "build.py")]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stderr == ""
    assert "Read 69,659 purchase lines of 23,570 customers" in first.stdout
    assert "Wrote 67,591 rows of purchase_history and 401,288 of rfm" in first.stdout
    files = {file.name: file.read_bytes() for file in (copied / "data").iterdir()}
    assert files.keys() == {
        "purchase_history.parquet",
        "rfm.parquet",
        "user_clusters.parquet",
        "purchase_propensity.parquet",
        "rejected_purchases.csv",
    }
    assert files["rejected_purchases.csv"] == b"line,reason,text\n"
    subprocess.run(command, capture_output=True, check=True)
    assert {file.name: file.read_bytes() for file in (copied / "data").iterdir()} == files


@pytest.mark.slow
def test_rejected_lines_are_written_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "purchases.txt").write_text(HEADER + "\n00001 19970101 1 11.77\n99999 19970101 1 11.77\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from rich.console import Console\n"
        "import build\n"
        "target = Path(sys.argv[2])\n"
        "build.show(build.build(target / 'purchases.txt', target / 'data', Console(soft_wrap=True)), Console())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPO), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "rejected          1  see feature_repo/data/rejected_purchases.csv" in done.stdout
    assert "1  unknown user: not in the customer list" in done.stdout
    written = (tmp_path / "data" / "rejected_purchases.csv").read_text()
    assert written == "line,reason,text\n3,unknown user: not in the customer list,99999 19970101 1 11.77\n"
