"""Accounts at the owner's desk: what they use, and that switching one off ends everything at once."""

import time

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse

from accounts.models import Profile, User
from conftest import asked_for
from generation import services
from generation.models import Photo, Run

pytestmark = pytest.mark.django_db

LIST = reverse("admin:accounts_user_changelist")
MARKUP = "<script>alert('x')</script>"


def address(user):
    return reverse("admin:accounts_user_change", args=[user.pk])


def listed(page, *columns):
    found = page.context["cl"]
    said = {user: tuple(getattr(found.model_admin, name)(user) for name in columns) for user in found.result_list}
    return {user.email: values for user, values in said.items()}


def test_list_tells_what_was_used_today_and_of_which_limit(owner, alice, bob, start, work, settings):
    settings.DAILY_RUN_LIMIT = 9
    start(seed=7)
    work()
    start(seed=7)  # from the cache
    start(seed=8)
    services.cancel_run(start(seed=9))
    Profile.objects.filter(user=bob).update(daily_run_limit=0)
    found = listed(owner.get(LIST), "used_today", "limit", "kind")
    assert found[alice.email] == (2, "9", "Member")
    assert found[bob.email] == (0, "none (own)", "Member")
    assert found["owner@example.com"] == (0, "9", "Staff")
    page = owner.get(address(alice)).content.decode()
    assert f"{reverse('admin:generation_run_changelist')}?user__id__exact={alice.pk}" in page


def test_list_asks_the_same_for_one_three_and_a_hundred_accounts(owner, start):
    asked = [asked_for(owner, LIST)]
    for number in (2, 97):
        for _ in range(number):
            User.objects.create(email=f"{User.objects.count()}@example.com", password="!")
        asked.append(asked_for(owner, LIST))
    assert asked == [asked[0]] * 3
    assert asked[0] < 12


def test_guests_are_told_from_members_and_found_by_their_kind(owner, alice):
    guest = User.objects.guest("a" * 32)
    pages = {kind: owner.get(f"{LIST}?kind={kind}") for kind in ("member", "guest", "staff")}
    kinds = {kind: set(listed(page, "who").values()) for kind, page in pages.items()}
    assert kinds == {
        "member": {("alice · alice@example.com",)},
        "guest": {(f"guest {guest.pk}",)},
        "staff": {("owner · owner@example.com",)},
    }
    assert list(listed(owner.get(f"{LIST}?q=ALICE@exam"), "kind")) == [alice.email]


def test_own_limit_is_set_beside_the_account(owner, alice):
    page = owner.get(address(alice))
    (inline,) = page.context["inline_admin_formsets"]
    sent = {"email": alice.email, "is_active": "on", "profile-TOTAL_FORMS": 1, "profile-INITIAL_FORMS": 1}
    sent |= {"profile-0-id": inline.formset.forms[0].instance.pk, "profile-0-user": alice.pk}
    owner.post(address(alice), sent | {"profile-0-display_name": MARKUP, "profile-0-daily_run_limit": 3})
    profile = Profile.objects.get(user=alice)
    assert (profile.daily_run_limit, profile.display_name) == (3, MARKUP)
    for url in (LIST, address(alice)):
        text = owner.get(url).content.decode()
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text
        assert "avatar" not in text


# -- Switching off -------------------------------------------------------------------------------------------


def test_deactivated_account_is_signed_out_everywhere_at_once(owner, alice, start, client):
    run = start()
    client.force_login(alice)
    token = {"X-Session-Token": client.session.session_key, "X-App-Key": "dev"}
    app, asked = Client(), reverse("api:profile")
    assert [client.get(run.get_absolute_url()).status_code, app.get(asked, headers=token).status_code] == [200, 200]
    owner.post(LIST, {"action": "deactivate", "_selected_action": [alice.pk]})
    answer = client.get(run.get_absolute_url())
    assert (answer.status_code, answer.url.partition("?")[0]) == (302, reverse("account_login"))
    assert app.get(asked, headers=token).status_code == 401
    assert LogEntry.objects.get().change_message == "Deactivated."
    owner.post(LIST, {"action": "activate", "_selected_action": [alice.pk]})
    alice.refresh_from_db()
    assert alice.is_active


def test_nobody_switches_themselves_off_or_a_member_of_staff_without_being_superuser(owner, staff, alice):
    boss = User.objects.get(is_superuser=True)
    chosen = {"action": "deactivate", "_selected_action": [boss.pk]}
    owner.post(LIST, chosen)
    helper = staff("view_user", "change_user")
    helper.post(LIST, chosen | {"_selected_action": [boss.pk, alice.pk]})
    assert [User.objects.get(pk=user.pk).is_active for user in (boss, alice)] == [True, False]


def test_staff_give_themselves_no_rights(staff, alice):
    helper = staff("view_user", "change_user", "view_profile", "change_profile")
    boss = User.objects.create_superuser("boss@example.com", "x")
    helper.post(address(alice), {"email": alice.email, "is_active": "on", "is_superuser": "on", "is_staff": "on"})
    alice.refresh_from_db()
    assert (alice.is_superuser, alice.is_staff) == (False, False)
    assert helper.post(address(boss), {"email": "mine@example.com"}).status_code == 403
    assert helper.post(reverse("admin:auth_user_password_change", args=[boss.pk]), {}).status_code == 403


# -- Deleting, and who may -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_deleting_an_account_deletes_its_pictures(owner, alice, start, work):
    run = start()
    work()
    run.refresh_from_db()
    names = [run.photo.file.name, run.result.name]
    assert all(default_storage.exists(name) for name in names)
    page = owner.get(reverse("admin:accounts_user_delete", args=[alice.pk]))
    assert (page.context["perms_lacking"], dict(page.context["model_count"])["runs"]) == (set(), 1)
    owner.post(reverse("admin:accounts_user_delete", args=[alice.pk]), {"post": "yes"})
    assert [User.objects.filter(pk=alice.pk).count(), Photo.objects.count(), Run.objects.count()] == [0, 0, 0]
    assert not any(default_storage.exists(name) for name in names)


def test_pages_are_for_staff_who_may(client, alice, staff):
    for url in (LIST, address(alice)):
        client.logout()
        assert reverse("account_login") in client.get(url).url
        client.force_login(alice)
        assert client.get(url, follow=True).status_code == 403
        assert staff("view_run").get(url).status_code == 403
        assert staff("view_user").get(url).status_code == 200


# -- What people sign in with --------------------------------------------------------------------------------


@pytest.fixture
def second_steps(alice):
    boss = User.objects.create_superuser("boss@example.com")
    made = [
        (
            Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data={"secret": "CANARY"}),
            SocialAccount.objects.create(user=user, provider="google", uid=user.email, extra_data={"sub": "CANARY"}),
            EmailAddress.objects.create(user=user, email=user.email),
        )
        for user in (alice, boss)
    ]
    return dict(zip(("alice", "boss"), made, strict=True))


def pages(of):
    return [reverse(f"admin:{one._meta.app_label}_{one._meta.model_name}_change", args=[one.pk]) for one in of]


def test_secrets_of_sign_in_are_on_no_page(owner, second_steps):
    for address in pages(second_steps["alice"]):
        page = owner.get(address)
        assert page.status_code == 200
        assert b"CANARY" not in page.content
    for model in ("mfa/authenticator", "socialaccount/socialaccount"):
        assert owner.get(f"/admin/{model}/add/").status_code == 403
    for model in ("socialapp", "socialtoken"):
        assert owner.get(f"/admin/socialaccount/{model}/").status_code == 404


def test_lost_second_step_is_taken_away(owner, second_steps):
    step = second_steps["alice"][0]
    owner.post(reverse("admin:mfa_authenticator_delete", args=[step.pk]), {"post": "yes"})
    assert not Authenticator.objects.filter(pk=step.pk).exists()


def test_what_staff_sign_in_with_is_the_superusers_matter(staff, second_steps):
    rights = [f"{right}_{model}" for model in ("authenticator", "socialaccount", "emailaddress")
              for right in ("view", "change", "add", "delete")]  # fmt: skip
    helper = staff(*rights)
    for address in pages(second_steps["alice"]):
        assert helper.get(address).status_code == 200
    for address in pages(second_steps["boss"]):
        assert helper.get(address).status_code == 302
        assert helper.post(address.replace("change", "delete"), {"post": "yes"}).status_code in (302, 403)
    assert all(type(one).objects.filter(pk=one.pk).exists() for one in second_steps["boss"])


RIGHTS = [
    f"{right}_{model}"
    for model in ("user", "profile", "emailaddress", "authenticator", "socialaccount", "usersession", "group")
    for right in ("view", "change", "add", "delete")
]


def test_staff_with_every_right_take_over_no_member(staff, second_steps, alice):
    helper = staff(*RIGHTS)
    step, social, row = second_steps["alice"]
    session = UserSession.objects.create(user=alice, ip="203.0.113.9", session_key="k" * 32, user_agent="x")
    before = User.objects.values().get(pk=alice.pk)
    page = helper.get(address(alice)).content.decode()
    assert alice.email in page
    assert 'name="email"' not in page
    assert "password/" not in page
    assert before["password"] not in page
    inlines = {"profile-TOTAL_FORMS": 0, "profile-INITIAL_FORMS": 0}
    sent = {"email": "mine@example.com", "password": "x", "is_active": "on"} | inlines
    assert helper.post(address(alice), sent).status_code == 302
    words = {"password1": "a-password-of-staff", "password2": "a-password-of-staff", "usable_password": "true"}
    assert helper.post(reverse("admin:auth_user_password_change", args=[alice.pk]), words).status_code == 403
    asked = {"action": "make_verified", "_selected_action": [row.pk]}
    helper.post(reverse("admin:account_emailaddress_changelist"), asked)
    changed = {"email": "mine@example.com", "user": alice.pk, "verified": "on", "primary": "on"}
    helper.post(reverse("admin:account_emailaddress_change", args=[row.pk]), changed)
    rows = {
        "mfa_authenticator": step,
        "socialaccount_socialaccount": social,
        "account_emailaddress": row,
        "usersessions_usersession": session,
    }
    for name, one in rows.items():
        assert helper.post(reverse(f"admin:{name}_delete", args=[one.pk]), {"post": "yes"}).status_code == 403
        assert helper.post(reverse(f"admin:{name}_add"), changed).status_code == 403
        assert session.session_key not in helper.get(reverse(f"admin:{name}_changelist")).content.decode()
        assert type(one).objects.filter(pk=one.pk).exists()
    row.refresh_from_db()
    assert (row.verified, row.primary, row.email) == (False, False, alice.email)
    assert User.objects.values().get(pk=alice.pk) == before


def notices(mails):
    return [(one.to, one.subject) for one in mails if "administrator" in one.subject]


def test_superuser_changes_credentials_and_the_member_is_told(owner, second_steps, alice, mailoutbox):
    step, social, row = second_steps["alice"]
    words = {"password1": "a-password-of-the-owner", "password2": "another", "usable_password": "true"}
    password = reverse("admin:auth_user_password_change", args=[alice.pk])
    assert owner.post(password, words).status_code == 200
    assert notices(mailoutbox) == []
    owner.post(password, words | {"password2": words["password1"]})
    owner.post(reverse("admin:account_emailaddress_changelist"),
               {"action": "make_verified", "_selected_action": [row.pk]})  # fmt: skip
    owner.post(reverse("admin:mfa_authenticator_delete", args=[step.pk]), {"post": "yes"})
    owner.post(reverse("admin:socialaccount_socialaccount_delete", args=[social.pk]), {"post": "yes"})
    row.refresh_from_db()
    alice.refresh_from_db()
    assert (row.verified, alice.check_password(words["password1"])) == (True, True)
    told = ([alice.email], "An administrator changed your account")
    assert notices(mailoutbox) == [told] * 4
    assert LogEntry.objects.count() == 4


def test_superuser_changes_an_address_and_the_old_one_is_told(owner, alice, mailoutbox):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    sent = {"email": "new@example.com", "is_active": "on", "profile-TOTAL_FORMS": 0, "profile-INITIAL_FORMS": 0}
    assert owner.post(address(alice), sent).status_code == 302
    alice.refresh_from_db()
    assert alice.email == "new@example.com"
    assert [(one.email, one.verified) for one in EmailAddress.objects.filter(user=alice)] == [(alice.email, False)]
    assert notices(mailoutbox) == [(["alice@example.com"], "An administrator changed your account")]
    assert LogEntry.objects.count() == 1


def test_superuser_ends_a_session(owner, client, alice):
    client.force_login(alice)
    assert client.get(reverse("profile")).status_code == 200
    key = client.session.session_key
    session = UserSession.objects.create(user=alice, ip="203.0.113.9", session_key=key, user_agent="x")
    owner.post(reverse("admin:usersessions_usersession_delete", args=[session.pk]), {"post": "yes"})
    assert client.get(reverse("profile")).status_code == 302


# -- A session of the superuser that was left open -----------------------------------------------------------------


@pytest.fixture
def left_open(owner, time_machine):
    time_machine.move_to(time.time() + 301, tick=True)
    return owner


WORDS = {"password1": "a-password-of-a-thief", "password2": "a-password-of-a-thief", "usable_password": "true"}
INLINES = {"profile-TOTAL_FORMS": 0, "profile-INITIAL_FORMS": 0}


def asks_for_a_proof(answer):
    """See that the answer leads to the page that asks for the password, itself or after one step."""
    return answer.status_code == 302 and answer.url.startswith(reverse("account_reauthenticate"))


@pytest.mark.parametrize("whose", ["alice", "owner"])
def test_old_session_of_a_superuser_sets_no_password(left_open, alice, whose):
    user = User.objects.get(email=f"{whose}@example.com")
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    assert asks_for_a_proof(left_open.get(page))
    assert left_open.post(page, WORDS).url == page
    assert WORDS["password1"] not in str(dict(left_open.session))
    assert User.objects.get(pk=user.pk).password == user.password
    left_open.post(reverse("account_reauthenticate"), {"password": "a-password-of-the-owner"})
    assert left_open.post(page, WORDS).status_code == 302
    assert User.objects.get(pk=user.pk).check_password(WORDS["password1"])


@pytest.mark.parametrize("change", [{"email": "mine@example.com"}, {"is_staff": "on"}, {"is_superuser": "on"}])
def test_old_session_of_a_superuser_changes_neither_addresses_nor_rights(left_open, alice, change):
    before = User.objects.values().get(pk=alice.pk)
    sent = {"email": alice.email, "is_active": "on"} | INLINES
    assert asks_for_a_proof(left_open.post(address(alice), sent | change))
    assert User.objects.values().get(pk=alice.pk) == before
    # What is no credential and no right needs none.
    answer = left_open.post(address(alice), {key: sent[key] for key in sent if key != "is_active"})
    assert not asks_for_a_proof(answer)
    assert not User.objects.get(pk=alice.pk).is_active


def test_old_session_of_a_superuser_adds_deletes_and_switches_on_no_account(left_open, alice):
    User.objects.filter(pk=alice.pk).update(is_active=False)
    group = Group.objects.create(name="helpers")
    chosen = {"action": "delete_selected", "_selected_action": [alice.pk], "post": "yes"}
    new = {"email": "new@example.com", "usable_password": "true"} | WORDS
    for page, sent in [
        (address(alice), {"email": alice.email, "is_active": "on"} | INLINES),
        (reverse("admin:accounts_user_add"), new),
        (reverse("admin:accounts_user_delete", args=[alice.pk]), {"post": "yes"}),
        (reverse("admin:accounts_user_changelist"), chosen),
        (reverse("admin:auth_group_add"), {"name": "others"}),
        (reverse("admin:auth_group_change", args=[group.pk]), {"name": "helpers", "permissions": ["1"]}),
        (reverse("admin:auth_group_delete", args=[group.pk]), {"post": "yes"}),
    ]:
        assert asks_for_a_proof(left_open.post(page, sent)), page
    assert not User.objects.get(pk=alice.pk).is_active
    assert User.objects.count() == 2
    assert not Group.objects.get().permissions.exists()


def test_old_session_of_a_superuser_changes_nothing_that_people_sign_in_with(left_open, second_steps, alice):
    step, social, row = second_steps["alice"]
    session = UserSession.objects.create(user=alice, ip="203.0.113.9", session_key="k" * 32, user_agent="x")
    for name, one in (("mfa_authenticator", step), ("socialaccount_socialaccount", social),
                      ("account_emailaddress", row), ("usersessions_usersession", session)):  # fmt: skip
        assert left_open.get(reverse(f"admin:{name}_changelist")).status_code == 200
        chosen = {"action": "delete_selected", "_selected_action": [one.pk], "post": "yes"}
        assert asks_for_a_proof(left_open.post(reverse(f"admin:{name}_changelist"), chosen))
        assert asks_for_a_proof(left_open.post(reverse(f"admin:{name}_delete", args=[one.pk]), {"post": "yes"}))
        assert type(one).objects.filter(pk=one.pk).exists()
    page = reverse("admin:account_emailaddress_change", args=[row.pk])
    assert asks_for_a_proof(left_open.post(page, {"verified": "on", "primary": "on"}))
    marked = {"action": "make_verified", "_selected_action": [row.pk]}
    assert asks_for_a_proof(left_open.post(reverse("admin:account_emailaddress_changelist"), marked))
    row.refresh_from_db()
    assert not row.verified
    assert not LogEntry.objects.exists()


def test_admin_site_has_no_password_page_of_its_own(owner, staff):
    guess = {"old_password": "a-password-of-the-owner", "new_password1": "x-quite-new", "new_password2": "x-quite-new"}
    for client in (owner, staff()):
        for name in ("password_change", "password_change_done"):
            assert client.get(reverse(f"admin:{name}")).url == reverse("account_change_password")
            assert client.post(reverse(f"admin:{name}"), guess).url == reverse("account_change_password")
    assert User.objects.get(email="owner@example.com").check_password("a-password-of-the-owner")
