"""Signatures that OpenSSH alone can check: the format of ``ssh-keygen -Y sign``, and who may sign.

Sources: PROTOCOL.sshsig of OpenSSH for a signature; RFC 4253, 5656, 8332 and 8709 for keys and algorithms;
PROTOCOL.u2f for hardware keys; ALLOWED SIGNERS in ssh-keygen(1) and PATTERNS in ssh_config(5) for the list
of signers. Where they leave room this package is strict: one spelling of base64 and of every number, and
nothing behind the last field. Certificates are not supported, and a time without a zone is UTC.
"""

from __future__ import annotations

from llmops.signing._allowed import AllowedSigners, Signer, Verified
from llmops.signing._key import SigningKey

__all__ = ["AllowedSigners", "Signer", "SigningKey", "Verified"]
