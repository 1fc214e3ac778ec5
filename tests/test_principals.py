from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, Permission
from django.test.utils import isolate_apps
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.principals import LazyUser, Principal, covered, loaded

VIEW = "auth.view_group"


@pytest.fixture
def clerk(user):
    user.user_permissions.add(Permission.objects.get(content_type__app_label="auth", codename="view_group"))
    return type(user).objects.get(pk=user.pk)


def test_without_scopes_the_user_decides(clerk) -> None:
    principal = Principal(user=clerk, method="session")

    assert principal.can(VIEW)
    assert not principal.can("auth.add_group")


@pytest.mark.parametrize(
    ("scopes", "allowed"), [((), False), ((VIEW,), True), (("auth.*",), True), (("auth.add_group",), False)]
)
def test_scopes_narrow(clerk, scopes, allowed) -> None:
    assert Principal(user=clerk, method="api_key", scopes=frozenset(scopes)).can(VIEW) is allowed


def test_scopes_never_widen(clerk) -> None:
    assert not Principal(user=clerk, method="api_key", scopes=frozenset({"*"})).can("auth.add_group")


def test_a_disabled_superuser_may_nothing(make_user) -> None:
    root = make_user("root", is_superuser=True)
    assert Principal(user=root, method="jwt").can(VIEW)

    root.is_active = False

    assert not Principal(user=root, method="jwt").can(VIEW)


class Generous:
    """An authentication backend that says yes to whoever asks."""

    def has_perm(self, user, permission, obj=None) -> bool:
        return True


def test_the_inactive_and_the_anonymous_may_nothing_whatever_a_backend_says(settings, user) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Generous"]
    assert Principal(user=user, method="jwt").can(VIEW)

    user.is_active = False

    assert not Principal(user=user, method="jwt").can(VIEW)
    assert not Principal(user=AnonymousUser(), method="session", tenant="acme").can(VIEW)


@pytest.mark.django_db(transaction=True)
def test_asking_from_async_code(user) -> None:
    principal = Principal(user=user, method="jwt")

    assert async_to_sync(principal.acan)(VIEW) is False


def test_only_keys_are_delegated() -> None:
    assert Principal(user=None, method="api_key").is_delegated
    assert not Principal(user=None, method="jwt").is_delegated
    assert not Principal(user=None, method="session").is_delegated


parts = st.text("abcz_*", min_size=1, max_size=5)
names = st.lists(parts, min_size=2, max_size=4).map(".".join)


@given(names)
def test_a_permission_covers_itself_and_a_star_covers_it(permission: str) -> None:
    assert covered(permission, [permission])
    assert covered(permission, ["*"])
    assert covered(permission, [permission.rpartition(".")[0] + ".*"])


@given(names, names)
def test_only_whole_parts_are_covered(permission: str, other: str) -> None:
    wildcard = f"{other}.*"

    expected = permission == wildcard or permission.split(".")[: other.count(".") + 1] == other.split(".")
    assert covered(permission, [wildcard]) is (expected and len(permission) > len(other))


@pytest.mark.parametrize("pattern", ["ord*", "orders.add*", ".*", "", "orders", "*.add_order", "orders.**"])
def test_a_star_is_no_piece_of_a_word(pattern: str) -> None:
    assert not covered("orders.add_order", [pattern])


def test_one_string_is_not_a_collection_of_patterns() -> None:
    with pytest.raises(TypeError):
        covered("orders.add_order", "svc.*")


def test_a_lazy_user_is_read_when_more_is_asked_than_the_key(user, django_assert_num_queries) -> None:
    lazy = LazyUser(user.pk, lambda: type(user).objects.get(pk=user.pk))

    with django_assert_num_queries(0):
        assert (lazy.pk, lazy.is_active, lazy.is_authenticated, lazy.is_anonymous) == (
            user.pk,
            True,
            True,
            False,
        )
    with django_assert_num_queries(1):
        assert lazy.username == "ada"
        assert isinstance(lazy, type(user))
        assert lazy == user


def test_what_is_set_on_a_lazy_user_is_set_on_the_user(user) -> None:
    lazy = LazyUser(user.pk, lambda: type(user).objects.get(pk=user.pk))
    lazy.is_active = False
    lazy.save()

    assert lazy.is_active is False
    assert not type(user).objects.get(pk=user.pk).is_active


def test_a_user_is_loaded_once(user, django_assert_num_queries) -> None:
    lazy = LazyUser(user.pk, lambda: type(user).objects.get(pk=user.pk))

    with django_assert_num_queries(1):
        assert loaded(lazy) is lazy
        assert loaded(lazy).username == "ada"
    assert loaded(user) is user


class Denying:
    """A backend that has a verdict, as RoleBackend has."""

    def has_perm(self, user, permission, obj=None) -> bool:
        return self.verdict(user, permission, obj) is True

    def denies(self, user, permission, obj=None) -> bool:
        return self.verdict(user, permission, obj) is False and not user.is_superuser

    def verdict(self, user, permission, obj=None) -> bool | None:
        return {"a.yes": True, "a.no": False}.get(permission)


class Stricter(Denying):
    def verdict(self, user, permission, obj=None) -> bool | None:
        return {"a.no": True, "a.yes": False}.get(permission)


@pytest.mark.parametrize(
    ("backends", "allowed"),
    [
        (["Denying"], {"a.yes"}),
        (["Denying", "Generous"], {"a.yes", "a.other"}),
        (["Generous", "Denying"], {"a.yes", "a.other"}),
        (["Denying", "Stricter"], set()),
        (["Generous"], {"a.yes", "a.no", "a.other"}),
    ],
)
def test_the_first_backend_decides_unless_one_behind_it_denies(settings, user, backends, allowed) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.{name}" for name in backends]
    root = type(user)(pk=7, is_superuser=True)

    for tenant in ("", "acme"):
        for asked in ("a.yes", "a.no", "a.other"):
            for obj in (None, user):
                assert Principal(user, "jwt", tenant=tenant).can(asked, obj) is (asked in allowed)
                assert Principal(root, "jwt", tenant=tenant).can(asked, obj) is True


@isolate_apps("django.contrib.auth")
def test_a_user_who_answers_for_themselves_is_asked(settings, user) -> None:
    class Stubborn(type(user)):
        class Meta:
            proxy = True
            app_label = "auth"

        def has_perm(self, permission, obj=None) -> bool:
            return False

    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Denying"]

    assert Principal(user, "jwt").can("a.yes")
    assert not Principal(Stubborn(pk=user.pk), "jwt").can("a.yes")
