"""Where results are fetched from: exactly the addresses that the owner allows, however another one is written."""

import pytest

from generation.providers import http

HOSTS = [".allowed.invalid", "exact.invalid"]
LIMITS = http.Limits(connect=1, read=1, whole=2)
GOOD = [
    "https://allowed.invalid/a.png",
    "https://cdn.allowed.invalid/a/b-c_d~e.png?token=A%2Fb%3d&x=1,2;3",
    "https://cdn.allowed.invalid:443/a.png",
    "https://exact.invalid",
    "https://a.b.c.allowed.invalid/?x=@:",
]
BAD = [
    "https://evil.test\\.allowed.invalid/",
    "https://evil.test\\@allowed.invalid/",
    "https:\\\\allowed.invalid/",
    "https:/allowed.invalid/",
    "https:///allowed.invalid/",
    "//allowed.invalid/",
    "allowed.invalid/a",
    "http://allowed.invalid/",
    "ftp://allowed.invalid/",
    "file:///etc/passwd",
    "HTTPS://allowed.invalid/",
    "https://ALLOWED.invalid/",
    "https://evil.test/.allowed.invalid",
    "https://evil.test?.allowed.invalid/",
    "https://evil.test#.allowed.invalid/",
    "https://evil.test#@allowed.invalid/",
    "https://evil.test;.allowed.invalid/",
    "https://notallowed.invalid/",
    "https://allowed.invalid.evil.test/",
    "https://xexact.invalid/",
    "https://a.exact.invalid.evil.test/",
    "https://user@allowed.invalid/",
    "https://user:pass@allowed.invalid/",
    "https://@allowed.invalid/",
    "https://:@allowed.invalid/",
    "https://allowed.invalid@evil.test/",
    "https://allowed.invalid:443@evil.test/",
    "https://allowed.invalid:80/",
    "https://allowed.invalid:8443/",
    "https://allowed.invalid:/",
    "https://allowed.invalid:0443/",
    "https://allowed.invalid:443:443/",
    "https://allowed.invalid:99999/",
    "https://allowed.invalid:+443/",
    "https://allowed.invalid:4\u0664 3/",
    "https://allowed.invalid./",
    "https://allowed..invalid/",
    "https://.allowed.invalid/",
    "https://-.allowed.invalid/",
    "https://a%2eallowed.invalid/",
    "https://evil.test%2f.allowed.invalid/",
    "https://evil.test%00.allowed.invalid/",
    "https://evil.test%23.allowed.invalid/",
    "https://a_b.allowed.invalid/",
    "https://evil\u3002test.allowed.invalid/",
    "https://\uff41.allowed.invalid/",
    "https://allowed\u3002invalid/",
    "https://allowed.inval\u0131d/",
    "https://evil.test\uff0f.allowed.invalid/",
    "https://evil.test\u2044.allowed.invalid/",
    "https://\u212allowed.invalid/",
    "https://a\u200b.allowed.invalid/",
    "https://allowed.invalid\t/",
    "https://allowed.invalid\n/",
    "https://allowed.invalid/\r\nHost: evil.test",
    "https://allowed.invalid/ x",
    " https://allowed.invalid/",
    "https://allowed.invalid/\x00",
    "https://allowed.invalid/\x7f",
    "https://allowed.invalid/a/../../b",
    "https://allowed.invalid/a\\b",
    "https://allowed.invalid/\u00e9",
    "https://127.0.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://[::1].allowed.invalid/",
    "https://[x",
    "https://",
    "",
    "https://" + "a." * 200 + "allowed.invalid\\/",
]


@pytest.mark.parametrize("url", GOOD)
def test_address_that_is_allowed_is_asked_for(url):
    with pytest.raises(http.CallFailed):  # nobody has such a name
        http.fetch_public(url, hosts=HOSTS, limits=LIMITS)


@pytest.mark.parametrize("url", BAD)
def test_address_of_another_form_or_host_is_blocked(url):
    with pytest.raises(http.AddressBlocked):
        http.fetch_public(url, hosts=HOSTS, limits=LIMITS)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://0x7f.1/", "https://2130706433/", "https://[::1]/"])
def test_address_without_a_name_is_blocked_even_where_it_is_on_the_list(url):
    with pytest.raises(http.AddressBlocked):
        http.fetch_public(url, hosts=["127.0.0.1", "0x7f.1", "2130706433", "[::1]", "::1", ""], limits=LIMITS)
