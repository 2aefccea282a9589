"""TLS between managers, agents and people: each shows a certificate of one CA, and asks for one.

Renewed files are taken without a restart: connections that are made from then on use them, those that exist go on.
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
