"""The homeserver's admin API, on a real Synapse."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from bot.administration import Administrator
from bot.requests import Homeserver, HomeserverRefused
from embedded.postgresql import PostgreSQL
from embedded.synapse import Synapse
from supervision.errors import Permanent, Transient
from tests.support.homeserver import PASSWORD, make_account
from tests.support.proxy import Proxy


@pytest.fixture
async def administrator(synapse: Synapse) -> AsyncIterator[Administrator]:
    administrator = Administrator(synapse.base_url, synapse.admin_token)
    yield administrator
    await administrator.close()


@pytest.fixture
async def homeserver(synapse: Synapse) -> AsyncIterator[Homeserver]:
    homeserver = Homeserver(synapse.base_url)
    yield homeserver
    await homeserver.close()


async def log_in(homeserver: Homeserver, user_id: str, password: str = PASSWORD) -> str:
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": password,
    }
    return str((await homeserver.ask("POST", "/login", body))["access_token"])


async def whoami(homeserver: Homeserver, token: str) -> bool:
    homeserver.token = token
    try:
        await homeserver.ask("GET", "/account/whoami")
    except HomeserverRefused as refused:
        if refused.code != "M_UNKNOWN_TOKEN":
            raise
        return False
    finally:
        homeserver.token = None
    return True


async def register(homeserver: Homeserver, localpart: str, token: str) -> str:
    body: dict[str, Any] = {"username": localpart, "password": PASSWORD, "inhibit_login": True}
    with pytest.raises(HomeserverRefused) as challenge:
        await homeserver.ask("POST", "/register", body)
    session = challenge.value.answer["session"]
    auth = {"type": "m.login.registration_token", "token": token, "session": session}
    with pytest.raises(HomeserverRefused):
        await homeserver.ask("POST", "/register", body | {"auth": {"type": "m.login.dummy", "session": session}})
    return str((await homeserver.ask("POST", "/register", body | {"auth": auth}))["user_id"])


async def test_a_registration_token_serves_once(administrator: Administrator, homeserver: Homeserver) -> None:
    token = await administrator.open_registration(datetime.now(UTC) + timedelta(hours=1))
    localpart = f"person-{secrets.token_hex(4)}"
    assert (await register(homeserver, localpart, token)).startswith(f"@{localpart}:")
    with pytest.raises(HomeserverRefused) as refused:
        await register(homeserver, f"{localpart}-2", token)
    assert refused.value.code == "M_UNAUTHORIZED"


async def test_a_registration_that_is_closed_serves_nobody(
    administrator: Administrator, homeserver: Homeserver
) -> None:
    token = await administrator.open_registration(datetime.now(UTC) + timedelta(hours=1))
    await administrator.close_registration(token)
    await administrator.close_registration(token)
    with pytest.raises(HomeserverRefused) as refused:
        await register(homeserver, f"person-{secrets.token_hex(4)}", token)
    assert refused.value.code == "M_UNAUTHORIZED"


async def test_a_password_is_replaced_and_devices_are_kept_or_signed_out(
    administrator: Administrator, homeserver: Homeserver, synapse: Synapse
) -> None:
    user_id = await make_account(synapse)
    phone = await log_in(homeserver, user_id)
    await administrator.reset_password(user_id, "a passing one", sign_out=False)
    assert await whoami(homeserver, phone)
    with pytest.raises(HomeserverRefused):
        await log_in(homeserver, user_id)
    assert await log_in(homeserver, user_id, "a passing one")
    await administrator.sign_out(user_id)
    await administrator.sign_out(user_id)
    assert not await whoami(homeserver, phone)


async def test_an_account_is_ended(administrator: Administrator, homeserver: Homeserver, synapse: Synapse) -> None:
    user_id = await make_account(synapse)
    await administrator.deactivate(user_id)
    await administrator.deactivate(user_id)
    with pytest.raises(HomeserverRefused):
        await log_in(homeserver, user_id)


async def test_nobody_is_served_without_the_right_token(synapse: Synapse) -> None:
    stranger = Administrator(synapse.base_url, "nobodys-token")
    try:
        with pytest.raises(Transient) as refused:  # what is asked for is no worse for it
            await stranger.open_registration(datetime.now(UTC) + timedelta(hours=1))
    finally:
        await stranger.close()
    assert (refused.value.code, refused.value.retry_after) == ("admin_token_refused", 300.0)


async def test_media_that_are_gone_count_as_deleted(administrator: Administrator, synapse: Synapse) -> None:
    await administrator.delete_media(f"mxc://{synapse.server_name}/nothinghere")
    assert await administrator.uploader_of(f"mxc://{synapse.server_name}/nothinghere") is None
    assert await administrator.uploader_of("mxc://elsewhere.example/nothinghere") is None
    with pytest.raises(Permanent):
        await administrator.delete_media("https://example.org/nothing")


@pytest.mark.parametrize(("status", "said"), [(404, None), (404, {}), (404, {"errcode": "M_UNRECOGNIZED"}), (400, {})])
async def test_where_there_is_no_admin_api_nothing_counts_as_gone_or_refused(
    proxy: Proxy, synapse: Synapse, status: int, said: dict[str, Any] | None
) -> None:
    """A proxy hides it, or leads elsewhere for a while: what is to be removed there is all still there."""
    proxy.refuse = lambda *_: (status, said or {})
    url = f"{synapse.base_url}/elsewhere" if said is None else proxy.url
    administrator = Administrator(url, synapse.admin_token)
    try:
        for removal in (
            administrator.delete_media(f"mxc://{synapse.server_name}/something"),
            administrator.purge_history("!room:localhost", datetime.now(UTC)),
            administrator.remove_room("!room:localhost"),
            administrator.uploader_of(f"mxc://{synapse.server_name}/something"),
        ):
            with pytest.raises(Transient) as hidden:
                await removal
            assert (hidden.value.code, hidden.value.retry_after) == ("no_admin_api", 300.0)
    finally:
        await administrator.close()


@pytest.mark.parametrize("place", ["/forward_extremities", "/media/", "/purge_history/"])
async def test_what_cannot_be_understood_is_asked_again(
    proxy: Proxy, synapse: Synapse, homeserver: Homeserver, place: str
) -> None:
    """Without its ends a room could be purged to death; without its uploader a file would count as gone."""
    room_id = await make_room(homeserver, synapse)
    answer = (404, {"errcode": "M_NOT_FOUND"}) if place == "/purge_history/" else (200, {})
    proxy.refuse = lambda _, path: answer if place in path else None
    administrator = Administrator(proxy.url, synapse.admin_token)
    try:
        file, now = f"mxc://{synapse.server_name}/something", datetime.now(UTC)
        asking = administrator.uploader_of(file) if "media" in place else administrator.purge_history(room_id, now)
        with pytest.raises(Transient, match="homeserver_incomprehensible"):
            await asking
    finally:
        await administrator.close()


async def test_what_an_old_synapse_cannot_do_is_not_asked_of_it_for_ever(proxy: Proxy, synapse: Synapse) -> None:
    """It knows the path, and something else to do there: the admin API is found."""
    proxy.refuse = lambda *_: (405, {"errcode": "M_UNRECOGNIZED"})
    administrator = Administrator(proxy.url, synapse.admin_token)
    try:
        with pytest.raises(HomeserverRefused, match="M_UNRECOGNIZED"):
            await administrator.uploader_of(f"mxc://{synapse.server_name}/something")
    finally:
        await administrator.close()


async def make_room(homeserver: Homeserver, synapse: Synapse) -> str:
    homeserver.token = await log_in(homeserver, await make_account(synapse))
    return str((await homeserver.ask("POST", "/createRoom", {"preset": "private_chat"}))["room_id"])


async def say(homeserver: Homeserver, room_id: str, body: str) -> str:
    target = f"/rooms/{room_id}/send/m.room.message/{secrets.token_hex(8)}"
    return str((await homeserver.ask("PUT", target, {"msgtype": "m.text", "body": body}))["event_id"])


async def is_there(homeserver: Homeserver, room_id: str, event_id: str) -> bool:
    try:
        await homeserver.ask("GET", f"/rooms/{room_id}/event/{event_id}")
    except HomeserverRefused as refused:
        if refused.status != 404:
            raise
        return False
    return True


async def test_all_that_was_written_before_a_time_is_purged(
    administrator: Administrator, homeserver: Homeserver, synapse: Synapse
) -> None:
    room_id = await make_room(homeserver, synapse)
    before = [await say(homeserver, room_id, f"before {number}") for number in range(3)]
    bound = datetime.now(UTC)
    after = await say(homeserver, room_id, "after")
    assert await administrator.purge_history(room_id, bound)
    assert [await is_there(homeserver, room_id, one) for one in (*before, after)] == [False, False, False, True]
    assert await administrator.purge_history(room_id, bound - timedelta(days=400))


async def leave_end(postgresql: PostgreSQL, room_id: str, event_id: str) -> None:
    """Let an event be an end of the room, as where servers that were apart wrote what follows it."""
    connection = await asyncpg.connect(postgresql.url("synapse", "postgres"))
    try:
        query = "INSERT INTO event_forward_extremities (event_id, room_id) VALUES ($1, $2)"
        await connection.execute(query, event_id, room_id)
    finally:
        await connection.close()


async def put_state(homeserver: Homeserver, room_id: str) -> str:
    target = f"/rooms/{room_id}/state/org.visavis.test/{secrets.token_hex(4)}"
    return str((await homeserver.ask("PUT", target, {"value": "x"}))["event_id"])


@pytest.mark.parametrize("since", ["nothing", "the deepest end"])
async def test_a_room_in_which_people_wrote_at_once_goes_on_after_a_purge(
    administrator: Administrator, homeserver: Homeserver, synapse: Synapse, postgresql: PostgreSQL, since: str
) -> None:
    """Without a look at all of the room's ends Synapse takes one for an outlier, and answers 500 there for ever."""
    room_id = await make_room(homeserver, synapse)
    old, end, deepest = await say(homeserver, room_id, "old"), *[await put_state(homeserver, room_id) for _ in range(2)]
    await leave_end(postgresql, room_id, end)
    assert {one["event_id"] for one in await administrator.ends(room_id)} == {end, deepest}
    written_at = (await homeserver.ask("GET", f"/rooms/{room_id}/event/{deepest}"))["origin_server_ts"]
    at = datetime.fromtimestamp(written_at / 1000, UTC) if since == "the deepest end" else datetime.now(UTC)
    assert not await administrator.purge_history(room_id, at)
    assert not await is_there(homeserver, room_id, old)
    assert await say(homeserver, room_id, "and on")


async def test_a_room_is_removed_with_everything(
    administrator: Administrator, homeserver: Homeserver, synapse: Synapse
) -> None:
    room_id = await make_room(homeserver, synapse)
    await administrator.remove_room(room_id)
    await administrator.remove_room(room_id)
    assert await homeserver.ask("GET", "/joined_rooms") == {"joined_rooms": []}
    url = f"{synapse.base_url}/_synapse/admin/v1/rooms/{room_id}"
    async with synapse.http.get(url, headers={"Authorization": f"Bearer {synapse.admin_token}"}) as answer:
        assert answer.status == 404
