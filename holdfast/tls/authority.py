"""A small certificate authority in a folder: for clusters whose operators have no other PKI, and for tests."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.core.answers.access import EVERY_CLUSTER, AccessRole, holder, statements
from holdfast.errors import BadInput, Refused

CA_DAYS = 3650
DAYS = 825
"""The most that some TLS libraries accept of a server's certificate."""
CLOCK_SKEW = datetime.timedelta(minutes=10)
"""Certificates become valid so much earlier: clocks of hosts differ."""

CA_SUFFIX = " Holdfast CA"
UNNAMED = "holdfast"
"""In the name of a CA for every cluster."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The content of a certificate.

    :ivar name: its common name; :ivar hosts: names and addresses that it is valid for
    :ivar roles, clusters: what its holder is, and of which clusters
    :ivar ends: until when, in UTC
    """

    path: Path
    name: str
    issuer: str
    hosts: tuple[str, ...]
    begins: datetime.datetime
    ends: datetime.datetime
    authority: bool
    roles: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()

    @property
    def days_left(self) -> int:
        """Whole days; negative once it has expired."""
        return (self.ends - datetime.datetime.now(datetime.UTC)).days


def ca_cert(folder: Path) -> Path:
    return folder / "ca.pem"


def ca_key(folder: Path) -> Path:
    return folder / "ca.key"


def make_ca(folder: Path, cluster: str = "", force: bool = False) -> CertificateFacts:
    """Make a new CA: ``ca.pem`` and ``ca.key`` in ``folder``, which is created.

    :param cluster: the default cluster of certificates that :func:`issue` makes; "" for every one
    :raises Refused: there is one, and not ``force``: what it has signed would be void
    """
    if cluster:
        _check_name(cluster, "--cluster")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"cannot make {folder}: {error.strerror}") from error
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(f"{cluster or UNNAMED}{CA_SUFFIX}")
    public = key.public_key()
    certificate = (
        _builder(subject, subject, public, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(ca_cert(folder), certificate, ca_key(folder), key, force)
    return describe(ca_cert(folder))


def issue(
    folder: Path,
    name: str,
    hosts: Sequence[str] = (),
    days: int = DAYS,
    force: bool = False,
    roles: Sequence[AccessRole] = (),
    clusters: Sequence[str] = (),
) -> CertificateFacts:
    """Make a certificate of the CA in ``folder`` for an agent, a manager or an operator: ``NAME.pem`` and ``NAME.key``.

    It is valid as a server's and as a client's; about 2 ms.

    :param hosts: names and addresses beside ``name`` under which it is reached
    :param roles: what its holder is; :param clusters: of which clusters; none for that of the CA
    :raises BadInput: naming the option; :raises Refused: there is one, and not ``force``
    """
    _check_name(name, "NAME")
    if name == "ca":
        raise BadInput("NAME", "ca is the authority itself: choose another name")
    if not 1 <= days <= CA_DAYS:
        raise BadInput("--days", f"must be from 1 to {CA_DAYS}")
    ca, ca_private = _load_ca(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    for each in clusters:
        if each != EVERY_CLUSTER:
            _check_name(each, "--cluster")
    says = statements(roles, clusters or (_cluster_of(ca),)) if roles else ()
    names = [
        *(_general_name(host) for host in dict.fromkeys((name, *hosts))),
        *(x509.UniformResourceIdentifier(each) for each in says),
    ]
    certificate = (
        _builder(_named(name), ca.subject, public, days, ca.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_private.public_key()),
            critical=False,
        )
        .sign(ca_private, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    _write_pair(path, certificate, folder / f"{name}.key", key, force)
    return describe(path)


def describe(path: Path) -> CertificateFacts:
    """The first certificate of a PEM file.

    :raises BadInput: naming the file
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise BadInput(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadInput(str(path), "holds no certificate in PEM") from None
    hosts: tuple[str, ...] = ()
    uris: list[str] = []
    authority = False
    with contextlib.suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [str(each.value) for each in found if _is_uri(each)]
        hosts = tuple(str(each.value) for each in found if not _is_uri(each))
    with contextlib.suppress(x509.ExtensionNotFound):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        authority = constraints.value.ca
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    says = holder("", (*uris, *(str(each.value) for each in units)))
    return CertificateFacts(
        path,
        _common_name(certificate.subject),
        _common_name(certificate.issuer),
        hosts,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        authority,
        tuple(sorted(says.roles)),
        tuple(sorted(says.clusters)),
    )


def _load_ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    for path in (ca_cert(folder), ca_key(folder)):
        if not path.exists():
            raise Refused(f"there is no {path}: make a CA with holdfast certs init --dir {folder}")
    try:
        ca = x509.load_pem_x509_certificate(ca_cert(folder).read_bytes())
        key = serialization.load_pem_private_key(ca_key(folder).read_bytes(), None)
    except OSError as error:
        raise Refused(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise Refused(f"the CA in {folder} cannot be used: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused(f"{ca_key(folder)} is not a key that holdfast certs init has made")
    if key.public_key() != ca.public_key():
        raise Refused(f"{ca_key(folder)} is not the key of {ca_cert(folder)}")
    if ca.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise Refused(f"{ca_cert(folder)} has expired: make another CA, and issue all anew")
    return ca, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    days: int,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(ends, latest) if latest else ends)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9_*]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", host):
        raise BadInput("--host", f"{host!r} is neither a host's name nor an address")
    return x509.DNSName(host)


def _is_uri(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.UniformResourceIdentifier)


def _cluster_of(ca: x509.Certificate) -> str:
    """The cluster that its certificates are for, by its name."""
    name = _common_name(ca.subject).removesuffix(CA_SUFFIX)
    return EVERY_CLUSTER if name == UNNAMED else name


def _check_name(name: str, option: str) -> None:
    if not NAME.fullmatch(name):
        raise BadInput(option, f"{name!r} must be letters, digits, dots, - or _")


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _write_pair(
    cert_path: Path,
    certificate: x509.Certificate,
    key_path: Path,
    key: ec.EllipticCurvePrivateKey,
    force: bool,
) -> None:
    if not force and (there := [path for path in (cert_path, key_path) if path.exists()]):
        raise Refused(f"{there[0]} is there already: nothing was written (--force replaces it)")
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        _write(key_path, secret, 0o600)
        _write(cert_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise Refused(f"cannot write {error.filename}: {error.strerror}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write all or nothing; no other user can read a key, not even its first byte."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
