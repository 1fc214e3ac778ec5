from __future__ import annotations

import copy
import os
import pickle
import threading
import traceback

import pytest

from svc_infra_django.config import Secret
from svc_infra_django.config.secrets import SecretUnreadable, scrubbed

VALUE = "hunter2-hunter2"


@pytest.fixture
def mounted(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{VALUE}\n")
    return path


def test_a_variable_is_read_each_time(monkeypatch) -> None:
    secret = Secret("env:TESTS_SECRET")

    monkeypatch.setenv("TESTS_SECRET", VALUE)
    assert secret.reveal() == VALUE
    monkeypatch.setenv("TESTS_SECRET", "another one")
    assert secret.reveal() == "another one"


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_or_empty_variable_is_told_by_name(monkeypatch, value) -> None:
    monkeypatch.delenv("TESTS_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TESTS_SECRET", value)

    with pytest.raises(SecretUnreadable, match="TESTS_SECRET is not set"):
        Secret("env:TESTS_SECRET").reveal()


def test_a_file_loses_the_white_space_round_it(mounted) -> None:
    assert Secret(f"file:{mounted}").reveal() == VALUE


def test_a_file_is_read_again_when_it_changes(mounted) -> None:
    secret = Secret(f"file:{mounted}")
    assert secret.reveal() == VALUE

    mounted.write_text("rotated secret")
    assert secret.reveal() == "rotated secret"


def test_a_link_that_is_pointed_elsewhere_is_a_change(mounted, tmp_path) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(mounted)
    secret = Secret(f"file:{link}")
    assert secret.reveal() == VALUE
    same = mounted.stat()

    other.write_text("rotated-secret\n")
    os.utime(other, ns=(same.st_atime_ns, same.st_mtime_ns))
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(link)

    assert secret.reveal() == "rotated-secret"


def test_an_unchanged_file_is_not_read_again(mounted, monkeypatch) -> None:
    secret = Secret(f"file:{mounted}")
    secret.reveal()

    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: pytest.fail("read again"))

    assert secret.reveal() == VALUE


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe"])
def test_a_file_without_a_secret_is_told(tmp_path, content) -> None:
    path = tmp_path / "empty"
    path.write_bytes(content)

    with pytest.raises(SecretUnreadable, match=str(path)):
        Secret(f"file:{path}").reveal()


@pytest.mark.parametrize("place", ["/nowhere/at/all", "/", "nul\x00"])
def test_a_file_that_cannot_be_read_is_told(place) -> None:
    with pytest.raises(SecretUnreadable, match="cannot be read"):
        Secret(f"file:{place}").reveal()


@pytest.mark.parametrize("text", [VALUE, "env:", "file:", ":", "", "vault:x", "ENV:NAME"])
def test_a_secret_in_the_wrong_place_is_refused_without_showing_it(text) -> None:
    with pytest.raises(SecretUnreadable) as refusal:
        Secret(text)

    assert VALUE not in "".join(traceback.format_exception(refusal.value)).replace(f"text = '{VALUE}'", "")
    assert "env:NAME" in str(refusal.value)


def test_the_value_is_nowhere_but_in_the_answer(mounted) -> None:
    secret = Secret(f"file:{mounted}")
    secret.reveal()

    assert VALUE not in repr(secret) + str(secret) + f"{secret}"
    assert VALUE.encode() not in pickle.dumps(secret)
    assert pickle.loads(pickle.dumps(secret)) == copy.deepcopy(secret) == secret  # noqa: S301 our own bytes
    assert not hasattr(secret, "__dict__")


def test_secrets_are_equal_by_reference() -> None:
    assert Secret("env:A") == Secret("env:A")
    assert Secret("env:A") != Secret("env:B")
    assert len({Secret("env:A"), Secret("env:A")}) == 1


def test_readers_see_the_old_or_the_new_value_while_it_is_rotated(mounted, tmp_path) -> None:
    secret, values, done = Secret(f"file:{mounted}"), set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            values.add(secret.reveal())

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(100):
        fresh = tmp_path / "fresh"
        fresh.write_text(f"rotation-{number:03}")
        fresh.replace(mounted)
    done.set()
    for reader in readers:
        reader.join()

    assert secret.reveal() == "rotation-099"
    assert all(value == VALUE or value.startswith("rotation-") for value in values)


def test_revealed_values_can_be_scrubbed_from_text(monkeypatch) -> None:
    monkeypatch.setenv("TESTS_SECRET", "a-value-to-be-scrubbed")
    monkeypatch.setenv("TESTS_SHORT", "abc")
    Secret("env:TESTS_SECRET").reveal(), Secret("env:TESTS_SHORT").reveal()

    assert scrubbed("x a-value-to-be-scrubbed abc", by="#") == "x # abc"


def test_what_is_no_text_is_no_reference() -> None:
    with pytest.raises(SecretUnreadable, match="A secret is written"):
        Secret(None)  # type: ignore[arg-type]


def test_a_secret_that_begins_like_another_leaves_nothing_of_it(monkeypatch) -> None:
    for number in range(20):
        monkeypatch.setenv(f"TESTS_SECRET_{number}", "correct-horse" + "-battery" * number)
        Secret(f"env:TESTS_SECRET_{number}").reveal()

    assert scrubbed("<" + "correct-horse" + "-battery" * 19 + ">", by="*") == "<*>"


def test_a_key_of_several_lines_is_found_in_a_repr(monkeypatch) -> None:
    key = "-----BEGIN KEY-----\nbm90IGEga2V5\n-----END KEY-----"
    monkeypatch.setenv("TESTS_SECRET", key)
    Secret("env:TESTS_SECRET").reveal()

    assert scrubbed(f"could not load {key!r}", by="*") == "could not load '*'"
