from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import django_otp
import pytest
from django.core import mail
from django.db import connections
from django.utils import timezone
from django_otp.plugins.otp_static.models import StaticDevice

from svc_infra_django.accounts import models
from svc_infra_django.accounts.errors import InvalidMFAToken, TooManyAttempts, WrongCode
from svc_infra_django.accounts.models import AuthSession, MFAChallenge, RecoveryCode, TOTPDevice
from svc_infra_django.accounts.services import enrolling_mfa
from svc_infra_django.accounts.services.enrolling_mfa import (
    begin_totp,
    confirm_totp,
    remove_device,
    remove_device_of_user,
    replace_recovery_codes,
    step_up,
)
from svc_infra_django.accounts.services.issuing_tokens import Client, Tokens
from svc_infra_django.accounts.services.logging_in import SecondStep
from svc_infra_django.accounts.services.verifying_mfa import challenge_of, prove_factor, use_challenge
from svc_infra_django.accounts.totp import code_of
from svc_infra_django.api.authentication import LOGIN_SESSION_KEY
from svc_infra_django.jobs.worker import drain
from svc_infra_django.principals import Principal
from svc_infra_django.sealing import UnsealingFailed
from tests.accounts.conftest import finish_login, log_in
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db

LIMIT = 10


@pytest.fixture(autouse=True)
def no_slowing_down(settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0


def code_now(device: TOTPDevice, *, steps: int = 0) -> str:
    return code_of(device.bin_key, models.step_at(timezone.now()) + steps)


def enrol(user: Any) -> tuple[TOTPDevice, list[str]]:
    """A confirmed device, its last used step set back, so that the present code is still good."""
    device = begin_totp(user, name="phone", now=timezone.now()).device
    session = AuthSession.objects.of_user(user).first()
    principal = (
        Principal(user, method="jwt", credential_id=str(session.pk))
        if session
        else Principal(user, "session")
    )
    codes = confirm_totp(principal, code_now(device), now=timezone.now()).recovery_codes
    TOTPDevice.objects.filter(pk=device.pk).update(last_step=-1)
    device.refresh_from_db()
    return device, codes


def first_step(email: str = "ada@example.com") -> str:
    outcome = log_in(email, PASSWORD, client=Client(), now=timezone.now())
    assert isinstance(outcome, SecondStep)
    return outcome.mfa_token


def test_a_confirmed_device_puts_a_second_step_before_the_tokens(user: Any, visitor: Any) -> None:
    device, _ = enrol(user)

    first = visitor.login()
    assert set(first.json()) == {"mfa_required", "mfa_enrolment_required", "mfa_token", "expires_in"}
    assert first.json()["mfa_required"] is True
    assert first["Cache-Control"] == "no-store"

    sent = {"mfa_token": first.json()["mfa_token"], "code": code_now(device)}
    second = visitor.post("mfa/verify", sent, token="")
    assert second.status_code == 200
    assert visitor.get("me", token=second.json()["access_token"]).json()["amr"] == ["pwd", "otp", "mfa"]


def test_rule_39_the_pre_auth_token_is_good_at_the_second_step_alone(user: Any, visitor: Any) -> None:
    enrol(user)
    token = first_step()

    assert visitor.get("me", token=token).status_code == 401
    assert visitor.post("refresh", {"refresh_token": token}, token="").status_code == 401
    assert not MFAChallenge.objects.filter(digest=token).exists()


def test_rule_39_the_pre_auth_token_is_good_once(user: Any) -> None:
    device, codes = enrol(user)
    token = first_step()
    finish_login(token, code_now(device), client=Client(), now=timezone.now())

    with pytest.raises(InvalidMFAToken):
        finish_login(token, codes[0], client=Client(), now=timezone.now())


def test_rule_39_of_two_codes_for_one_token_at_once_one_counts(user: Any) -> None:
    enrol(user)
    challenge = challenge_of(first_step(), now=timezone.now())

    use_challenge(challenge, None, now=timezone.now())
    with pytest.raises(InvalidMFAToken):
        use_challenge(challenge, None, now=timezone.now())


def test_rule_39_the_pre_auth_token_lasts_five_minutes(user: Any) -> None:
    device, _ = enrol(user)
    token = first_step()

    with pytest.raises(InvalidMFAToken):
        finish_login(token, code_now(device), client=Client(), now=timezone.now() + timedelta(seconds=301))


def test_rule_39_the_pre_auth_token_dies_with_the_password_or_the_user(user: Any) -> None:
    device, _ = enrol(user)
    changed, disabled = first_step(), first_step()

    type(user).objects.filter(pk=user.pk).update(is_active=False)
    with pytest.raises(InvalidMFAToken):
        finish_login(disabled, code_now(device), client=Client(), now=timezone.now())

    user.is_active = True
    user.set_password("another horse battery 8")
    user.save()
    with pytest.raises(InvalidMFAToken):
        finish_login(changed, code_now(device), client=Client(), now=timezone.now())


def test_rule_39_the_pre_auth_token_bears_five_tries(user: Any) -> None:
    device, _ = enrol(user)
    token = first_step()
    for _ in range(5):
        with pytest.raises(WrongCode):
            finish_login(token, "000000", client=Client(), now=timezone.now())

    with pytest.raises(InvalidMFAToken):
        finish_login(token, code_now(device), client=Client(), now=timezone.now())


def test_rule_40_a_code_is_good_once_also_after_its_step(user: Any) -> None:
    device, _ = enrol(user)
    code = code_now(device)
    prove_factor(user, code, now=timezone.now())

    with pytest.raises(WrongCode):
        prove_factor(user, code, now=timezone.now())


def test_rule_40_an_older_step_never_counts_after_a_newer(user: Any) -> None:
    device, _ = enrol(user)
    prove_factor(user, code_now(device, steps=1), now=timezone.now())

    for steps in (-1, 0, 1):
        with pytest.raises(WrongCode):
            prove_factor(user, code_now(device, steps=steps), now=timezone.now())


@pytest.mark.parametrize(("steps", "good"), [(-3, False), (-1, True), (0, True), (1, True), (3, False)])
def test_rule_41_the_window_is_one_step_either_way(user: Any, steps: int, good: bool) -> None:
    device, _ = enrol(user)
    code = code_now(device, steps=steps)
    if good:
        prove_factor(user, code, now=timezone.now())
    else:
        with pytest.raises(WrongCode):
            prove_factor(user, code, now=timezone.now())


@pytest.mark.parametrize(
    "disguise", ["arabic", "plus", "underscore", "blank", "newline", "longer", "shorter"]
)
def test_rule_41_only_six_ascii_digits_are_a_code(user: Any, disguise: str) -> None:
    device, _ = enrol(user)
    code = code_now(device)
    disguised = {
        "arabic": "".join(chr(0x660 + int(digit)) for digit in code),
        "plus": f"+{code}",
        "underscore": f"{code[:3]}_{code[3:]}",
        "blank": f" {code}",
        "newline": f"{code}\n",
        "longer": f"0{code}",
        "shorter": code[1:],
    }[disguise]

    with pytest.raises(WrongCode):
        prove_factor(user, disguised, now=timezone.now())
    prove_factor(user, code, now=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_rule_40_of_six_uses_of_one_code_at_once_one_counts(make_user: Any) -> None:
    user = make_user("ada")
    device, _ = enrol(user)
    outcomes = race(6, lambda: prove_factor(user, code_now(device), now=timezone.now()))

    assert outcomes.count("good") == 1
    assert outcomes.count("WrongCode") == 5


@pytest.mark.django_db(transaction=True)
def test_rule_44_of_six_uses_of_one_recovery_code_at_once_one_counts(make_user: Any) -> None:
    user = make_user("ada")
    _, codes = enrol(user)
    outcomes = race(6, lambda: prove_factor(user, codes[0], now=timezone.now()))

    assert outcomes.count("good") == 1


@pytest.mark.django_db(transaction=True)
def test_rule_42_forty_guesses_at_once_are_ten(make_user: Any, monkeypatch: Any) -> None:
    user = make_user("ada")
    enrol(user)
    looked_at: list[str] = []
    monkeypatch.setattr(TOTPDevice, "verify_token", lambda self, token: bool(looked_at.append(token)))
    outcomes = race(40, lambda: prove_factor(user, "000000", now=timezone.now()))

    assert len(looked_at) == LIMIT
    assert outcomes.count("TooManyAttempts") == 40 - LIMIT


def race(count: int, act: Any) -> list[str]:
    outcomes: list[str] = []

    def run() -> None:
        try:
            act()
            outcomes.append("good")
        except Exception as error:
            outcomes.append(type(error).__name__)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_rule_42_wrong_codes_stop_the_user_over_all_logins_and_devices(user: Any, visitor: Any) -> None:
    device, _ = enrol(user)
    codes = []
    for _ in range(3):
        token = first_step()
        for _ in range(5):
            codes.append(
                visitor.post("mfa/verify", {"mfa_token": token, "code": "000000"}, token="").status_code
            )

    assert codes == [401] * 10 + [429] * 5
    stopped = visitor.post("mfa/verify", {"mfa_token": first_step(), "code": code_now(device)}, token="")
    assert stopped.status_code == 429
    assert int(stopped["Retry-After"]) > 0
    with pytest.raises(TooManyAttempts):
        prove_factor(user, code_now(device), now=timezone.now())
    prove_factor(user, code_now(device), now=timezone.now() + timedelta(seconds=901))


def test_rule_44_recovery_codes_are_hashed_and_burn(user: Any) -> None:
    _, codes = enrol(user)

    assert len(codes) == len(set(codes)) == 10
    assert all(code.replace("-", "") not in str(list(RecoveryCode.objects.values())) for code in codes)
    prove_factor(user, codes[0].upper().replace("-", " "), now=timezone.now())
    with pytest.raises(WrongCode):
        prove_factor(user, codes[0], now=timezone.now())
    assert RecoveryCode.objects.unused(user).count() == 9


def test_rule_44_a_recovery_code_of_another_user_is_worth_nothing(user: Any, stranger: Any) -> None:
    enrol(user)
    _, codes = enrol(stranger)

    with pytest.raises(WrongCode):
        prove_factor(user, codes[0], now=timezone.now())


def test_rule_43_the_key_is_sealed_and_bound_to_its_user(user: Any, stranger: Any) -> None:
    device, _ = enrol(user)

    assert len(device.bin_key) == 20
    assert device.bin_key.hex() not in str(TOTPDevice.objects.values())
    TOTPDevice.objects.filter(pk=device.pk).update(user=stranger)
    with pytest.raises(UnsealingFailed):
        code_now(TOTPDevice.objects.get(pk=device.pk))


def test_rule_43_an_unconfirmed_device_neither_demands_nor_satisfies(user: Any) -> None:
    waiting = begin_totp(user, name="phone", now=timezone.now()).device
    assert isinstance(log_in("ada@example.com", PASSWORD, client=Client(), now=timezone.now()), Tokens)

    TOTPDevice.objects.all().delete()
    enrol(user)
    waiting = begin_totp(user, name="second", now=timezone.now()).device
    with pytest.raises(WrongCode):
        prove_factor(user, code_now(waiting), now=timezone.now())


def test_rule_43_enrolment_ends_only_by_a_good_code(ada: Any, user: Any) -> None:
    begun = ada.post("mfa/totp", {})
    assert begun.status_code == 201
    assert begun.json()["url"].startswith("otpauth://totp/")
    assert begun["Cache-Control"] == "no-store"

    assert ada.post("mfa/totp/confirm", {"code": "000000"}).status_code == 401
    assert not django_otp.user_has_device(user)

    confirmed = ada.post("mfa/totp/confirm", {"code": code_now(TOTPDevice.objects.get())})
    assert len(confirmed.json()["recovery_codes"]) == 10
    assert ada.get("mfa/devices").json() == {
        "devices": [
            {"id": TOTPDevice.objects.get().persistent_id, "kind": "totpdevice", "name": "Authenticator app"}
        ],
        "recovery_codes_left": 10,
    }
    assert begun.json()["secret"] not in ada.get("mfa/devices").content.decode()
    assert ada.post("mfa/totp/confirm", {"code": "000000"}).status_code == 409


def test_rule_42_wrong_codes_for_a_device_that_waits_count_too(ada: Any) -> None:
    ada.post("mfa/totp", {})

    codes = [ada.post("mfa/totp/confirm", {"code": "000000"}).status_code for _ in range(12)]

    assert codes == [401] * 10 + [429] * 2


def test_a_device_waits_no_longer_than_its_login_was_fresh(ada: Any) -> None:
    ada.post("mfa/totp", {})
    TOTPDevice.objects.update(created_at=timezone.now() - timedelta(seconds=601))

    assert ada.post("mfa/totp/confirm", {"code": code_now(TOTPDevice.objects.get())}).status_code == 409


def test_enrolling_from_a_browser_session_keeps_it(user: Any, client: Any) -> None:
    def post(path: str, data: Any) -> Any:
        return client.post(f"/api/auth/mfa/{path}", data, content_type="application/json")

    client.force_login(user)
    assert post("totp", {"password": PASSWORD}).status_code == 201
    assert post("totp/confirm", {"code": code_now(TOTPDevice.objects.get())}).status_code == 200

    assert client.get("/api/auth/me").status_code == 200


def test_a_present_password_hashed_anew_keeps_every_session(
    ada: Any, new_visitor: Any, settings: Any
) -> None:
    phone = new_visitor()
    phone.login()
    settings.PASSWORD_HASHERS = ["tests.accounts.hashers.Counted", *settings.PASSWORD_HASHERS]

    assert ada.post("mfa/totp", {"password": PASSWORD}).status_code == 201

    assert ada.get("me").status_code == phone.get("me").status_code == 200


def test_rule_45_changing_a_factor_needs_a_fresh_one(ada: Any, user: Any) -> None:
    device, _ = enrol(user)

    # Fresh, but by password only.
    for path in ("mfa/totp", "mfa/email", "mfa/recovery-codes"):
        refused = ada.post(path, {})
        assert refused.status_code == 401
        assert "insufficient_user_authentication" in refused["WWW-Authenticate"]
    assert ada.post("mfa/recovery-codes", {"password": PASSWORD}).status_code == 401
    assert ada.post("mfa/recovery-codes", {"code": "000000"}).status_code == 401
    renewed = ada.post("mfa/recovery-codes", {"code": code_now(device)})
    assert len(renewed.json()["recovery_codes"]) == 10


def test_rule_45_an_old_login_is_not_fresh(ada: Any, user: Any) -> None:
    AuthSession.objects.update(auth_time=timezone.now() - timedelta(seconds=601))

    assert ada.post("mfa/totp", {}).status_code == 401
    assert ada.post("mfa/totp", {"password": "wrong"}).status_code == 401
    assert ada.post("mfa/totp", {"password": PASSWORD}).status_code == 201


def test_other_sessions_end_when_the_factors_change(ada: Any, user: Any, new_visitor: Any) -> None:
    phone = new_visitor()
    phone.login()
    ada.post("mfa/totp", {})
    device = TOTPDevice.objects.get()
    assert phone.get("me").status_code == 200

    ada.post("mfa/totp/confirm", {"code": code_now(device)})

    assert phone.get("me").status_code == 401
    assert ada.get("me").status_code == 200


def test_rule_44_new_recovery_codes_void_the_old(ada: Any, user: Any) -> None:
    device, old = enrol(user)
    new = ada.post("mfa/recovery-codes", {"code": code_now(device)}).json()["recovery_codes"]
    drain()
    assert mail.outbox[-1].subject == "Your recovery codes were replaced"

    with pytest.raises(WrongCode):
        prove_factor(user, old[0], now=timezone.now())
    prove_factor(user, new[0], now=timezone.now())


def test_rule_45_disabling_needs_a_code_and_removes_everything(ada: Any, user: Any) -> None:
    device, _ = enrol(user)
    assert ada.post("mfa/disable", {"code": "000000"}).status_code == 401

    assert ada.post("mfa/disable", {"code": code_now(device)}).status_code == 204
    assert not django_otp.user_has_device(user)
    assert not RecoveryCode.objects.filter(owner=user).exists()
    assert ada.post("mfa/disable", {"code": "000000"}).status_code == 409
    drain()
    assert [message.subject for message in mail.outbox] == [
        "A second factor was added",
        "Your second factor was removed",
    ]


def test_rule_47_who_removes_the_second_factor_has_proved_one_factor_from_then_on(
    ada: Any, user: Any
) -> None:
    for path in ("mfa/disable", "mfa/devices"):
        device, _ = enrol(user)
        assert ada.post("step-up", {"code": code_now(device)}).status_code == 204
        assert ada.get("me").json()["amr"] == ["pwd", "otp", "mfa"]
        TOTPDevice.objects.update(last_step=-1)

        if path == "mfa/disable":
            assert ada.post(path, {"code": code_now(device)}).status_code == 204
        else:
            assert ada.delete(f"{path}/{device.persistent_id}").status_code == 204

        assert ada.get("me").json()["amr"] == ["pwd"]
        assert ada.post("step-up", {"password": PASSWORD}).status_code == 204
        assert ada.get("me").json()["amr"] == ["pwd"]


def test_rule_47_a_step_up_by_who_has_not_heard_of_it_does_not_bring_it_back(ada: Any, user: Any) -> None:
    device, _ = enrol(user)
    ada.post("step-up", {"code": code_now(device)})
    session = AuthSession.objects.get()
    before = Principal(user, "jwt", str(session.pk), amr=session.methods, auth_time=session.auth_time)
    remove_device(before, device, now=timezone.now())

    assert step_up(before, password=PASSWORD, code=None, now=timezone.now()) == ("pwd",)
    session.refresh_from_db()
    assert session.amr == "pwd"


@pytest.mark.parametrize("path", ["mfa/disable", "mfa/devices"])
def test_rule_47_so_has_a_browser(user: Any, client: Any, path: str) -> None:
    device, _ = enrol(user)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    session = client.session
    session[django_otp.DEVICE_ID_SESSION_KEY] = device.persistent_id
    session[LOGIN_SESSION_KEY] = {"amr": ["pwd", "otp", "mfa"], "auth_time": int(timezone.now().timestamp())}
    session.save()
    assert client.get("/api/auth/me").json()["amr"] == ["pwd", "otp", "mfa"]
    before = client.cookies["sessionid"].value

    if path == "mfa/disable":
        sent = {"code": code_now(device)}
        answer = client.post(f"/api/auth/{path}", sent, content_type="application/json")
    else:
        answer = client.delete(f"/api/auth/{path}/{device.persistent_id}")

    assert answer.status_code == 204, answer.content
    assert client.get("/api/auth/me").json()["amr"] == ["pwd"]
    assert AuthSession.objects.get(revoked_at=None).amr == "pwd"
    assert client.cookies["sessionid"].value != before


def test_a_device_that_goes_while_its_code_is_looked_at_is_not_confirmed(
    ada: Any, user: Any, events: Any, monkeypatch: Any
) -> None:
    device = begin_totp(user, name="Phone", now=timezone.now()).device
    verify = django_otp.verify_token

    def begun_anew(*args: Any) -> Any:
        found = verify(*args)
        begin_totp(user, name="Another", now=timezone.now())
        return found

    monkeypatch.setattr(django_otp, "verify_token", begun_anew)

    assert ada.post("mfa/totp/confirm", {"code": code_now(device)}).status_code == 409
    assert not django_otp.user_has_device(user)
    assert not RecoveryCode.objects.exists()
    assert "user.mfa_enabled" not in [event.type.name for event in events]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_whoever_removes_the_last_device_knows_it_also_if_two_do_at_once(
    make_user: Any, monkeypatch: Any
) -> None:
    ada = make_user("ada")
    for _ in range(2):
        enrol(ada)
    devices = list(TOTPDevice.objects.all())
    wait_for_each_other(monkeypatch, enrolling_mfa.django_otp, "user_has_device")

    race(2, lambda: remove_device_of_user(devices.pop(), now=timezone.now()))

    assert not TOTPDevice.objects.exists()
    assert not RecoveryCode.objects.exists()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_rule_44_of_two_sets_of_recovery_codes_made_at_once_one_is_good(
    make_user: Any, monkeypatch: Any
) -> None:
    ada = make_user("ada")
    enrol(ada)
    wait_for_each_other(monkeypatch, enrolling_mfa, "_new_codes")

    race(2, lambda: replace_recovery_codes(ada, now=timezone.now()))

    assert RecoveryCode.objects.unused(ada).count() == 10


def wait_for_each_other(monkeypatch: Any, where: Any, name: str) -> None:
    """Both callers go on from here together, unless one is kept from coming."""
    both, act = threading.Barrier(2), getattr(where, name)

    def together(*args: Any, **kwargs: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)
        return act(*args, **kwargs)

    monkeypatch.setattr(where, name, together)


def test_rule_45_one_device_is_removed_on_a_fresh_code_and_the_others_go_on(
    ada: Any, user: Any, stranger: Any, new_visitor: Any
) -> None:
    phone, codes = enrol(user)
    tablet = TOTPDevice.begin(user, name="tablet", now=timezone.now())
    theirs = TOTPDevice.begin(stranger, name="theirs", now=timezone.now())
    TOTPDevice.objects.update(confirmed=True)
    other = new_visitor()
    token = other.login().json()["mfa_token"]
    other.tokens = other.post("mfa/verify", {"mfa_token": token, "code": codes[0]}).json()
    path = f"mfa/devices/{tablet.persistent_id}"

    # Logged in lately, but by the password alone.
    refused = ada.delete(path)
    assert refused.status_code == 401
    assert "insufficient_user_authentication" in refused["WWW-Authenticate"]
    assert ada.post("step-up", {"code": code_now(phone)}).status_code == 204
    for unknown in (theirs.persistent_id, "svc_accounts.totpdevice/0", "nonsense", "a/b/c"):
        assert ada.delete(f"mfa/devices/{unknown}").status_code == 404

    assert ada.delete(path).status_code == 204

    assert [each["name"] for each in ada.get("mfa/devices").json()["devices"]] == ["phone"]
    assert ada.get("mfa/devices").json()["recovery_codes_left"] == 9
    assert ada.delete(path).status_code == 404
    assert other.get("me").status_code == 401
    drain()
    assert mail.outbox[-1].subject == "A device of your second factor was removed"

    assert ada.delete(f"mfa/devices/{phone.persistent_id}").status_code == 204
    assert not RecoveryCode.objects.filter(owner=user).exists()
    assert ada.login().json()["token_type"] == "Bearer"


def test_any_other_device_of_django_otp_works_too(user: Any) -> None:
    device = StaticDevice.objects.create(user=user, name="printed")
    device.token_set.create(token="abcd2345")
    token = first_step()

    tokens = finish_login(token, "abcd2345", client=Client(), now=timezone.now())

    assert tokens.session.methods == ("pwd", "otp", "mfa")


def test_a_device_slows_down_after_a_wrong_code(user: Any, settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 3600
    device, _ = enrol(user)
    with pytest.raises(WrongCode):
        prove_factor(user, "000000", now=timezone.now())

    with pytest.raises(WrongCode):
        prove_factor(user, code_now(device), now=timezone.now())


def test_a_second_device_does_not_slow_the_first_down(user: Any, settings: Any) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 60
    first, _ = enrol(user)
    second, _ = enrol(user)
    for device in (second, first):
        prove_factor(user, code_now(device), now=timezone.now())

    assert not TOTPDevice.objects.exclude(throttling_failure_count=0).exists()


def test_bad_codes_are_refused_politely(user: Any, visitor: Any) -> None:
    enrol(user)
    for code in ("", "x" * 65, 123456, None, "12345\x00", "\ud800", ["1"], {"a": 1}):
        answer = visitor.post("mfa/verify", {"mfa_token": "mfa_x", "code": code}, token="")
        assert answer.status_code in {400, 422}, code


@pytest.fixture
def boss(make_user: Any, svc_settings: Any) -> Any:
    svc_settings(accounts={"staff_second_factor": True})
    return make_user("boss", is_staff=True)


def test_rule_46_staff_get_no_tokens_without_a_factor(boss: Any, visitor: Any) -> None:
    first = visitor.login("boss@example.com").json()
    assert first["mfa_enrolment_required"] is True
    token = first["mfa_token"]
    assert visitor.get("me", token=token).status_code == 401
    assert visitor.post("mfa/verify", {"mfa_token": token, "code": "000000"}, token="").status_code == 409

    begun = visitor.post("mfa/enrol", {"mfa_token": token}, token="")
    assert begun.status_code == 201
    assert begun.json()["qr_svg"].startswith("<svg")
    assert begun["Cache-Control"] == "no-store"
    wrong = visitor.post("mfa/enrol/confirm", {"mfa_token": token, "code": "000000"}, token="")
    assert wrong.status_code == 401
    sent = {"mfa_token": token, "code": code_now(TOTPDevice.objects.get())}
    done = visitor.post("mfa/enrol/confirm", sent, token="")

    assert len(done.json()["recovery_codes"]) == 10
    assert visitor.get("me", token=done.json()["access_token"]).json()["amr"] == ["pwd", "otp", "mfa"]
    assert visitor.post("mfa/enrol", {"mfa_token": token}, token="").status_code == 401


def test_rule_46_staff_who_remove_their_factor_are_out(boss: Any, visitor: Any) -> None:
    device, _ = enrol(boss)
    token = visitor.login("boss@example.com").json()["mfa_token"]
    visitor.tokens = visitor.post("mfa/verify", {"mfa_token": token, "code": code_now(device)}).json()
    TOTPDevice.objects.update(last_step=-1)

    assert visitor.post("mfa/disable", {"code": code_now(device)}).status_code == 204
    assert visitor.get("me").status_code == 401
    assert visitor.refresh().status_code == 401


def test_rule_46_who_becomes_staff_must_log_in_anew(ada: Any, user: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"staff_second_factor": True})
    assert ada.get("me").status_code == 200
    user.is_superuser = True
    user.save()

    assert ada.get("me").status_code == 401
    assert ada.refresh().status_code == 401


def test_whoever_has_a_device_cannot_enrol_with_the_token_of_a_login(boss: Any, visitor: Any) -> None:
    enrol(boss)
    token = visitor.login("boss@example.com").json()["mfa_token"]

    assert visitor.post("mfa/enrol", {"mfa_token": token}, token="").status_code == 401
    sent = {"mfa_token": token, "code": "000000"}
    assert visitor.post("mfa/enrol/confirm", sent, token="").status_code == 401


def test_the_qr_code_says_the_url(user: Any) -> None:
    enrolment = begin_totp(user, name="phone", now=timezone.now())

    assert enrolment.qr_svg.startswith("<svg") and enrolment.qr_svg.count("<") < 10
    assert "script" not in enrolment.qr_svg
    assert enrolment.secret not in repr(enrolment)
