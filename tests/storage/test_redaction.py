"""Passwords in URLs are seen, and taken out of texts."""

import pytest

from m3col.storage.redaction import has_password, quoted, redacted, scrubbed

SECRET = "h0rse-staple"

WITH = {
    f"http://ann:{SECRET}@tracking:5000": "http://***@tracking:5000",
    f"https://{SECRET}@tracking/x?y=1": "https://***@tracking/x?y=1",
    f"HTTPS://ann:{SECRET}@tracking": "HTTPS://***@tracking",
    f"postgresql+psycopg2://ann:{SECRET}@db:5432/optuna": "postgresql+psycopg2://ann:***@db:5432/optuna",
    f"postgresql://ann:a/{SECRET}?@db/optuna": "postgresql://ann:***@db/optuna",
    f"mysql://ann:at@{SECRET}@db/optuna": "mysql://ann:***@db/optuna",
    f"postgresql://:{SECRET}@db/optuna": "postgresql://:***@db/optuna",
    f"postgresql://ann@db/optuna?sslpassword={SECRET}&x=1": "postgresql://ann@db/optuna?sslpassword=***&x=1",
    f"s3://AKIA:{SECRET}@bucket/prefix": "s3://AKIA:***@bucket/prefix",
    f"s3://bucket/prefix?secret_key={SECRET}": "s3://bucket/prefix?secret_key=***",
    f"https://host/x?X-Amz-Signature={SECRET}": "https://host/x?X-Amz-Signature=***",
    f"https://host/x?a=1&sig={SECRET}": "https://host/x?a=1&sig=***",
    f"mssql+pyodbc:///?odbc_connect=UID%3Dann%3BPWD%3D{SECRET}&x=1": "mssql+pyodbc:///?odbc_connect=***&x=1",
    f"mssql+pyodbc:///?odbc_connect=PWD%253D{SECRET}": "mssql+pyodbc:///?odbc_connect=***",
    f"postgresql://db/optuna?%70assword={SECRET}": "postgresql://db/optuna?%70assword=***",
    f"my_db://ann:{SECRET}@db/optuna": "my_db://ann:***@db/optuna",
}
WITHOUT = [
    "http://tracking:5000", "http://[::1]:5000/a@b?mail=c@d", "postgresql://ann@db:5432/optuna", "sqlite:////tmp/a@b:c.db",
    "s3://bucket/a@b", "s3://bucket/prefix?endpoint_override=http://127.0.0.1:9000", "/mnt/runs", "none", "",
    "postgresql://db/optuna?passfile=/home/ann/.pgpass", "/mnt/my runs/a@b", "sqlite:////tmp/my dir/a@b:c.db",
]  # fmt: skip


@pytest.mark.parametrize(("url", "shown"), WITH.items())
def test_a_secret_in_a_url_is_seen_and_masked(url, shown):
    assert has_password(url)
    assert redacted(url) == shown
    assert not has_password("x") and SECRET not in redacted(f"cannot reach {url}: timed out, see {url}")
    assert redacted(shown) == shown


@pytest.mark.parametrize("url", WITHOUT)
def test_other_urls_stay_as_they_are(url):
    assert not has_password(url)
    assert redacted(url) == url


SPACED = {
    f"postgresql://ann:a {SECRET}@db/optuna": "postgresql://ann:***@db/optuna",
    f"https://ann:a {SECRET}@tracking": "https://***@tracking",
    f"postgresql://db/optuna?password=a {SECRET}&x=1": "postgresql://db/optuna?password=***&x=1",
}


@pytest.mark.parametrize(("url", "shown"), SPACED.items())
def test_a_password_may_hold_spaces_where_the_url_stands_alone(url, shown):
    assert has_password(url)
    assert redacted(url) == shown


def test_what_is_no_url_is_repeated_where_no_password_can_stand_in_it():
    assert quoted("nonsense") == "'nonsense'" and quoted("a@b/c:d") == "'a@b/c:d'"
    for text in (f"ann:{SECRET}@db/optuna", f"PWD={SECRET}"):
        assert SECRET not in quoted(text)


def test_a_text_loses_the_values_of_secret_variables(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a")  # too short to be looked for
    text = f"connection to db refused for a: password {SECRET!r}, http://u:{SECRET}@h"
    assert scrubbed(text) == "connection to db refused for a: password '***', http://***@h"
