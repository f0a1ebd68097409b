"""Text in cells: hostile and wide characters, cutting, wrapping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from probe_tui.renderables.cells import cut, fill, one_line, paragraph, row, stretched, visible, wrap

ANY_TEXT = st.text(st.characters(), max_size=120) | st.text(
    "añ你🙂👩‍🔬\u0301\u200d\ufe0f \t\n\x1b\x07\u202e", max_size=60
)


def test_control_and_bidirectional_characters_are_shown_not_obeyed() -> None:
    assert visible("a\x1b[31m\x00\x7f\x9b\u202eb\ud800") == "a␛[31m␀␡��b�"


def test_joiners_stay_where_they_join() -> None:
    assert visible("👩\u200d🔬 ❤\ufe0f\u200d🔥") == "👩\u200d🔬 ❤\ufe0f\u200d🔥"
    assert visible("\u200d\u200da\u200d b\u200d\u200dc \ufe0f\u200d") == "a bc "


def test_white_space_becomes_one_space() -> None:
    assert one_line("  what\n is\t6×7 ? ") == "what is 6×7 ?"


def test_cutting_says_that_something_is_missing() -> None:
    assert cut("entropy", 7) == "entropy"
    assert cut("entropy", 5) == "entr…"
    assert cut("你好世界", 5) == "你好…"
    assert cut("你好世界", 4) == "你…"  # a wide character is not halved
    assert cut("entropy", 0) == ""


def test_wrapping_breaks_at_spaces_and_keeps_breaks_and_indents() -> None:
    assert wrap("one two three\n  four", 9) == ["one two", "three", "  four"]
    assert wrap("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrap("你好世界", 5) == ["你好", "世界"]
    assert wrap("", 5) == [""]
    assert wrap("a\r\nb\x1bc", 5) == ["a", "b␛c"]


def test_a_paragraph_hangs_under_its_label() -> None:
    rows = paragraph(12, "say what it is", first="remedy: ", indent="  ")
    assert [r.plain for r in rows] == ["remedy: say", "  what", "  it", "  is"]


def test_a_row_keeps_its_styles_where_it_is_cut() -> None:
    text = row(4, [("ab", "red"), ("cdef", "blue")])
    assert text.plain == "abc…"
    assert [(s.start, s.end, s.style) for s in text.spans] == [(0, 2, "red"), (2, 4, "blue")]


def test_stretched_cuts_and_fills() -> None:
    one = row(3, [("a", "")])
    assert [r.plain for r in stretched([one], 3)] == ["a", "", ""]
    assert stretched([one], 0) == []
    assert stretched([one], -1) == []


@given(ANY_TEXT, st.integers(1, 40))
def test_no_text_is_wider_than_asked(text: str, width: int) -> None:
    assert cell_len(cut(text, width)) <= width
    assert cell_len(row(width, [(text, "bold")]).plain) <= width
    assert all(cell_len(line.plain) <= max(width, 2) for line in paragraph(max(width, 2), text))


@given(st.text("abc 你\n", max_size=80), st.integers(2, 20))
def test_wrapping_loses_nothing_but_spaces(text: str, width: int) -> None:
    assert "".join("".join(wrap(text, width)).split()) == "".join(text.split())


@given(st.text("ab 你🙂", max_size=40), st.integers(1, 20))
def test_fill_is_exactly_as_wide_as_asked(text: str, width: int) -> None:
    assert cell_len(fill(text, width)) == width


def test_an_interval_stays_whole() -> None:
    text = "measured ΔĤ -0.00118 ± 0.00015 SE, 95% [-0.0015, -8.8e-04]"
    for width in (30, 44, 50, 56, 60):
        lines = wrap(text, width)
        assert any("[-0.0015, -8.8e-04]" in line for line in lines), width
        assert max(map(cell_len, lines)) <= width
    assert wrap("[a list of words]", 8) == ["[a list", "of", "words]"]
