import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.backbones.windows import layout

counts = st.lists(st.integers(0, 12), min_size=1, max_size=300).map(lambda c: np.array(c, dtype=np.int64))


@given(counts, st.integers(16, 80), st.integers(1, 80), st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_every_word_is_owned_once_and_windows_fit(pieces, window, stride, overlap):
    rows = layout(pieces, window, min(stride, window), overlap)
    owned = [word for _, _, first, last in rows for word in range(first, last)]
    assert owned == list(range(len(pieces)))
    for start, stop, first, last in rows:
        assert start <= first <= last <= stop
        assert np.maximum(pieces[start:stop], 1).sum() <= window
    assert rows[0][0] == 0
    assert rows[-1][1] == len(pieces)
    starts = [row[0] for row in rows]
    assert starts == sorted(set(starts))


@given(st.lists(st.integers(1, 3), min_size=50, max_size=400), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_a_span_ends_in_the_window_that_owns_its_start(pieces, width):
    for _, stop, first, last in layout(np.array(pieces), 64, 40, 2 * width):
        if last > first and last < len(pieces):
            assert last - 1 + width <= stop


def test_a_window_leaves_room_for_the_widest_span_beyond_the_middle_of_its_overlap():
    rows = layout(np.array([1, 4] + [1] * 30), 16, 8, 2 * 5)
    assert rows[0] == (0, 13, 0, 8)  # the overlap begins at word 6, its middle is word 10


@given(st.lists(st.integers(1, 3), min_size=200, max_size=400))
@settings(max_examples=50, deadline=None)
def test_words_are_central_in_the_window_that_owns_them(pieces):
    rows = layout(np.array(pieces), 60, 40, 4)
    for index, (start, stop, first, last) in enumerate(rows):
        if index:
            assert first - start >= 3
        if index + 1 < len(rows):
            assert stop - last >= 2


def test_a_text_that_fits_is_one_window():
    assert layout(np.array([1] * 20), 20, 10, 4) == [(0, 20, 0, 20)]


def test_the_last_window_is_full():
    rows = layout(np.array([1] * 45), 20, 15, 2)
    assert rows[-1][:2] == (25, 45)


def test_no_overlap():
    rows = layout(np.array([1] * 40), 20, 20, 0)
    assert rows == [(0, 20, 0, 20), (20, 40, 20, 40)]


def test_overlap_that_cannot_be_kept_still_makes_progress():
    rows = layout(np.array([10] * 50), 20, 10, 30)
    assert len(rows) <= 50
    assert rows[-1][1] == 50


def test_windows_overlap_by_a_third_by_default():
    assert (Transformer().window, Transformer().stride) == (384, 256)
    assert Transformer(window=128).stride == 85
