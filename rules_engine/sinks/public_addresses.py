"""Tell public addresses from those of this machine and of private networks, and give out public ones only.

A webhook's address may come from a variable, and a name may lead anywhere: to this machine, to a neighbour without a
password, or to the address 169.254.169.254 where clouds give out credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import unicodedata
from collections.abc import Collection

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: IPv4 addresses behind a translator (RFC 6052) are written into the last 32 bits; behind a local one (RFC 8215) that
#: may be anything.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_TRANSLATED_LOCALLY = ipaddress.ip_network("64:ff9b:1::/48")


class PrivateAddressError(Exception):
    """Raised for a host that has no public address; the message says nothing about its addresses."""


def literal_address(host: str) -> Address | None:
    """Return the address that a host spells out, in any of the spellings that resolvers take; None for a name.

    >>> literal_address("0x7f.1"), literal_address("2130706433"), literal_address("crm.example")
    (IPv4Address('127.0.0.1'), IPv4Address('127.0.0.1'), None)
    """
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    try:
        # Also octal, hexadecimal, and fewer than four parts.
        return ipaddress.IPv4Address(socket.inet_aton(host.removesuffix(".")))
    except (OSError, UnicodeEncodeError):
        return None


def is_public(address: Address) -> bool:
    """Return whether an address may be reached from everywhere, also where it wraps another one.

    >>> [is_public(ipaddress.ip_address(text)) for text in ("93.184.215.14", "::ffff:127.0.0.1", "169.254.169.254")]
    [True, False, False]
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED or (int(address) >> 32 == 0 and int(address) > 1):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address in _TRANSLATED_LOCALLY:
            return False
    return address.is_global and not address.is_multicast


def normal_host(host: str) -> str:
    """Return a host in the form in which it is compared.

    >>> normal_host("CRM.Example."), normal_host("[::1]")
    ('crm.example', '::1')
    """
    return host.strip("[]").removesuffix(".").lower()


def is_private_host(host: str) -> bool:
    """Return whether a host is known to be private without looking it up.

    >>> [is_private_host(host) for host in ("localhost", "0x7f.1", "crm.example")]
    [True, True, False]
    """
    name = normal_host(unicodedata.normalize("NFKC", host))
    address = literal_address(name)
    return not is_public(address) if address is not None else name == "localhost" or name.endswith(".localhost")


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Return whether the project allows a host by its name, wherever the name leads."""
    return normal_host(host) in {normal_host(name) for name in allowed}


async def addresses_of(host: str, port: int, allowed: Collection[str]) -> list[str]:
    """Look a host up, and return those of its addresses that may be connected to, in the resolver's order.

    Connect to one of these addresses and not to the name, which may lead elsewhere when it is looked up again.

    Raises
    ------
    OSError
        if the name cannot be looked up.
    PrivateAddressError
        if none of its addresses is public, and the host is not allowed.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    if is_allowed(host, allowed):
        return addresses
    public = [text for text in addresses if is_public(ipaddress.ip_address(text.partition("%")[0]))]
    if not public:
        raise PrivateAddressError
    return public
