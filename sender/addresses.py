"""Which addresses may be connected to: public ones, and what the administrator allows. Pure."""

import ipaddress
from collections.abc import Iterable
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: No public address is in one of these (IANA's registries of special addresses, RFC 6890), but some hold other machines
#: of the same network, or what a cloud tells its machines.
_NOT_PUBLIC_V4: Final = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8",           # this network
    "10.0.0.0/8",          # private
    "100.64.0.0/10",       # shared, behind a provider's NAT; some clouds' metadata
    "127.0.0.0/8",         # loopback
    "168.63.129.16/32",    # what a cloud (Azure) tells its machines
    "169.254.0.0/16",      # link-local; metadata
    "172.16.0.0/12",       # private
    "192.0.0.0/24",        # protocol assignments
    "192.0.2.0/24",        # documentation
    "192.88.99.0/24",      # 6to4 relays
    "192.168.0.0/16",      # private
    "198.18.0.0/15",       # benchmarks
    "198.51.100.0/24",     # documentation
    "203.0.113.0/24",      # documentation
    "224.0.0.0/4",         # multicast
    "240.0.0.0/4",         # reserved; broadcast
)))
#: All that is public in IPv6 is in here. So neither unspecified, loopback, IPv4-mapped (::ffff:0:0/96), NAT64
#: (64:ff9b::/96, 64:ff9b:1::/48), unique local, link-local, site-local nor multicast addresses are.
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(map(ipaddress.IPv6Network, (
    "2001::/23",           # protocol assignments, Teredo and ORCHID among them
    "2001:db8::/32",       # documentation
    "2002::/16",           # 6to4: an IPv4 address inside
    "3fff::/20",           # documentation
)))
#: The third quarter of an address in which ISATAP puts an IPv4 address, whatever its network.
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def is_public(address: Address) -> bool:
    """True when the address is one of the open Internet, and leads to no other kind by a transition mechanism."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return (address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
            and int(address) >> 32 & 0xFFFFFFFF not in _ISATAP)


def may_connect(text: str, allow: Iterable[str]) -> bool:
    """True when this address may be connected to: a public one, or one in a network of `allow`."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    plain = address
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        # A zone makes no address another one.
        plain = ipaddress.IPv6Address(int(address))
    return is_public(plain) or any(plain in ipaddress.ip_network(network) for network in allow)
