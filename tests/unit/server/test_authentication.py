"""Authentication strings are those that the servers make themselves, and nothing else becomes part of a statement."""

from __future__ import annotations

import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.server.authentication import (
    authentication_string,
    check_authentication,
    sha256_crypt,
)


@pytest.mark.parametrize(
    ("password", "salt", "digest"),
    [
        ("Hello world!", "saltstring", "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        (
            "This is just a test",
            "toolongsaltstrin",
            "Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5",
        ),
    ],
)
def test_sha256_crypt_as_openssl_has_it(password: str, salt: str, digest: str) -> None:
    assert sha256_crypt(password.encode(), salt.encode()) == digest


def test_mariadbs_is_what_its_password_function_gives() -> None:
    text = authentication_string(Flavor.MARIADB, "password")
    assert text == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"


def test_mysqls_has_a_new_salt_each_time() -> None:
    first, second = (authentication_string(Flavor.MYSQL, "x") for _ in range(2))
    assert first != second
    assert first[:7] == "$A$005$"
    assert len(first) == 7 + 20 + 43


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("text", ["", "*x", "' OR 1", "$A$005$" + "'" * 63, "*" + "A" * 41])
def test_anything_else_is_refused(flavor: Flavor, text: str) -> None:
    check_authentication(flavor, authentication_string(flavor, "x"))
    with pytest.raises(BadInput):
        check_authentication(flavor, text)
