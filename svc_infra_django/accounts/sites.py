"""The stock admin with a login of two steps, throttled as the API's is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import django_otp
from django import forms
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import UsernameField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from structlog.contextvars import bind_contextvars

from ..api.authentication import SecondFactorMissing, session_principal
from ..errors import SvcInfraError
from ..observability.middleware import client_address
from .errors import InvalidCredentials, InvalidMFAToken, SessionOver, TooManyAttempts, WrongPassword
from .events import ADMIN_ENTERED, AdminEntered
from .models import MFAChallenge, TOTPDevice, lacks_factor
from .schemas import client_of
from .services.beginning_browsers import begin_browser
from .services.enrolling_mfa import (
    Enrolment,
    begin_enrolment,
    finish_enrolment,
    settle_password,
    shown_enrolment,
    take_password_slot,
)
from .services.logging_in import SecondStep, log_in_staff
from .services.noticing_devices import notice_new_device
from .services.noting_browsers import note_browser
from .services.verifying_mfa import Proven, finish_second_step, open_challenge

CHALLENGE = "svc_accounts.challenge"
"""Where the session keeps the id of the challenge between the two steps."""

DEVICE = "svc_accounts.device"
"""Where it keeps the device that this very browser has begun."""


class FirstStepForm(AdminAuthenticationForm):
    """Username or address, and password."""

    username = UsernameField(max_length=320, widget=forms.TextInput(attrs={"autofocus": True}))

    def clean(self) -> dict[str, Any]:
        """Checked by the site, which has the caller's address and counts attempts."""
        return self.cleaned_data


class SecondStepForm(forms.Form):
    """A code of one of the user's devices, or a recovery code."""

    code = forms.CharField(
        max_length=64,
        widget=forms.TextInput(
            attrs={"autofocus": True, "autocomplete": "one-time-code", "spellcheck": "false"}
        ),
    )


class SecondFactorAdminSite(AdminSite):
    """Django's admin, entered by password and second factor.

    Staff who have a device must use it. With `staff_second_factor` on, as it is by default, those who
    have none add one on their way in. A session that was begun by another login view, with the password
    alone, opens no page here.
    """

    demands_second_factor = True

    def has_permission(self, request: HttpRequest) -> bool:
        if not super().has_permission(request):
            return False
        try:
            principal = session_principal(request, request.user)
            if lacks_factor(request.user, principal.amr):
                return False
            note_browser(request, request.user, amr=principal.amr, now=timezone.now())
            bind_contextvars(user_id=str(request.user.pk))
        except (SecondFactorMissing, SessionOver):
            return False
        return True

    @method_decorator(
        [never_cache, login_not_required, csrf_protect, sensitive_post_parameters("password", "code")]
    )
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Both steps, at one address: what the session remembers says which one it is."""
        if request.method == "GET" and self.has_permission(request):
            return HttpResponseRedirect(self._target(request))
        challenge = None if "again" in request.POST else _waiting(request)
        if challenge is None:
            return self._first_step(request, extra_context)
        if django_otp.user_has_device(challenge.owner):
            return self._second_step(request, challenge, extra_context)
        return self._enrolment(request, challenge, extra_context)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Django's page, no door for guessing either: wrong present passwords count as the API's do."""
        if request.method != "POST":
            return super().password_change(request, extra_context)
        try:
            take_password_slot(request.user, now=timezone.now())
        except TooManyAttempts as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(request.path)
        response = super().password_change(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        with suppress(WrongPassword):  # the page says so
            settle_password(request.user, is_right=form is None or not form.has_error("old_password"))
        return response

    @sensitive_variables()
    def _first_step(self, request: HttpRequest, extra: dict[str, Any] | None) -> HttpResponse:
        form = FirstStepForm(request, data=request.POST if "password" in request.POST else None)
        if form.is_valid():
            name, password = form.cleaned_data["username"], form.cleaned_data["password"]
            try:
                step = log_in_staff(name, password, client=client_of(request), now=timezone.now())
            except InvalidCredentials:
                form.add_error(None, form.get_invalid_login_error())
            except SvcInfraError as error:
                form.add_error(None, error.message)
            else:
                return self._after_first_step(request, step)
        return self._page(request, self.login_template or "admin/login.html", extra, form=form)

    def _after_first_step(self, request: HttpRequest, step: Proven | SecondStep) -> HttpResponse:
        if not isinstance(step, SecondStep):
            return self._enter(request, step)
        # What another account of this browser left behind is no part of this login.
        request.session.flush()
        request.session[CHALLENGE] = str(step.challenge.pk)
        return HttpResponseRedirect(request.get_full_path())

    @sensitive_variables()
    def _second_step(
        self, request: HttpRequest, challenge: MFAChallenge, extra: dict[str, Any] | None
    ) -> HttpResponse:
        form = SecondStepForm(request.POST if "code" in request.POST else None)
        if form.is_valid():
            try:
                proven = finish_second_step(challenge, form.cleaned_data["code"], now=timezone.now())
            except InvalidMFAToken as error:
                return _start_again(request, error)
            except SvcInfraError as error:
                form.add_error("code", error.message)
            else:
                return self._enter(request, proven)
        return self._page(request, "svc_accounts/admin/second_step.html", extra, form=form)

    @sensitive_variables()
    def _enrolment(
        self, request: HttpRequest, challenge: MFAChallenge, extra: dict[str, Any] | None
    ) -> HttpResponse:
        form = SecondStepForm(request.POST if "code" in request.POST else None)
        if form.is_valid():
            try:
                proven, codes = finish_enrolment(challenge, form.cleaned_data["code"], now=timezone.now())
            except InvalidMFAToken as error:
                return _start_again(request, error)
            except SvcInfraError as error:
                form.add_error("code", error.message)
            else:
                target = self._enter(request, proven).url
                template = "svc_accounts/admin/recovery_codes.html"
                return self._page(request, template, extra, recovery_codes=codes, next_url=target)
        enrolment = self._begun(request, challenge)
        return self._page(request, "svc_accounts/admin/enrolment.html", extra, form=form, enrolment=enrolment)

    @sensitive_variables()
    def _begun(self, request: HttpRequest, challenge: MFAChallenge) -> Enrolment:
        # Only what this browser has begun: a key that was shown elsewhere must not be confirmed here.
        waiting = TOTPDevice.objects.filter(user=challenge.owner, confirmed=False)
        device = waiting.filter(pk=request.session.get(DEVICE)).first()
        if device is not None:
            return shown_enrolment(device)
        enrolment = begin_enrolment(challenge, name="Authenticator app", now=timezone.now())
        request.session[DEVICE] = enrolment.device.pk
        return enrolment

    def _enter(self, request: HttpRequest, proven: Proven) -> HttpResponseRedirect:
        user, now = proven.user, timezone.now()
        target = self._target(request)
        _forget(request)
        session = begin_browser(request, proven, now=now)
        if session is not None:
            notice_new_device(session.pk)
        payload = AdminEntered(
            user_id=str(user.pk), amr=list(proven.amr), client_address=client_address(request)
        )
        ADMIN_ENTERED.emit(payload, owner=user)
        return HttpResponseRedirect(target)

    def _page(
        self, request: HttpRequest, template: str, extra: dict[str, Any] | None, **context: Any
    ) -> HttpResponse:
        request.current_app = self.name
        context = {
            **self.each_context(request),
            "title": "Log in",
            "subtitle": None,
            "app_path": request.get_full_path(),
            "username": request.user.get_username(),
            REDIRECT_FIELD_NAME: self._target(request),
            **(extra or {}),
            **context,
        }
        return TemplateResponse(request, template, context)

    def _target(self, request: HttpRequest) -> str:
        wanted = request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME) or ""
        is_ours = url_has_allowed_host_and_scheme(
            wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
        )
        return wanted if is_ours else reverse("admin:index", current_app=self.name)


def _waiting(request: HttpRequest) -> MFAChallenge | None:
    pk = request.session.get(CHALLENGE)
    try:
        return open_challenge(now=timezone.now(), pk=pk) if pk else None
    except InvalidMFAToken:
        return None


def _start_again(request: HttpRequest, error: SvcInfraError) -> HttpResponse:
    _forget(request)
    messages.error(request, error.message)
    return HttpResponseRedirect(request.get_full_path())


def _forget(request: HttpRequest) -> None:
    for key in (CHALLENGE, DEVICE):
        request.session.pop(key, None)
