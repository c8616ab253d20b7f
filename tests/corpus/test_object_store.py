"""Object stores as sources: a real S3 protocol on loopback, and what goes wrong on the way."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.bucket import Bucket, failing, forward, listed, store
from corpus.conftest import day
from llmops.corpus import ObjectStoreSource, _object_store, _s3
from llmops.corpus._problems import Unreadable
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from support.http import FakeService


def test_objects_below_the_prefix_are_documents_in_order(bucket: Bucket) -> None:
    bucket.put(docs__b_md="B", docs__a__z_md="Z", docs__a__n_txt="N", docs2__x_md="other", docs__c_md="")
    bucket.put_at("docs/.hidden/x.md", "hidden")
    bucket.put_at("docs/folder/", "")
    bucket.put_at("docs/ünï & ?versionId=1.md", "odd name")
    assert listed(store(bucket, include=["**/*.md"])) == {
        "a/z.md": "Z",
        "b.md": "B",
        "c.md": "",
        "ünï & ?versionId=1.md": "odd name",
    }
    assert list(listed(store(bucket, exclude=["a/**"], include=["**/*_txt", "*.md"]))) == [
        "b.md",
        "c.md",
        "ünï & ?versionId=1.md",
    ]


def test_the_entity_tag_is_the_revision_and_follows_the_content(bucket: Bucket) -> None:
    bucket.put(docs__a_md="one", docs__b_md="same")
    before = {f.path: f.revision for f in store(bucket).discover(day(9))}
    bucket.put(docs__a_md="two", docs__b_md="same")
    after = {f.path: f.revision for f in store(bucket).discover(day(9))}
    assert all(before.values())
    assert before["a.md"] != after["a.md"]
    assert before["b.md"] == after["b.md"]


def test_a_listing_is_read_page_by_page_and_only_as_far_as_it_is_iterated(bucket: Bucket) -> None:
    for number in range(5):
        bucket.put_at(f"docs/{number}.md", str(number))

    def small_pages(request: FakeService) -> bool:
        if "list-type=2" in request.path and "max-keys" not in request.path:
            request.path += "&max-keys=2"
        return False

    bucket.fault = small_pages
    files = iter(store(bucket).discover(day(9)))
    assert next(files).path == "0.md"
    assert sum("list-type" in line for line in bucket.requests) == 1
    assert [f.path for f in files] == ["1.md", "2.md", "3.md", "4.md"]
    assert sum("list-type" in line for line in bucket.requests) == 3


def test_a_listing_that_breaks_in_the_middle_is_an_error_and_not_the_end(bucket: Bucket) -> None:
    for number in range(4):
        bucket.put_at(f"docs/{number}.md", str(number))

    def second_page_fails(request: FakeService) -> bool:
        if "list-type=2" in request.path and "max-keys" not in request.path:
            request.path += "&max-keys=2"
        return failing(500, "InternalError", "continuation-token")(request)

    bucket.fault = second_page_fails
    with pytest.raises(ServiceUnavailable, match="cannot be read now") as caught:
        listed(store(bucket))
    assert "Nothing was taken from it" in str(caught.value)


def test_a_listing_that_promises_more_and_does_not_say_where_is_an_error(bucket: Bucket) -> None:
    def endless(request: FakeService) -> bool:
        request.reply(
            200,
            b"<?xml version='1.0'?><ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>docs/a.md</Key>"
            b"<Size>1</Size></Contents><NextContinuationToken>same</NextContinuationToken></ListBucketResult>",
        )
        return True

    bucket.fault = endless
    with pytest.raises(ServiceUnavailable, match="does not say where"):
        [f.path for f in store(bucket).discover(day(9))]


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown")])
def test_one_error_of_the_server_is_retried_and_many_are_unavailable(
    bucket: Bucket, status: int, code: str
) -> None:
    bucket.put(docs__a_md="A")
    bucket.fault = failing(status, code, times=1)
    assert listed(store(bucket)) == {"a.md": "A"}
    bucket.fault = failing(status, code, "a.md")
    with pytest.raises(ServiceUnavailable):
        listed(store(bucket))


def test_a_body_that_is_cut_off_is_read_again_and_never_taken_for_whole(bucket: Bucket) -> None:
    bucket.put(docs__a_md="x" * 1000)
    cuts = [1]

    def cut(request: FakeService) -> bool:
        if "a.md" not in request.path or not cuts[0]:
            return False
        cuts[0] -= 1
        forward(request, bucket.endpoint, cut=100)
        return True

    bucket.fault = cut
    assert listed(store(bucket)) == {"a.md": "x" * 1000}
    assert cuts == [0]
    cuts[0] = 100
    with pytest.raises(ServiceUnavailable):
        listed(store(bucket))


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (403, "ExpiredToken")])
def test_a_refusal_says_what_to_give_and_never_looks_like_a_deleted_object(
    bucket: Bucket, status: int, code: str
) -> None:
    bucket.put(docs__a_md="A")
    for where in ("list-type", "a.md"):
        bucket.fault = failing(status, code, where)
        with pytest.raises(ConfigurationError, match="the right to list and to read"):
            listed(store(bucket))


def test_no_credentials_are_a_refusal(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(ConfigurationError, match="Unable to locate credentials"):
        listed(store(bucket))


def test_a_bucket_or_prefix_that_is_not_there_is_missing_rather_than_empty(bucket: Bucket) -> None:
    bucket.put(docs__a_md="A")
    with pytest.raises(MissingInput, match="not one object"):
        listed(store(bucket, "dcos"))
    source = store(bucket).model_copy(update={"url": "s3://no-such-bucket-here/docs"})
    with pytest.raises(MissingInput, match="nothing is at 's3://no-such-bucket-here/docs'"):
        listed(source)


def test_nobody_at_the_endpoint_is_unavailable(bucket: Bucket) -> None:
    source = store(bucket).model_copy(update={"storage_options": {"endpoint_url": "http://127.0.0.1:1"}})
    with pytest.raises(ServiceUnavailable):
        listed(source)


def test_an_object_that_goes_between_listing_and_reading_is_quarantined(bucket: Bucket) -> None:
    bucket.put(docs__a_md="A")
    file = next(iter(store(bucket).discover(day(9))))
    bucket.remove("docs/a.md")
    with pytest.raises(Unreadable, match="was removed while"):
        file.read()


def test_an_object_that_changes_between_listing_and_reading_is_not_read_under_its_old_tag(
    bucket: Bucket,
) -> None:
    bucket.put(docs__a_md="A")
    file = next(iter(store(bucket).discover(day(9))))
    bucket.put(docs__a_md="B")
    with pytest.raises(ServiceUnavailable, match="changed while"):
        file.read()


def test_an_object_above_the_limit_is_never_read_whole(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(docs__a_md="x" * 100, docs__b_md="x")
    monkeypatch.setattr(_object_store, "MAX_BYTES", 50)
    assert "100 bytes, more than the 50" in listed(store(bucket))["a.md"]
    assert listed(store(bucket))["b.md"] == "x"
    monkeypatch.undo()
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(_s3, "MAX_BYTES", 50)
    file = next(iter(store(bucket).discover(day(9))))
    with pytest.raises(Unreadable, match="more than the 50") as caught:
        file.read()
    assert caught.value.problem == "too_large"


def test_an_archived_object_is_quarantined_with_what_to_do(bucket: Bucket) -> None:
    bucket.put_at("docs/a.md", "A", StorageClass="GLACIER")
    assert listed(store(bucket)) == {"a.md": "it is archived (GLACIER): restore it, or exclude it"}


def test_a_name_with_control_characters_is_quarantined(bucket: Bucket) -> None:
    bucket.put_at("docs/a\tb.md", "A")
    assert listed(store(bucket)) == {"a\\tb.md": "its name holds control characters: rename it"}


def test_dated_folders_replay_history_and_the_marker_keeps_half_a_delivery_out(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put_at("docs/2024-01-01/a.md", "one")
    bucket.put_at("docs/2024-01-03/a.md", "three")
    bucket.put_at("docs/2024-01-03/b.md", "new")
    bucket.put_at("docs/2024-1-5/a.md", "no date")
    bucket.put_at("docs/2024-13-01/a.md", "no date")
    source = store(bucket, layout="dated")
    with caplog.at_level(logging.WARNING):
        assert listed(source, 2) == {"a.md": "one"}
    assert [r.getMessage() for r in caplog.records if "no dates" in r.getMessage()] == [
        f"Source s: 2 folders in '{source.url}' are left alone, as their names are no dates (YYYY-MM-DD): "
        "['2024-1-5', '2024-13-01']"
    ]
    assert listed(source, 3) == {"a.md": "one"}
    assert listed(source, 4) == {"a.md": "three", "b.md": "new"}
    snapshot = source.discover(day(4))
    assert (snapshot.date, snapshot.dated) == (day(3), True)
    assert source.pinned(day(4)) == "2024-01-03"
    with pytest.raises(MissingInput, match="no folder of a date before 2023"):
        source.discover(day(1).replace(year=2023))
    marked = store(bucket, layout="dated", complete_marker="_SUCCESS")
    with pytest.raises(MissingInput, match="that holds '_SUCCESS'"):
        marked.discover(day(9))
    bucket.put_at("docs/2024-01-01/_SUCCESS", "")
    assert listed(marked, 9) == {"a.md": "one"}


def test_a_pinned_folder_stays_although_a_newer_one_arrives(bucket: Bucket) -> None:
    bucket.put_at("docs/2024-01-01/a.md", "one")
    source = store(bucket, layout="dated")
    pin = source.pinned(day(9))
    bucket.put_at("docs/2024-01-03/a.md", "three")
    assert [f.read() for f in source.discover(day(9), pin=pin)] == [b"one"]
    with pytest.raises(MissingInput, match="no folder '2024-01-02'"):
        source.discover(day(9), pin="2024-01-02")


def test_a_marker_that_cannot_be_asked_for_is_no_answer(bucket: Bucket) -> None:
    bucket.put_at("docs/2024-01-01/_SUCCESS", "")
    bucket.put_at("docs/2024-01-03/_SUCCESS", "")
    bucket.fault = failing(500, "InternalError", "2024-01-03/_SUCCESS")
    with pytest.raises(ServiceUnavailable):
        store(bucket, layout="dated", complete_marker="_SUCCESS").discover(day(9))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"url": "file:///etc"}, "kind 'directory'"),
        ({"url": "http://host/x"}, "must be s3://"),
        ({"url": "s3://key:hunter2@bucket/x"}, "must not hold a user or a password"),
        ({"url": "s3://hunter2@bucket/x"}, "must not hold a user or a password"),
        ({"url": "abfss://c:hunter2@account.dfs.core.windows.net/x"}, "must not hold a user"),
        ({"url": "abfss://con@account.dfs.core.windows.net/x?sig=hunter2"}, "must not have a query"),
        ({"url": "/Volumes/a/b/../c"}, "must be s3://"),
        ({"url": "/Volumes/a/b"}, "must be s3://"),
        ({"storage_options": {"secret": "hunter2"}}, "look like secrets"),
        ({"storage_options": {"key": "hunter2"}}, "look like secrets"),
        ({"storage_options": {"account_key": "hunter2"}}, "look like secrets"),
        ({"storage_options": {"sas_token": "hunter2"}}, "look like secrets"),
        ({"storage_options": {"endpoint_url": "https://u:hunter2@host"}}, "must not hold a user"),
        ({"storage_options": {"regoin": "x"}}, "does not know: use"),
        ({"complete_marker": "_SUCCESS"}, "layout: dated"),
        ({"layout": "dated", "complete_marker": "../x"}, "complete_marker"),
    ],
)
def test_secrets_and_places_that_are_no_store_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        ObjectStoreSource.model_validate(
            {"kind": "object_store", "name": "s", "url": "s3://bucket", **values}
        )
    assert "hunter2" not in str(caught.value)
