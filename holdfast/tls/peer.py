"""Whose certificate it is."""

from __future__ import annotations

from typing import Any


def peer_name(certificate: Any) -> str:
    """The common name of a peer's certificate, as ``getpeercert()`` has it; the first host where it has none."""
    if not certificate:
        return ""
    for part in certificate.get("subject", ()):
        for field_name, value in part:
            if field_name == "commonName":
                return str(value)
    return next((str(value) for _, value in certificate.get("subjectAltName", ())), "")
