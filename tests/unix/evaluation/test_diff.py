from hypothesis import given
from hypothesis import strategies as st

from unix.evaluation.diff import UNEXPLAINED, Change, word_diff
from unix.records import RemovedSpan

words = st.lists(st.sampled_from(["Heart", "lungs", "clear", ".", ",", "___", "<b>", "é"]), max_size=12).map(" ".join)


@given(words, words, st.sampled_from(["", " ", "\n"]))
def test_kept_and_removed_spell_raw_kept_and_added_spell_cleaned(raw: str, cleaned: str, tail: str) -> None:
    runs = word_diff(raw + tail, cleaned)
    assert "".join(run.text for run in runs if run.change is not Change.ADDED) == raw + tail
    after = " ".join(run.text for run in runs if run.change is not Change.REMOVED)
    assert "".join(after.split()).lower() == "".join(cleaned.split()).lower()


def test_removed_words_carry_the_category_of_the_span_that_covers_them() -> None:
    raw = "Lungs clear.  Dr. ___ was told.  Heart normal. Signed."
    runs = word_diff(raw, "Lungs clear. Heart normal.", [RemovedSpan("Dr. ___ was told.", "notification")])
    removed = [(run.words, run.category) for run in runs if run.change is Change.REMOVED]
    assert removed == [("Dr. ___ was told.", "notification"), ("Signed.", UNEXPLAINED)]


def test_a_span_that_occurs_twice_covers_both_places() -> None:
    spans = [RemovedSpan("Wet read.", "wet_read"), RemovedSpan("Wet read.", "duplicate")]
    runs = word_diff("Wet read. Clear. Wet read.", "Clear.", spans)
    assert [run.category for run in runs if run.change is Change.REMOVED] == ["wet_read", "duplicate"]


def test_case_alone_is_no_change_and_an_added_word_shows() -> None:
    assert [run.change for run in word_diff("the lungs", "The lungs")] == [Change.KEPT]
    added = [run.words for run in word_diff("No effusion.", "No large effusion.") if run.change is Change.ADDED]
    assert added == ["large"]
