from __future__ import annotations

from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from django.contrib.auth.password_validation import CommonPasswordValidator, get_password_validators
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.accounts.checks import check_breached_passwords
from svc_infra_django.accounts.validators import KnownPasswordValidator, is_listed, is_site_word
from tests.conftest import PASSWORD

BREACHED = "correct horse battery staple"


def digest(password: str) -> str:
    return sha1(password.encode(), usedforsecurity=False).hexdigest().upper()


def write(path: Path, passwords: Any, *, counts: bool = True, end: str = "\r\n") -> Path:
    lines = sorted(digest(each) for each in passwords)
    text = end.join(f"{line}:{number + 1}" if counts else line for number, line in enumerate(lines))
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def listed(tmp_path: Path, svc_settings: Any) -> Path:
    path = write(tmp_path / "breached.txt", [BREACHED, *(f"password number {n}" for n in range(500))])
    svc_settings(accounts={"breached_passwords_file": str(path)})
    return path


@given(
    known=st.sets(st.text(alphabet="abcdef0123456789 ", min_size=1, max_size=12), min_size=1, max_size=60),
    others=st.sets(st.text(alphabet="xyz", min_size=1, max_size=12), max_size=20),
    counts=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_rule_9_what_is_listed_is_found_and_nothing_else(
    known: set[str], others: set[str], counts: bool, end: str
) -> None:
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / "list.txt", known, counts=counts, end=end)

        assert all(is_listed(each, path) for each in known)
        assert not any(is_listed(each, path) for each in others)


@pytest.mark.django_db
@pytest.mark.parametrize("where", ["signup", "change", "reset"])
def test_rule_9_breached_passwords_are_refused_wherever_one_is_set(
    listed: Path, ada: Any, where: str
) -> None:
    from tests.accounts.services.test_changing_passwords import asked

    sent: dict[str, Any] = {
        "signup": ("signup", {"email": "new@example.com", "password": BREACHED}),
        "change": ("password/change", {"current_password": PASSWORD, "password": BREACHED}),
    }
    if where == "reset":
        sent["reset"] = ("password/reset/confirm", {"key": asked(ada), "password": BREACHED})

    refused = ada.post(*sent[where])

    assert (refused.status_code, refused.json()["code"]) == (422, "accounts.password_refused")
    assert "lists that attackers have" in str(refused.json()["errors"])


@pytest.mark.django_db
def test_rule_9_common_passwords_are_refused_in_any_case(visitor: Any) -> None:
    common = sorted(each for each in CommonPasswordValidator().passwords if len(each) >= 8)

    for password in [*common[:: len(common) // 20], "PassWord1", "QWERTYUIOP"]:
        answer = visitor.post("signup", {"email": "new@example.com", "password": password})
        assert answer.status_code == 422, password


@pytest.mark.parametrize(
    ("password", "refused"),
    [
        *(("acme2024!", True), ("ACMEacme", True), ("my-Acme-1", True), ("Acme Tools!!", True)),
        *(("acme and nine more words", False), ("correct horse", False), ("acm", False)),
    ],
)
def test_rule_9_our_own_names_are_no_passwords(svc_settings: Any, password: str, refused: bool) -> None:
    svc_settings(accounts={"password_site_words": ("Acme", "tools")})

    assert is_site_word(password) is refused


def test_the_admin_can_refuse_the_same(listed: Path) -> None:
    name = "svc_infra_django.accounts.validators.KnownPasswordValidator"
    [validator] = get_password_validators([{"NAME": name}])

    assert isinstance(validator, KnownPasswordValidator) and validator.get_help_text()
    with pytest.raises(ValidationError):
        validator.validate(BREACHED)
    validator.validate("another horse battery 8")


@pytest.mark.parametrize("content", [None, b"", b"password\nletmein\n", b"F" * 40 + b"\n" + b"0" * 40])
def test_a_list_that_cannot_be_searched_is_named(
    tmp_path: Path, svc_settings: Any, content: bytes | None
) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    svc_settings(accounts={"breached_passwords_file": str(path)})

    assert [each.id for each in check_breached_passwords(None)] == ["svc_accounts.E007"]


def test_a_good_list_and_none_are_in_order(listed: Path, svc_settings: Any) -> None:
    assert list(check_breached_passwords(None)) == []
    svc_settings(accounts={"breached_passwords_file": ""})
    assert list(check_breached_passwords(None)) == []
