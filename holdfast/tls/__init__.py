"""TLS between managers, agents and operators: each shows a certificate of one CA, and requires one.

Renewed files take effect without a restart: later connections use them, existing ones continue.
"""

from holdfast.tls.certificates import Certificates, Credentials
from holdfast.tls.contexts import Files, Needed, contexts, days_left
from holdfast.tls.peer import peer, peer_name
from holdfast.tls.trouble import explain, refused_certificate

__all__ = [
    "Certificates",
    "Credentials",
    "Files",
    "Needed",
    "contexts",
    "days_left",
    "explain",
    "peer",
    "peer_name",
    "refused_certificate",
]
