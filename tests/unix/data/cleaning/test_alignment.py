"""A cleaning held against its report: edits know their origin, losses know what is left."""

from unix.data.cleaning.alignment import Pair, is_subsequence, words_of
from unix.records import CleanedReport

RAW = " FINDINGS: The heart is normal. Small left effusion, as told to Dr. ___. No edema.\n IMPRESSION: No edema.\n"


def pair(raw: str, findings: str, impression: str = "") -> Pair:
    return Pair(raw, CleanedReport(findings, impression))


def test_a_cleaning_word_for_word_has_no_edits_and_no_losses() -> None:
    same = pair(RAW, "The heart is normal. Small left effusion, as told to Dr. ___. No edema.", "No edema.")
    assert (same.edits, same.losses, same.excess.total()) == ([], [], 0)


def test_an_edit_knows_the_sentence_that_it_comes_from() -> None:
    (edit,) = pair(RAW, "The heart is normal. Small left effusion. No edema.", "No edema.").edits
    assert edit.origin.text.startswith("Small left effusion, as told")
    assert list(edit.places) == [1]


def test_a_loss_knows_its_words_and_what_is_left() -> None:
    (loss,) = pair(RAW, "The heart is normal. Small left effusion. No edema.", "No edema.").losses
    assert loss.words == "as told to dr"
    assert loss.rest_text == "Small left effusion."


def test_sections_are_held_apart_where_both_texts_have_both() -> None:
    (loss,) = pair(RAW, "The heart is normal. Small left effusion, as told to Dr. ___.", "No edema.").losses
    assert (loss.origin.text, loss.origin.section) == ("No edema.", "findings")
    assert pair(RAW, "The heart is normal. Small left effusion, as told to Dr. ___. No edema.").losses == []


def test_a_sentence_may_run_over_the_end_of_two() -> None:
    (edit,) = pair("The lungs are clear. No effusion is seen.", "The lungs are clear no effusion.").edits
    assert list(edit.places) == [0, 1]


def test_a_sentence_that_stands_more_often_than_in_the_report_is_an_edit_of_one_that_is_gone() -> None:
    (edit,) = pair("The left apex is clear. The right apex is clear.", "The left apex is clear. " * 2).edits
    assert edit.origin.text == "The right apex is clear."


def test_words_are_in_lower_case_and_numbers_whole() -> None:
    assert words_of("A 2.3-cm mass (T4).") == ["a", "2.3", "cm", "mass", "t", "4"]


def test_a_subsequence_may_leave_words_out_but_not_reorder_them() -> None:
    assert is_subsequence(["a", "c"], ["a", "b", "c"])
    assert not is_subsequence(["c", "a"], ["a", "b", "c"])
