"""Names of XA transactions, as servers take them in a statement."""

from __future__ import annotations


def sql_form(format_id: int, gtrid: bytes, bqual: bytes) -> str:
    """``X'6162',X'',1``: what follows XA COMMIT."""
    return f"X'{gtrid.hex()}',X'{bqual.hex()}',{format_id}"
