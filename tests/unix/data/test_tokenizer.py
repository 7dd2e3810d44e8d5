"""The tokenizer: round trips, determinism, refusals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.tokenizer import JANUS_SPECIAL_TOKENS, Tokenizer
from unix.errors import ConfigError, WeightsError

TEXTS = ["FINDINGS: No pleural effusion.", "FINDINGS: Small left pleural effusion.", "IMPRESSION: Effusion."]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 300)


@given(st.text(max_size=60))
def test_any_text_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text.strip()


def test_special_tokens_come_first_and_are_never_made_from_text(tokenizer):
    assert (tokenizer.bos, tokenizer.eos, tokenizer.boi, tokenizer.eoi) == (0, 1, 2, 3)
    assert tokenizer.decode([0, *tokenizer.encode("Effusion."), 1]) == "Effusion."


def test_the_same_texts_give_the_same_file(tokenizer, tmp_path):
    (tmp_path / "again").mkdir()
    first = tokenizer.save(tmp_path).read_bytes()
    assert Tokenizer.train(TEXTS, 300).save(tmp_path / "again").read_bytes() == first
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_a_janus_file_is_recognised(tmp_path):
    names = JANUS_SPECIAL_TOKENS.names()
    vocabulary = {"a": 0, **{name: number for number, name in enumerate(names, start=1)}}
    special = [
        {
            "id": number,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, name in enumerate(names, start=1)
    ]
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": special, "model": model}))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.boi, tokenizer.eoi) == (1, 2, 3, 4)


def test_refusals(tmp_path):
    with pytest.raises(WeightsError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="is not a tokenizer file"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ConfigError, match="vocabulary_size 100"):
        Tokenizer.train(TEXTS, 100)
