"""Whatever a relay sends is replies, or a fault, within bounds of time and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.model.outcome import Reply
from mailgate.smtp.reply import (
    MAX_LINE,
    MAX_LINES,
    MAX_REPLY,
    MalformedReply,
    ReplyReader,
    enhanced_code,
    parse_reply,
)


def read_all(reader: ReplyReader) -> list[Reply]:
    replies = []
    while (reply := reader.take()) is not None:
        replies.append(reply)
    return replies


def test_replies_are_cut_where_they_end() -> None:
    reader = ReplyReader()
    reader.feed(b"250 one\r\n250-two\r\n250 more\r\n354\r\n25")
    assert read_all(reader) == [Reply(250, "one"), Reply(250, "two\nmore"), Reply(354, "")]
    assert reader.pending
    reader.feed(b"0 2.0.0 rest\n")
    assert read_all(reader) == [Reply(250, "2.0.0 rest", "2.0.0")]
    assert not reader.pending


@given(
    st.lists(
        st.tuples(
            st.integers(200, 599),
            st.lists(st.text("abc 1.-", max_size=10).map(str.strip), min_size=1, max_size=4),
        ),
        max_size=5,
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_how_the_bytes_are_cut_into_segments_does_not_matter(
    said: list[tuple[int, list[str]]], cuts: list[int]
) -> None:
    stream = b"".join(
        f"{code}{'-' if n < len(lines) - 1 else ' '}{line}\r\n".encode()
        for code, lines in said
        for n, line in enumerate(lines)
    )
    reader, replies, start = ReplyReader(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        reader.feed(stream[start:cut])
        start = max(start, cut)
        replies += read_all(reader)
    assert [(r.code, r.text) for r in replies] == [(c, "\n".join(x).strip()) for c, x in said]
    assert not reader.pending


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_no_bytes_crash_the_reader_or_come_out_unfit_to_keep(segments: list[bytes]) -> None:
    reader = ReplyReader()
    try:
        for segment in segments:
            reader.feed(segment)
            for reply in read_all(reader):
                assert 200 <= reply.code <= 599
                assert all(c.isprintable() or c == "\n" for c in reply.text)
                reply.text.encode()
                enhanced_code(reply.text, reply.code)
    except MalformedReply:
        pass


@pytest.mark.parametrize(
    "piece",
    [b"x" * 1000, b"2" * 1000, b"250-" + b"x" * 996, b"250-more\r\n" * 100, b"\x00" * 1000],
)
def test_a_flood_without_an_end_is_cut_off(piece: bytes) -> None:
    reader, fed, cut_off = ReplyReader(), 0, False
    while not cut_off:
        reader.feed(piece)
        fed += len(piece)
        try:
            assert reader.take() is None
        except MalformedReply:
            cut_off = True
        assert fed <= MAX_REPLY + MAX_LINE + len(piece)


def test_a_long_but_legal_reply_is_read_whole() -> None:
    reader = ReplyReader()
    reader.feed(b"250-offer\r\n" * (MAX_LINES - 1) + b"250 end\r\n")
    reply = reader.take()
    assert reply is not None
    assert reply.text.count("\n") == MAX_LINES - 1


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n",
        b"ok\r\n",
        b"25 ok\r\n",
        b"2_5 ok\r\n",
        b"+25 ok\r\n",
        b"100 continue\r\n",
        b"650 no\r\n",
        b"250ok\r\n",
        b"250_ok\r\n",
        "２５０ ok\r\n".encode(),
        b"250-ok\r\n550 no\r\n",
    ],
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    reader = ReplyReader()
    reader.feed(line)
    with pytest.raises(MalformedReply):
        read_all(reader)


@pytest.mark.parametrize(
    ("text", "code", "enhanced"),
    [
        ("5.1.1 User unknown", 550, "5.1.1"),
        ("2.0.0 Ok", 250, "2.0.0"),
        ("Ok 2.0.0", 250, ""),
        ("#5.1.0 Address rejected", 550, "5.1.0"),
        ("Sorry (#4.4.1)", 451, "4.4.1"),
        ("sorry\n5.2.2 full", 552, "5.2.2"),
        ("see 5.9.9 below\n5.2.2 full", 552, "5.2.2"),
        ("5.1.1.2 is blocked", 550, ""),
        ("blocked: 192.5.1.1", 550, ""),
        ("5.07.001 Policy", 550, "5.7.1"),
        ("5.1.1000 no", 550, ""),
        ("1.2.3 no", 550, ""),
        ("", 550, ""),
    ],
)
def test_the_enhanced_code_is_found_where_relays_write_it(
    text: str, code: int, enhanced: str
) -> None:
    assert enhanced_code(text, code) == enhanced


def test_a_pasted_reply_is_read() -> None:
    assert parse_reply("550-5.1.1 no\n550 5.1.1 such user") == Reply(
        550, "5.1.1 no\n5.1.1 such user", "5.1.1"
    )
    assert parse_reply("451 4.7.1 a \n451 b") == Reply(451, "4.7.1 a\nb", "4.7.1")
    for nothing in ("", "no code", "\n"):
        with pytest.raises(MalformedReply):
            parse_reply(nothing)


def test_what_was_said_before_is_read_the_same_again() -> None:
    for code in (250, 550, 250, 550):
        reader = ReplyReader()
        reader.feed(f"{code} 5.1.1 Ok\r\n".encode())
        assert reader.take() == Reply(code, "5.1.1 Ok", "5.1.1")
