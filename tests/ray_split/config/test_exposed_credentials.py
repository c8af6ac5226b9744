"""Credentials in a job's flags are refused, in a line that does not show them."""

from __future__ import annotations

import pytest

from jobs import submit
from ray_split import cli
from ray_split.config.exposed_credentials import has_credentials

WITH = ["s3://KEY:SECRET@bucket/runs", "s3://KEY:SEC/RET@bucket", "s3://bucket/runs?access_key=KEY&secret_key=SECRET",
        "{path: 's3://KEY:SECRET@bucket'}"]  # fmt: skip
WITHOUT = ["s3://bucket/runs", "s3://bucket?endpoint_override=localhost:9000&scheme=http", "http://host:8080/a@b/c",
           "abfs://container@account.dfs.core.windows.net/runs", "/a:b@c", "package.module:function"]  # fmt: skip


@pytest.mark.parametrize("text", WITH)
def test_a_uri_with_a_password_or_a_key_has_credentials(text: str) -> None:
    assert has_credentials(text) and has_credentials(f"--run.storage_path={text}")


@pytest.mark.parametrize("text", WITHOUT)
def test_other_uris_have_none(text: str) -> None:
    assert not has_credentials(text) and not has_credentials(f"--run.storage_path={text}")


@pytest.mark.parametrize("flags", [["--run.storage_path", WITH[0]], [f"--run.storage_path={WITH[2]}"]])
def test_submitting_a_job_with_credentials_in_a_flag_is_refused_before_anything_is_started(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "submit", None)
    monkeypatch.setattr(submit, "head", None)
    assert submit.main(["python", "-m", "jobs.train", *flags]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: run.storage_path: 's3://bucket/runs")
    assert "ray job list" in told.err and "AWS_PROFILE" in told.err and told.err.count("\n") == 1
    assert "SECRET" not in told.err + told.out


def test_in_a_job_such_a_flag_is_refused_and_elsewhere_it_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run.storage_path", "s3://KEY:SECRET@bucket/runs", "--print-config"]
    assert cli.main(["train", *flags]) == 0
    capsys.readouterr()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert cli.main(["train", *flags]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: run.storage_path: 's3://bucket/runs' contains credentials. Leave them out of")
    assert "SECRET" not in told.err + told.out
