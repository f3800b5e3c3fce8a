"""The text of a PNG, and what counts as a whole one."""

from __future__ import annotations

import pytest
import torch

from proxygrad.images import decode_png, encode_png
from proxygrad.png import annotate_png, read_text, read_whole


def test_text_is_added_and_pixels_stay() -> None:
    png = encode_png(torch.rand((3, 8, 9), generator=torch.Generator().manual_seed(0)))
    text = {"id": "0123", "unit": "größer"}
    annotated = annotate_png(png, text)
    assert read_text(annotated) == text
    assert torch.equal(decode_png(annotated), decode_png(png))


def test_a_png_is_read_whole_or_not_at_all() -> None:
    png = annotate_png(encode_png(torch.rand(3, 9, 7)), {"id": "x", "more": "y" * 300})
    assert read_whole(png) == read_text(png) == {"id": "x", "more": "y" * 300}
    damaged = [png[:length] for length in range(len(png))]
    damaged += [png[:at].ljust(len(png), b"\0") for at in range(len(png) - 1)]
    damaged += [png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :] for at in range(len(png))]
    for data in damaged:
        with pytest.raises(ValueError, match="are no PNG, or a damaged one"):
            read_whole(data)
