"""Server-sent events come out whole, wherever their bytes are cut."""

from __future__ import annotations

import pytest

from proxygrad.client.sse import Decoder, Frame

TEXT = (
    "retry: 2000\n\n: nothing new\n\nid: 1-0\nevent: state\ndata: {}\n\n"
    "event: preview\r\ndata:a\r\ndata: b\u2028\r\n\r\nid: 2-0\revent: progress\rdata: x\r\r"
)
FRAMES = [Frame("state", "{}"), Frame("preview", "a\nb\u2028"), Frame("progress", "x")]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_frames_come_out_whole_wherever_the_bytes_are_cut(size: int) -> None:
    decoder, content = Decoder(), TEXT.encode() + b":\n"
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    assert [frame for chunk in chunks for frame in decoder.frames(chunk)] == FRAMES
    assert decoder.last_id == "2-0"


def test_what_was_not_sent_whole_was_not_sent() -> None:
    decoder = Decoder()
    assert [*decoder.frames(b"id: 1-0\ndata: a\n\nid: 2-0\nevent: state\ndata: {")] == [Frame("message", "a")]
    decoder.reset()
    assert [*decoder.frames(b"data: b\n\n")] == [Frame("message", "b")]
    assert decoder.last_id == "1-0"
