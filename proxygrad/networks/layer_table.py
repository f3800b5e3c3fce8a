"""The layers of a network as a table: what `Network.layers` shows of itself."""

from __future__ import annotations

import html

from proxygrad.spec.models import LayerInfo

COLUMNS = ("layer", "kind", "type", "units", "shape", "activation")
#: `repr` shows so many rows, and leaves out those in the middle of more.
SHOWN_ROWS = 40


class LayerTable(tuple[LayerInfo, ...]):
    """Every addressable layer in the order of the forward pass; a tuple that prints as a table.

    ``str`` has all rows, ``repr`` at most `SHOWN_ROWS`.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(_lines([COLUMNS, *map(_row, self)]))

    def __repr__(self) -> str:
        if len(self) <= SHOWN_ROWS:
            return str(self)
        half = SHOWN_ROWS // 2
        lines = _lines([COLUMNS, *map(_row, self)])
        left_out = f"… {len(self) - 2 * half} more; print() shows all"
        return "\n".join([*lines[: half + 1], left_out, *lines[-half:]])

    def _repr_html_(self) -> str:
        """For IPython: the table, which scrolls where it is long."""
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _row(layer))}</tr>" for layer in self
        )
        return (
            '<div style="max-height:24em;overflow:auto"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )


def _row(layer: LayerInfo) -> tuple[str, ...]:
    stage = (layer.stage or "").removesuffix("_activation")
    shape = "x".join(map(str, layer.shape))
    return (
        layer.name,
        layer.kind,
        layer.type,
        str(layer.units),
        shape,
        f"{stage} {layer.activation or ''}".strip() or "-",
    )


def _lines(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; numbers of units to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = COLUMNS.index("units")
    return [
        "  ".join(
            cell.rjust(width) if column == right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
