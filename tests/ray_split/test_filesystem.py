import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_split import filesystem
from ray_split.errors import SettingsError, masked
from ray_split.filesystem import Uri, place


@pytest.fixture(params=["here", "memory"])
def folder(request, tmp_path):
    found = place(str(tmp_path / "run") if request.param == "here" else f"memory://{tmp_path.name}/run")
    filesystem.make_folder(found)
    yield found
    filesystem.remove(found)


def test_a_path_stays_a_path_and_a_file_uri_is_one():
    assert place("results/x") == Path("results/x")
    assert place("~/x") == Path.home() / "x"
    assert place("file:///tmp/a%20b") == Path("/tmp/a b")
    assert place("file://localhost/tmp/x") == Path("/tmp/x")
    with pytest.raises(ValueError, match="cannot be relative"):
        filesystem.try_out(place("file://tmp/x"))
    assert place("C:/x") == Path("C:/x")
    assert place(Path("x")) == Path("x")


def test_what_is_joined_to_a_uri_goes_before_its_query():
    uri = place("s3://bucket/runs/?region=r&scheme=http")
    assert str(uri / "my run" / "a+b.txt") == "s3://bucket/runs/my%20run/a%2Bb.txt?region=r&scheme=http"
    assert (uri / "x").name == "x"
    assert (uri / "x").parent == uri
    assert str(place("s3://bucket") / "x") == "s3://bucket/x"
    assert place("s3://bucket").parent == place("s3://bucket")


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1).filter(lambda part: "/" not in part and part not in (".", "..")), max_size=3))
def test_a_uri_is_read_back_as_it_was_written(parts):
    uri = place("s3://k:s@bucket?region=r")
    for part in parts:
        uri = uri / part
    assert place(uri.full) == uri
    assert pickle.loads(pickle.dumps(uri)) == uri


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:secret@bucket/x?region=r", "s3://bucket/x?region=r"),
        ("s3://key:se%2Fret@bucket/x/a:b@c", "s3://bucket/x/a%3Ab%40c"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("abfs://c@a/x?client_secret=abc&tenant_id=t", "abfs://c@a/x?client_secret=&tenant_id=t"),
        ("hdfs://user@host:9000/x", "hdfs://user@host:9000/x"),
    ],
)
def test_credentials_are_kept_and_not_shown(uri, shown):
    assert str(place(uri)) == shown
    assert repr(place(uri)) == f"Uri({shown!r})"
    assert place(uri).root == uri[: len(place(uri).root)]
    assert filesystem.without_credentials(uri) == shown


def test_messages_are_without_credentials_even_of_uris_that_are_none():
    assert masked("at 's3://key:sec/ret@bucket/x': bad") == "at 's3://bucket/x': bad"
    assert masked("nothing: to@hide, see https://a.org/b?c=d") == "nothing: to@hide, see https://a.org/b?c=d"
    assert "hunter2" not in str(SettingsError("run.storage_path", "s3://me:hunter2@b", "else: s3://me:hunter2@b"))


def test_what_is_written_is_read_and_replaced(folder):
    assert not (folder / "x.bin").exists()
    with pytest.raises(FileNotFoundError):
        (folder / "x.bin").read_bytes()
    for content in (b"", b"some", bytes(range(256)) * 999):
        filesystem.write(folder / "x.bin", content)
        assert (folder / "x.bin").read_bytes() == content
    filesystem.write(folder / "é ö%20?.txt", "ü".encode())
    assert (folder / "é ö%20?.txt").read_text() == "ü"
    assert [path.name for path in filesystem.children(folder)] == ["x.bin", "é ö%20?.txt"]


def test_a_folder_lists_what_is_in_it_and_goes_with_it(folder):
    assert filesystem.children(folder / "none") == []
    filesystem.make_folder(folder / "deep" / "er")
    filesystem.write(folder / "deep" / "er" / "x", b"x")
    filesystem.write(folder / "a", b"a")
    assert filesystem.children(folder) == [folder / "a", folder / "deep"]
    assert (folder / "deep").exists()
    filesystem.remove(folder / "deep")
    filesystem.remove(folder / "a")
    filesystem.remove(folder / "never")
    assert filesystem.children(folder) == []
    assert not (folder / "deep").exists()


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    filesystem.write(tmp_path / "x", b"before")

    def full(_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(filesystem, "sync", full)
        with pytest.raises(OSError, match="full"):
            filesystem.write(tmp_path / "x", b"after")
    assert (tmp_path / "x").read_bytes() == b"before"
    filesystem.write(tmp_path / "x", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_trying_out_leaves_nothing_and_says_what_is_wrong():
    filesystem.try_out(Uri("memory://tried", "run"))
    assert filesystem.children(Uri("memory://tried", "run")) == []
    with pytest.raises(ValueError, match="Protocol not known"):
        filesystem.try_out(place("nothing://bucket/x"))
    with pytest.raises(ValueError, match="takes no"):
        filesystem.try_out(place("memory://bucket/x?region=r"))
