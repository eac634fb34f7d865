"""Which addresses are of the public internet."""

from __future__ import annotations

import pytest

from framefleet.pipeline.guards.hosts import is_public

PUBLIC = ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
OTHERS = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),  # metadata
    *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::127.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    *("", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "8.8.8.8 "),
)


@pytest.mark.parametrize("address", [*PUBLIC, *OTHERS])
def test_addresses_of_the_internet_are_public_and_no_others(address: str) -> None:
    assert is_public(address) == (address in PUBLIC)
