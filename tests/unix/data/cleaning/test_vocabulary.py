"""Noise is told from what a chest image shows."""

import pytest

from unix.data.cleaning.vocabulary import is_noise, is_request, tells_of_images

IMAGES = ["small hiatal hernia", "the left apex", "hernia compared to the prior study", "lung base as seen on prior"]
NOISE = [
    "lung disease told to dr",
    "portable view of the lungs",
    "thank you",
    "comparison to the prior study",
    "rotation hides the apices",
]


@pytest.mark.parametrize("words", IMAGES)
def test_what_an_image_shows_is_told(words: str) -> None:
    assert tells_of_images(words)


@pytest.mark.parametrize("words", NOISE)
def test_noise_tells_nothing_of_images_even_where_it_names_a_part(words: str) -> None:
    assert not tells_of_images(words)


def test_a_study_that_shows_something_is_no_noise() -> None:
    assert is_noise("compared to the prior study")
    assert not is_noise("the prior study is seen")


def test_a_request_says_why_the_study_was_made() -> None:
    assert is_request("Evaluate for pneumonia.")
    assert is_request("A 40-year-old man with lung cancer.")
    assert not is_request("The patient with a known nodule: there is a new effusion.")


HISTORY = [
    "Known COPD.",
    "Pneumonia?",
    "Tube placement.",
    "Recently discharged with pneumonia.",
    "Awaiting thoracentesis.",
    "Post-op day 3 from esophagectomy.",
    "Clinical concern for pneumonia.",
]
FINDINGS = [
    "Known left upper lobe mass.",
    "Left pneumothorax?",
    "Interval chest tube placement.",
    "Multifocal pneumonia.",
    "Satellite nodules surround it.",
    "Bibasilar plate-like atelectasis.",
    "Tracheostomy tube in standard position.",
    "Viral pneumonia was suspected.",
]


@pytest.mark.parametrize("text", HISTORY)
def test_what_ails_the_patient_without_a_size_or_a_place_is_a_request(text: str) -> None:
    assert is_request(text)


@pytest.mark.parametrize("text", FINDINGS)
def test_what_is_described_is_none(text: str) -> None:
    assert not is_request(text)


def test_who_was_told_is_noise_and_names_nothing_of_images() -> None:
    assert not tells_of_images("an email about the new nodule was sent to the physician")
    assert not tells_of_images("the pneumothorax was known to the team")
