"""Asking a server for JSON: addresses and keys as people write them, bounded retries, and whose fault a refusal is.

It knows no API: callers say what an answer must hold, and read it.
"""

from trimtab.endpoints.address import Address, address, clean_key, key_from, mask
from trimtab.endpoints.connection import Connection, Reply
from trimtab.endpoints.faults import Fault, Trouble, error_in
from trimtab.endpoints.rows import error_check, in_order

__all__ = [
    "Address", "Connection", "Fault", "Reply", "Trouble", "address", "clean_key", "error_check", "error_in", "in_order",
    "key_from", "mask",
]  # fmt: skip
