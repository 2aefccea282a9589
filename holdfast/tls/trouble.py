"""What TLS reports as wrong, in words for operators."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

EXPIRED, NOT_YET = 10, 9
OTHER_CA = frozenset({2, 7, 18, 19, 20, 21, 24})
HOST = frozenset({62, 64})
PURPOSE = 26
"""OpenSSL's codes for what is wrong with a certificate."""


def explain(error: BaseException) -> str:
    """What a failed connection says of TLS and certificates, for operators; "" if nothing."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return _unverified(each)
        if isinstance(each, ssl.SSLError):
            reason = (each.reason or str(each)).upper().replace(" ", "_")
            return next((text for part, text in _ALERTS if part in reason), f"TLS: {reason}")
    return ""


def refused_certificate(error: BaseException) -> bool:
    """Whether the peer has said by a TLS alert that it rejects this process's certificate: it has read no request."""
    return any(
        isinstance(each, ssl.SSLError)
        and not isinstance(each, ssl.SSLCertVerificationError)
        and any(part in (each.reason or "").upper() for part in _REFUSALS)
        for each in _chain(error)
    )


_ALERTS = (
    ("CERTIFICATE_REQUIRED", "it wants a certificate, and was shown none: see tls, or --tls-cert"),
    ("ALERT_UNKNOWN_CA", "it does not take our certificate: another CA has signed it"),
    ("ALERT_CERTIFICATE_EXPIRED", "it does not take our certificate: it has expired"),
    ("ALERT_BAD_CERTIFICATE", "it does not take our certificate"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "it does not take our certificate: not good for a client"),
    ("ALERT_CERTIFICATE", "it does not take our certificate"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: should the URL begin with http://?"),
    ("RECORD_LAYER_FAILURE", "it does not speak TLS: should the URL begin with http://?"),
    ("PROTOCOL_VERSION", "it does not speak TLS 1.3"),
    ("HTTP_REQUEST", "it does not speak TLS: should the URL begin with http://?"),
    ("UNEXPECTED_EOF", "it ended the TLS handshake: does it speak TLS?"),
)
_REFUSALS = ("ALERT_UNKNOWN_CA", "CERTIFICATE_REQUIRED", "ALERT_CERTIFICATE", "_CERTIFICATE")


def _unverified(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case code if code in HOST:
            # OpenSSL's text names the host
            return f"its certificate is for other hosts: {error.verify_message}"
        case code if code == EXPIRED:
            return "its certificate has expired"
        case code if code == NOT_YET:
            return "its certificate is not valid yet: look at the clocks of both hosts"
        case code if code in OTHER_CA:
            return "its certificate was not signed by the CA that we trust"
        case _:
            return f"its certificate is not good: {error.verify_message}"


def plain(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
