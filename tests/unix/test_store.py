"""The store: what each way of writing leaves behind, also with several writers at once."""

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.errors import StoreError
from unix.records import CHEXPERT_14, Rejection
from unix.store import KEYS, LABELS_TYPE, SCHEMAS, Store, now


def splits(*rows: tuple[str, str], source: str = "phantom") -> pl.DataFrame:
    """Rows of the table `splits` from (image id, split)."""
    frame = pl.DataFrame(rows, schema={"image_id": pl.String, "split": pl.String}, orient="row")
    return frame.with_columns(
        source=pl.lit(source), task=pl.lit("generation"), study_id=pl.lit("1"), subject_id=pl.lit("1")
    )


def content(store: Store) -> list[tuple[str, str]]:
    return sorted(store.read("splits", ["image_id", "split"]).iter_rows())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_table_that_was_never_written_reads_as_empty_with_its_schema(store: Store) -> None:
    for table, schema in SCHEMAS.items():
        assert store.version(table) is None
        assert store.read(table).schema == schema
        assert store.read(table).is_empty()


@pytest.mark.parametrize("table", SCHEMAS)
def test_an_empty_frame_creates_the_table(store: Store, table: str) -> None:
    empty = pl.DataFrame(schema=SCHEMAS[table])
    store.append(table, empty)
    if table in KEYS:
        store.upsert(table, empty)
    assert store.version(table) == 0
    assert store.read(table).schema == SCHEMAS[table]


def test_create_leaves_existing_tables_alone(store: Store) -> None:
    store.append("splits", splits(("a", "train")))
    before = store.versions("splits", "images")
    store.create("splits", "images")
    assert store.versions("splits", "images") == before | {"images": 0}


def test_append_adds_and_keeps(store: Store) -> None:
    store.append("splits", splits(("a", "train")))
    store.append("splits", splits(("a", "test")))
    assert content(store) == [("a", "test"), ("a", "train")]


def test_upsert_inserts_and_replaces_in_one_commit(store: Store) -> None:
    store.upsert("splits", splits(("a", "train"), ("b", "train")))
    before = store.version("splits")
    store.upsert("splits", splits(("b", "test"), ("c", "test")))
    assert content(store) == [("a", "train"), ("b", "test"), ("c", "test")]
    assert store.version("splits") == (before or 0) + 1


def test_upsert_takes_the_last_row_of_a_key(store: Store) -> None:
    store.upsert("splits", splits(("a", "train"), ("a", "test")))
    assert content(store) == [("a", "test")]
    store.upsert("splits", splits(("a", "train"), ("a", "validate")))
    assert content(store) == [("a", "validate")]


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["train", "test"])), max_size=4), max_size=4)
)
def test_upserts_behave_like_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, writes: list[list[tuple[str, str]]]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    expected: dict[str, str] = {}
    for rows in writes:
        store.upsert("splits", splits(*rows))
        expected.update(rows)
    assert content(store) == sorted(expected.items())


def test_upsert_refuses_rows_without_a_key(store: Store) -> None:
    nameless = splits(("a", "train")).with_columns(image_id=pl.lit(None, pl.String))
    with pytest.raises(StoreError, match=r"1 rows.*image_id"):
        store.upsert("splits", nameless)
    with pytest.raises(StoreError, match="reviews has no key"):
        store.upsert("reviews", pl.DataFrame(schema=SCHEMAS["reviews"]))


def test_replace_makes_the_rows_everything_and_keeps_the_past(store: Store) -> None:
    store.upsert("splits", splits(("a", "train")))
    past = store.version("splits")
    store.replace("splits", splits(("b", "test")))
    assert content(store) == [("b", "test")]
    assert store.scan("splits", past).select("image_id").collect()["image_id"].to_list() == ["a"]
    store.replace("splits", splits())
    assert content(store) == []


def test_replace_of_a_part_leaves_the_rest(store: Store) -> None:
    store.upsert("splits", splits(("a", "train"), source="it's"))
    store.upsert("splits", splits(("b", "train"), source="other"))
    store.replace("splits", splits(("c", "test"), source="it's"), where={"source": "it's"})
    assert content(store) == [("b", "train"), ("c", "test")]
    with pytest.raises(StoreError, match=r"1 rows .* outside the part"):
        store.replace("splits", splits(("d", "test"), source="other"), where={"source": "it's"})
    with pytest.raises(StoreError, match="no columns"):
        store.replace("splits", splits(), where={"1=1 OR source": "x"})


def test_a_scan_shows_the_table_as_it_was_when_it_began(store: Store) -> None:
    store.upsert("splits", splits(("a", "train")))
    lazy = store.scan("splits")
    store.upsert("splits", splits(("a", "test"), ("b", "test")))
    assert lazy.select("split").collect()["split"].to_list() == ["train"]


def test_versions_that_do_not_exist_are_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="no version 3"):
        store.scan("splits", 3)
    store.upsert("splits", splits(("a", "train")))
    with pytest.raises(StoreError, match="version 99"):
        store.scan("splits", 99)


@pytest.mark.parametrize("table", ["", "..", "../outside", "studies/../../x", "Studies", "studies\0", "s3://x"])
def test_names_that_are_no_tables_are_refused(store: Store, table: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for use in (store.version, store.scan, store.read, store.create):
        with pytest.raises(StoreError, match="unknown table"):
            use(table)
    for write in (store.append, store.upsert, store.replace):
        with pytest.raises(StoreError):
            write(table, splits(("a", "train")))
    assert sorted(tmp_path.rglob("*")) == before


def test_rows_of_another_shape_are_refused_without_quoting_them(store: Store) -> None:
    with pytest.raises(StoreError, match=r"missing columns \['split'\], unknown columns \['spilt'\]"):
        store.append("splits", splits(("a", "train")).rename({"split": "spilt"}))
    secret = pl.DataFrame(schema=SCHEMAS["images"]).clear(1).with_columns(rows=pl.lit("not for logs"))
    with pytest.raises(StoreError, match="rows is String") as caught:
        store.append("images", secret)
    assert "not for logs" not in str(caught.value)


def test_columns_may_come_in_any_order_and_in_narrower_types(store: Store) -> None:
    store.append(
        "splits", splits(("a", "train")).select("split", "image_id", "task", "study_id", "subject_id", "source")
    )
    row = pl.DataFrame(schema=SCHEMAS["images"]).clear(1).with_columns(rows=pl.lit(7, pl.Int64), image_id=pl.lit("a"))
    store.append("images", row)
    assert store.read("images")["rows"].to_list() == [7]


def test_labels_come_back_as_they_went_in(store: Store) -> None:
    labels = {name: (1, 0, -1, None)[index % 4] for index, name in enumerate(CHEXPERT_14)}
    row = (
        pl.DataFrame(schema=SCHEMAS["images"])
        .clear(2)
        .with_columns(
            source=pl.lit("phantom"),
            image_id=pl.Series(["a", "b"]),
            labels=pl.Series([labels, None], dtype=LABELS_TYPE),
        )
    )
    store.upsert("images", row)
    assert store.read("images").sort("image_id")["labels"].to_list() == [labels, None]


def test_a_table_of_another_layout_is_refused(store: Store) -> None:
    pl.DataFrame({"source": ["x"]}).write_delta(store.location("tables", "splits"))
    for use in (lambda: store.scan("splits"), lambda: store.upsert("splits", splits(("a", "train")))):
        with pytest.raises(StoreError, match="lacks the columns"):
            use()


def test_a_damaged_table_is_refused_in_one_line(store: Store) -> None:
    store.upsert("splits", splits(("a", "train")))
    for entry in (Path(store.uri) / "tables" / "splits" / "_delta_log").glob("*.json"):
        entry.write_text("{")
    with pytest.raises(StoreError) as caught:
        store.read("splits")
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="splits"):
        Store(tmp_path / "file").upsert("splits", splits(("a", "train")))


@pytest.mark.parametrize("folder", ["my store", "aéß", "it's", "a#b"])
def test_folders_may_have_unusual_names(tmp_path: Path, folder: str) -> None:
    store = Store(tmp_path / folder)
    store.upsert("splits", splits(("a", "train")))
    store.upsert("splits", splits(("a", "test")))
    assert content(store) == [("a", "test")]


def test_uris_name_folders_too(tmp_path: Path) -> None:
    Store(f"file://{tmp_path}/store/").upsert("splits", splits(("a", "train")))
    assert content(Store(tmp_path / "store")) == [("a", "train")]
    assert Store(f"{tmp_path}/store/").location("shards", "x") == f"{tmp_path}/store/shards/x"


def test_the_default_uri_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIX_STORE", "s3://bucket/store")
    assert Store.default_uri() == "s3://bucket/store"
    monkeypatch.setenv("UNIX_STORE", "")
    assert Store.default_uri() == "store"
    with pytest.raises(StoreError, match="empty"):
        Store("")


def test_many_small_commits_are_compacted(store: Store) -> None:
    for number in range(40):
        store.append("splits", splits((f"{number:02d}", "train")))
    assert len(content(store)) == 40
    assert len(DeltaTable(store.location("tables", "splits")).file_uris()) < 20


def test_now_is_a_time_in_utc() -> None:
    assert pl.select(now()).to_series().dtype == pl.Datetime("us", "UTC")


def refusal(item: str, reason: str = "empty_report", source: str = "phantom") -> Rejection:
    return Rejection("ingest", source, item, reason)


def test_the_same_rejection_twice_is_one_row(store: Store) -> None:
    store.reject([refusal("1"), refusal("2")])
    store.reject(iter([refusal("1"), refusal("1", "other")]))
    assert sorted(store.read("rejections", ["item", "reason"]).iter_rows()) == [
        ("1", "empty_report"),
        ("1", "other"),
        ("2", "empty_report"),
    ]


def test_replaced_rejections_forget_only_their_own(store: Store) -> None:
    store.reject(
        [refusal("1"), refusal("2"), refusal("3", source="mimic-cxr"), Rejection("splits", "phantom", "4", "x")]
    )
    store.replace_rejections("ingest", [refusal("2"), refusal("5")], "phantom")
    assert sorted(store.read("rejections")["item"]) == ["2", "3", "4", "5"]
    version = store.version("rejections")
    store.replace_rejections("ingest", [refusal("5"), refusal("2")], "phantom")
    assert store.version("rejections") == version
    store.replace_rejections("ingest", [])
    assert store.read("rejections")["item"].to_list() == ["4"]


def _write(uri: str, writer: str, method: str) -> None:
    store = Store(uri)
    for number in range(6):
        rows = splits((f"{writer}{number}", "train"), ("shared", f"{writer}{number}"))
        getattr(store, method)("splits", rows)


@pytest.mark.parametrize("method", ["upsert", "append"])
def test_two_processes_write_one_table_without_losing_or_repeating_rows(store: Store, method: str) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(store.uri, name, method)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    images = store.read("splits")["image_id"].to_list()
    own = [f"{name}{number}" for name in "ab" for number in range(6)]
    assert sorted(image for image in images if image != "shared") == own
    assert images.count("shared") == (1 if method == "upsert" else 12)


def test_a_commit_prepared_on_an_old_version_is_prepared_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert("splits", splits(("a", "train")))
    original, overtakers = Store._open, ["theirs"]

    def open_and_be_overtaken(self: Store, table: str, version: int | None = None) -> DeltaTable | None:
        delta = original(self, table, version)
        if overtakers:
            Store(store.uri).upsert("splits", splits(("b", overtakers.pop())))
        return delta

    monkeypatch.setattr(Store, "_open", open_and_be_overtaken)
    store.upsert("splits", splits(("b", "ours"), ("c", "ours")))
    assert content(store) == [("a", "train"), ("b", "ours"), ("c", "ours")]


def test_removed_rows_are_gone_and_stay_in_the_history(store: Store) -> None:
    review = dict.fromkeys(SCHEMAS["reviews"], "x") | {"created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    rows = pl.DataFrame([review, review | {"study_id": "y"}])
    store.append("reviews", rows)
    before = store.version("reviews")
    store.remove("reviews", rows.select("study_id", "created_at").filter(study_id="y"))
    assert store.read("reviews")["study_id"].to_list() == ["x"]
    assert store.scan("reviews", before).collect().height == 2
    store.remove("reviews", rows.clear())
    assert store.read("reviews").height == 1
