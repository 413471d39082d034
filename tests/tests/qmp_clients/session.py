"""Sessions of qemu.qmp with a switch. Arguments: what to do, and what it needs; an assertion that fails is the result."""

import asyncio
import os
import sys
import tempfile

from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient

PATIENCE_S = 20


async def connected(address):
    client = QMPClient("test")
    await client.connect(address)
    return client


async def refused(client, command, arguments=None, **how):
    try:
        await client.execute(command, arguments, **how)
    except ExecuteError as error:
        return error.error_class, str(error)
    raise AssertionError(f"{command} was to be refused")


async def commands(address):
    client = await connected(address)
    assert client.greeting.QMP.version["package"].startswith("ringyard-")
    assert client.greeting.QMP.capabilities == ["oob"]
    assert (await client.execute("query-status"))["running"]
    names = {command["name"] for command in await client.execute("query-commands")}
    assert {"netdev_add", "query-rx-filter", "qmp_capabilities"} <= names
    assert await refused(client, "nope") == ("CommandNotFound", "The command nope has not been found")
    assert await refused(client, "netdev_del", {"id": "x"}) == ("DeviceNotFound", "Device 'x' not found")
    # The client has enabled what was offered.
    overtaking = await refused(client, "query-status", oob=True)
    assert overtaking == ("GenericError", "The command query-status does not support OOB")
    assert await refused(client, "getfd", {"fdname": "a"}) == (
        "GenericError",
        "No file descriptor supplied via SCM_RIGHTS",
    )
    many = [client.execute("query-name") for _ in range(200)]
    assert await asyncio.gather(*many) == [{}] * 200
    await client.disconnect()


async def descriptors(address):
    client = await connected(address)
    with tempfile.TemporaryFile() as file:
        client.send_fd_scm(file.fileno())
        await client.execute("getfd", {"fdname": "a"})
        await client.execute("closefd", {"fdname": "a"})
        client.send_fd_scm(file.fileno())
        added = await client.execute("add-fd", {"fdset-id": 3})
    assert added["fdset-id"] == 3
    await client.execute("remove-fd", added)
    await client.disconnect()


async def big_replies(address):
    """Of a switch with nic after nic: as long as they fit, all VLANs of each are listed."""
    client = await connected(address)
    entities = await client.execute("query-qmp-schema")
    assert len({entity["name"] for entity in entities}) == len(entities) > 100
    longest = 0
    for number in range(14):
        await client.execute("netdev_add", {"type": "nic", "id": f"g{number}"})
        filters = await client.execute("query-rx-filter")
        assert len(filters) == number + 1 and {nic["vlan"] for nic in filters} == {"all"}
        longest = max(longest, sum(len(nic["vlan-table"]) for nic in filters))
    assert longest >= 10 * 4096, "ten fit"
    assert not any(nic["vlan-table"] for nic in filters), "fourteen do not"
    assert len((await client.execute("query-rx-filter", {"name": "g3"}))[0]["vlan-table"]) == 4096
    await client.disconnect()


async def events(address):
    client, other = await connected(address), await connected(address)
    await client.execute("netdev_add", {"type": "nic", "id": "e0"})
    listener = EventListener("NIC_RX_FILTER_CHANGED")
    with client.listen(listener):
        for number in range(100):
            await other.execute("x-set-rx-filter", {"name": "e0", "promiscuous": number % 2 == 0})
            event = await asyncio.wait_for(listener.get(), PATIENCE_S)
            assert event["data"]["name"] == "e0" and event["timestamp"]["seconds"] > 0
            await client.execute("query-rx-filter", {"name": "e0"})
    await other.disconnect()
    await client.disconnect()
    # The same client comes again, and so does another.
    for _ in range(20):
        await client.connect(address)
        await client.execute("query-status")
        await client.disconnect()


async def served(path, times):
    """The client listens, and the switch comes to it, again and again."""
    client = QMPClient("test")
    await client.start_server(path)
    for _ in range(int(times)):
        await asyncio.wait_for(client.accept(), PATIENCE_S)
        assert (await client.execute("query-status"))["running"]
        await client.disconnect()
        await client.start_server(path)


async def goodbye(address):
    client, other = await connected(address), await connected(address)
    listener = EventListener("SHUTDOWN")
    with other.listen(listener):
        await client.execute("quit")
        event = await asyncio.wait_for(listener.get(), PATIENCE_S)
        assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}
    for each in client, other:
        try:
            await each.disconnect()
        except EOFError:
            pass  # The switch was quicker.
    try:
        await connected(address)
    except ConnectError:
        return
    raise AssertionError("it is gone")


def address_of(text):
    host, _, port = text.rpartition(":")
    return (host, int(port)) if port.isdecimal() and not os.path.exists(text) else text


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    session = {f.__name__: f for f in (commands, descriptors, big_replies, events, served, goodbye)}[what]
    asyncio.run(asyncio.wait_for(session(address_of(where), *more), 4 * PATIENCE_S))
