"""Hand-written ustar headers, against Python's tarfile."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.tar import BLOCK, END_OF_ARCHIVE, member_header, padding

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,90}\.[a-z]{1,6}", fullmatch=True)


@given(name=NAMES, size=st.integers(0, 8**11 - 1))
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert member_header(name, size) == info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


@given(size=st.integers(0, 5000))
def test_padding_fills_blocks(size: int) -> None:
    assert (size + len(padding(size))) % BLOCK == 0
    assert len(padding(size)) < BLOCK
    assert not any(padding(size) + END_OF_ARCHIVE)


@pytest.mark.parametrize(("name", "size"), [("", 1), ("x" * 101, 1), ("ü.jpg", 1), ("a.jpg", 8**11)])
def test_what_ustar_cannot_say_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError):
        member_header(name, size)
