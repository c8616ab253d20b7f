"""Addresses, links and sitemaps, whatever untrusted bytes they are made of."""

from __future__ import annotations

import gzip

import pytest

from llmops.corpus import _pages
from llmops.corpus._problems import Unreadable
from llmops.corpus._urls import Url


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP://EXAMPLE.com:80/a/%7Eb/../c%2fd", "http://example.com/a/c%2Fd"),
        ("https://example.com", "https://example.com/#x"),
        ("https://example.com/%61/%2e%2e/b", "https://example.com/b"),
        ("https://m\xfcnchen.example/\xfc?\xe4", "https://xn--mnchen-3ya.example/%c3%bc?%C3%A4"),
        ("https://example.com./a?", "https://example.com/a"),
    ],
)
def test_spellings_of_one_address_are_equal(one: str, other: str) -> None:
    assert Url.parse(one) == Url.parse(other)
    assert Url.parse(str(Url.parse(one))) == Url.parse(one)


def test_links_are_found_whatever_a_page_is_made_of() -> None:
    base = "https://e.example/d/"
    page = "<base href='/z/'><A HREF=' a\n'>x</a><area href='/\xfc?x=1#f'><a href='javascript:1'><a href='//h/x'><a>"
    wanted = ["https://e.example/z/a", "https://e.example/\xfc?x=1", "https://h/x"]
    assert _pages.links(page.encode(), base) == wanted
    assert _pages.links(b"", base) == _pages.links(b"\0\xff<<<", base) == []
    assert _pages.links(b"<div>" * 300_000 + b"<a href=x>", base) == ["https://e.example/d/x"]
    with pytest.raises(Unreadable, match="more than the"):
        _pages.links(b" " * 10_000_001, base)


@pytest.mark.parametrize(
    "content",
    [
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><urlset><url><loc>&a;</loc></url></urlset>",
        b"<?xml version='1.0'?><!DOCTYPE x SYSTEM 'file:///etc/passwd'><urlset/>",
        b"<html><body/></html>",
        b"<urlset><url><loc>http://a/",
        b"<?xml version='1.0' encoding='no-such'?><urlset/>",
        b"<urlset>" + b"<x>" * 100,
        b"<urlset>" + b"<url><loc>http://a/</loc></url>" * 50_001 + b"</urlset>",
        gzip.compress(b" " * 60_000_000),
        gzip.compress(b"<urlset/>")[:-9],
        b"just text",
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_what_is_no_sitemap_or_too_much_of_one_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable):
        _pages.sitemap(content)
