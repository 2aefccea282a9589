"""What is right and wrong with a member's encryption: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import Finding, Level, names, ok

SOON_DAYS = 30
KEY = "tls"


def check_encryption(facts: Facts) -> Iterator[Finding]:
    """Of the agent's API, and of the server's replication."""
    found = [*_api(facts), *(_certificates(facts) if facts.encrypting else _replication(facts))]
    yield from found
    if facts.guarded and facts.encrypting and not found:
        yield ok(KEY, "its agent speaks TLS, and it follows and is followed with certificates")


def _api(facts: Facts) -> Iterator[Finding]:
    if facts.listen and not facts.guarded and not is_loopback(facts.listen.rpartition(":")[0]):
        text = f"the agent's API at {facts.listen} is not encrypted; only a token keeps it"
        yield Finding(KEY, Level.WARNING, text, "tls in its file (holdfast certs issue)")
    for path, days in sorted(facts.certificates.items()):
        if days < 0:
            yield Finding(KEY, Level.WRONG, f"{path} has expired", "renew it")
        elif days < SOON_DAYS:
            yield Finding(KEY, Level.WARNING, f"{path} expires in {days} days", "renew it")


def _replication(facts: Facts) -> Iterator[Finding]:
    if facts.on("require_secure_transport"):
        text = "its server refuses logins without TLS, and members replicate without: none could follow it"
        mend = "server.tls in the agents' files (docs/security.md), or SET GLOBAL require_secure_transport = OFF"
        yield Finding(KEY, Level.WRONG, text, mend)
    if any(not up.tls for up in facts.upstreams) and not is_loopback(facts.upstreams[0].host):
        text = "what it receives from its source is not encrypted"
        yield Finding(
            KEY, Level.WARNING, text, "server.tls in the agents' files (docs/security.md)"
        )


def _certificates(facts: Facts) -> Iterator[Finding]:
    if not facts.variables.get("ssl_cert") or not facts.variables.get("ssl_ca"):
        text = "its server has no certificate: members that have server.tls could not follow it"
        mend = f"ssl_ca, ssl_cert and ssl_key into {facts.boot.file}, and restart it"
        yield Finding(KEY, Level.WRONG, text, mend)
    if any(not up.tls for up in facts.upstreams):
        text = "what it receives from its source is not encrypted, although server.tls is set"
        yield Finding(KEY, Level.WARNING, text, f"holdfast member restart {facts.member}")
    if facts.lenient:
        text = f"{names(facts.lenient)} may replicate without a certificate"
        example = sorted(facts.lenient)[0]
        mend = f"on the primary, for each: ALTER USER '{example}'@'%' REQUIRE X509"
        yield Finding(KEY, Level.WARNING, text, mend)


def is_loopback(host: str) -> bool:
    return host.startswith("127.") or host.strip("[]") in ("localhost", "::1")
