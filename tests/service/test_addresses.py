"""Addresses that may be reached: public ones, in whatever form they come."""

from __future__ import annotations

import pytest

from service.addresses import may_reach, networks


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"),
        "2002:808:808::1",
    ],
)
def test_public(address: str) -> None:
    assert may_reach(address, ())


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
        ),
        *(
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
        ),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
        *("2001::1", "2606:4700::1%1", "100::1", "", "localhost", "127.1", "8.8.8.8.8"),
    ],
)
def test_not_public(address: str) -> None:
    assert not may_reach(address, ())


def test_networks_that_the_operator_names_and_no_more() -> None:
    own = networks(["10.1.0.0/16", "fd00::/8", "127.0.0.1/32"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::7", "127.0.0.1", "8.8.8.8"):
        assert may_reach(address, own)
    for address in ("10.2.0.1", "fc00::1", "127.0.0.2", "::1"):
        assert not may_reach(address, own)
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.1.2.3/8"])
