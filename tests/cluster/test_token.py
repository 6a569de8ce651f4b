from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sensorium.cluster.token import MAX_SKEW_S, check_signature, key_of, read_or_make_token, read_token, sign
from sensorium.errors import ConfigurationError, Unauthorized

KEY = key_of("a token that is long enough")
NOW = 1_800_000_000.0


def test_a_short_token_is_no_secret() -> None:
    with pytest.raises(ConfigurationError, match="has 8 characters; it must have 16 or more"):
        key_of(" 12345678\n")
    assert key_of("a token that is long enough\n") == KEY


def test_the_file_is_made_once_and_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    assert read_token() is None
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: read_or_make_token(), range(1)))
    (token,) = made
    assert read_token() == token == read_or_make_token()
    key_of(token)
    path = tmp_path / "home" / "cluster-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["cluster-token"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*file/cluster-token"):
        read_or_make_token()


def test_a_signature_is_of_one_request_and_one_time() -> None:
    value = sign(KEY, "POST", "/workers/register", b"{}", NOW)
    check_signature(KEY, value, "POST", "/workers/register", b"{}", NOW + MAX_SKEW_S - 1)
    for method, path, body, key in (
        ("DELETE", "/workers/register", b"{}", KEY),
        ("POST", "/workers/a/heartbeat", b"{}", KEY),
        ("POST", "/workers/register", b"{ }", KEY),
        ("POST", "/workers/register", b"{}", key_of("another token of 16")),
    ):
        with pytest.raises(Unauthorized, match="not of this cluster's token"):
            check_signature(key, value, method, path, body, NOW)
    for then in (NOW + MAX_SKEW_S + 2, NOW - MAX_SKEW_S - 2):
        with pytest.raises(Unauthorized, match=r"302 s away; 300 s are allowed\. Set the clocks"):
            check_signature(KEY, value, "POST", "/workers/register", b"{}", then)
    later = value.replace(str(int(NOW)), str(int(NOW) + 9))
    with pytest.raises(Unauthorized, match="not of this cluster's token"):
        check_signature(KEY, later, "POST", "/workers/register", b"{}", NOW)


@pytest.mark.parametrize("value", ["", "v1=00", "t=1,v1=zz", "t=-5,v1=" + "0" * 64, "t=9,v1=" + "0" * 65])
def test_what_is_not_signed_is_refused(value: str) -> None:
    with pytest.raises(Unauthorized, match="this request is not signed"):
        check_signature(KEY, value, "POST", "/workers/register", b"", NOW)
