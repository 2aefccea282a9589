"""The holder of a peer's certificate, and what it says."""

from __future__ import annotations

from typing import Any

from holdfast.core.answers.access import CertificateHolder, holder


def peer_name(certificate: Any) -> str:
    """The common name of a peer's certificate, as ``getpeercert()`` has it; the first host where it has none."""
    if not certificate:
        return ""
    for name in _subject(certificate, "commonName"):
        return name
    return next((str(value) for _, value in certificate.get("subjectAltName", ())), "")


def peer(certificate: Any) -> CertificateHolder:
    """Its name, roles and clusters; read once for each connection. Without a certificate, a holder without a name."""
    if not certificate:
        return CertificateHolder("")
    uris = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    units = _subject(certificate, "organizationalUnitName")
    return holder(peer_name(certificate), (*uris, *units))


def _subject(certificate: Any, name: str) -> list[str]:
    return [
        str(value)
        for part in certificate.get("subject", ())
        for field_name, value in part
        if field_name == name
    ]
