"""Which URLs may be told: the operator's hosts in one plain form, and no other."""

from __future__ import annotations

import random
from urllib.parse import urlsplit

import pytest

from service.problems import ProblemError
from service.webhooks.urls import AllowedHosts, BadURL, Endpoint, HostRule

LIST = (
    "hooks.example.org",
    "*.lab.example",
    "other.example:8443",
    "http://plain.example",
    "http://[::1]:9000",
)
RECEIVERS = AllowedHosts(LIST)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://hooks.example.org/a?b=c", "https://hooks.example.org/a?b=c"),
        ("HTTPS://Hooks.Example.ORG:443", "https://hooks.example.org/"),
        ("https://hooks.example.org?x", "https://hooks.example.org/?x"),
        ("https://a.lab.example/", "https://a.lab.example/"),
        ("https://a.b.lab.example/", "https://a.b.lab.example/"),
        ("https://other.example:8443/", "https://other.example:8443/"),
        ("http://plain.example/%20", "http://plain.example/%20"),
        ("http://[0:0::1]:9000/x", "http://[::1]:9000/x"),
    ],
)
def test_allowed_hosts_in_their_plain_form(url: str, plain: str) -> None:
    assert RECEIVERS.check(url) == plain
    assert RECEIVERS.check(plain) == plain


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "x",
            "hooks.example.org",
            "//hooks.example.org",
            "ftp://hooks.example.org/",
            "https://",
            "https:///a",
        ),
        *("http://hooks.example.org/", "https://plain.example/", "https://hooks.example.org:8443/"),
        *("https://hooks.example.org:0/", "https://hooks.example.org:65536/", "https://hooks.example.org:/"),
        *("https://hooks.example.org:+443/", "https://hooks.example.org:443:443/"),
        *(
            "https://lab.example/",
            "https://xlab.example/",
            "https://.lab.example/",
            "https://a..lab.example/",
        ),
        *("https://lab.example.evil.org/", "https://hooks.example.org.evil.org/"),
        *("https://hooks.example.org./", "https://a.lab.example./"),
        *(
            "https://u@hooks.example.org/",
            "https://u:p@hooks.example.org/",
            "https://evil.org@hooks.example.org",
        ),
        *("https://hooks.example.org@evil.org/", "https://evil.org#@hooks.example.org/"),
        *("https://evil.org\\@hooks.example.org/", "https://hooks.example.org\\.evil.org/"),
        *("https://hooks.example.org/#a", "https://hooks.example.org/a b", "https://hooks.example.org/\n"),
        *("https://hooks.example.org\t/", " https://hooks.example.org/", "https://hooks.exa\nmple.org/"),
        *(
            "https://hooks.example.org/\r\nX: y",
            "https://hooks.example.org/\x00",
            'https://hooks.example.org/"',
        ),
        *("https://hööks.example.org/", "https://ｈooks.example.org/", "https://hooks。example。org/"),
        *("https://hooks%2eexample.org/", "https://hooks.example.org%00.evil.org/"),
        *(
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://127.0.0.1/",
        ),
        *("https://0x7f.0.0.1/", "https://a.0x7f/", "https://a.lab.example.1/", "http://[::1%25eth0]:9000/"),
        *(
            "http://[::1%eth0]:9000/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]:9000/",
            "http://[::1]x:9000/",
        ),
        "https://hooks.example.org/" + "a" * 2000,
    ],
)
def test_all_else_is_refused_with_the_valid_hosts(url: str) -> None:
    with pytest.raises(ProblemError) as refused:
        RECEIVERS.check(url)
    assert (refused.value.code, refused.value.status) == ("webhook_refused", 422)
    (field_error,) = refused.value.field_errors
    assert field_error.location == ["body", "webhook"]
    assert field_error.choices == list(LIST)
    assert len(refused.value.detail) < 600


def test_whatever_is_taken_leads_to_an_allowed_host() -> None:
    """Random URLs of pieces that are known to confuse; the standard library reads the host the same."""
    draw = random.Random(0)
    pieces = [
        *(
            "https://",
            "http://",
            "//",
            "/",
            "\\",
            "@",
            ":",
            "#",
            "?",
            ".",
            "..",
            "%2e",
            "%00",
            "\t",
            " ",
            "[",
            "]",
        ),
        *("hooks.example.org", "lab.example", "a.lab.example", "evil.org", "127.0.0.1", "::1", "443", "8443"),
        *("other.example", "plain.example", "xn--a", "ß", "HOOKS.example.ORG", "0", "a", "-", "_", ";", "&"),
    ]
    allowed = ("hooks.example.org", ".lab.example", "other.example", "plain.example", "::1")
    taken = 0
    for _ in range(20_000):
        url = draw.choice(["https://", "http://", ""]) + "".join(
            draw.choice(pieces) for _ in range(draw.randint(1, 6))
        )
        try:
            place = RECEIVERS.place(url)
        except BadURL:
            continue
        taken += 1
        host = urlsplit(url).hostname
        assert host == place.host
        assert host in allowed or host.endswith(allowed[1])
        assert urlsplit(str(place)).hostname == host
    assert taken > 100


def test_without_a_list_nothing_may_be_told() -> None:
    with pytest.raises(ProblemError, match="operator allows no host") as refused:
        AllowedHosts(()).check("https://hooks.example.org/")
    assert refused.value.field_errors[0].choices is None
    assert AllowedHosts(()).check(None) is None


@pytest.mark.parametrize(
    "entry",
    ["*", "*.1", "*.127.0.0.1", "a.example/x", "a b", "ftp://a.example", "u@a.example", "a.example:0", ""],
)
def test_entries_that_mean_nothing_are_refused(entry: str) -> None:
    with pytest.raises(BadURL):
        AllowedHosts((entry,))


def test_a_place_says_its_port_only_where_it_is_not_the_usual_one() -> None:
    assert Endpoint.of("http://a.example:80/").netloc == "a.example"
    assert Endpoint.of("http://a.example:443/").netloc == "a.example:443"
    assert HostRule.of("a.example").place == Endpoint("https", "a.example", 443)
