"""What a check says about encryption, from made-up facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.check.encryption import check_encryption
from holdfast.core.check.facts import Boot, Facts, Upstream
from holdfast.core.check.findings import Level
from holdfast.core.gtid import Flavor

WHOLE = Facts(
    "m1",
    Flavor.MARIADB,
    boot=Boot("/my.cnf"),
    listen="10.0.0.1:7400",
    guarded=True,
    encrypting=True,
    certificates={"/m1.pem": 300, "/ca.pem": 3000},
    variables={"ssl_ca": "/ca.pem", "ssl_cert": "/m1.pem"},
    upstreams=(Upstream("10.0.0.2", 3306, "repl_m1", tls=True),),
)
PLAIN = replace(WHOLE, guarded=False, encrypting=False, certificates={}, variables={})
UNENCRYPTED = (Upstream("10.0.0.2", 3306, "repl_m1"),)


def test_a_member_that_encrypts_everything_is_right() -> None:
    assert [each.level for each in check_encryption(WHOLE)] == [Level.OK]


@pytest.mark.parametrize(
    ("change", "level", "text", "mend"),
    [
        ({"guarded": False}, Level.WARNING, "only a token keeps it", "holdfast certs issue"),
        (
            {"certificates": {"/m1.pem": -1, "/ca.pem": 9999}},
            Level.WRONG,
            "/m1.pem has expired",
            "renew it",
        ),
        ({"certificates": {"/m1.pem": 12}}, Level.WARNING, "expires in 12 days", "renew it"),
        ({"variables": {}}, Level.WRONG, "its server has no certificate", "into /my.cnf"),
        ({"upstreams": UNENCRYPTED}, Level.WARNING, "although server.tls", "member restart m1"),
        (
            {"lenient": frozenset({"repl_m2", "old"})},
            Level.WARNING,
            "old, repl_m2 may replicate without a certificate",
            "ALTER USER 'old'@'%' REQUIRE X509",
        ),
    ],
)
def test_each_fact_that_is_not_right_is_told_with_its_mend(
    change: dict[str, Any], level: Level, text: str, mend: str
) -> None:
    (found,) = check_encryption(replace(WHOLE, **change))
    assert (found.key, found.level) == ("tls", level)
    assert text in found.text
    assert mend in found.mend


def test_without_certificates_it_is_told_on_networks_alone() -> None:
    warned = list(check_encryption(replace(PLAIN, upstreams=UNENCRYPTED)))
    assert [each.level for each in warned] == [Level.WARNING, Level.WARNING]
    here = replace(PLAIN, listen="127.0.0.1:1", upstreams=(Upstream("127.0.0.1", 1, "r"),))
    assert list(check_encryption(here)) == []
    lenient = replace(here, lenient=frozenset({"r"}))
    assert list(check_encryption(lenient)) == [], "nobody has asked for certificates"
