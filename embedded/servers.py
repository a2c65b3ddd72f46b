"""All of this machine's own servers together, below one state folder."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from embedded.mailserver import MailServer, start_mail_server
from embedded.postgresql import PostgreSQL, start_postgresql
from embedded.processes import claim
from embedded.synapse import HASH_ROUNDS, Synapse, prepare_synapse


@dataclass(frozen=True)
class Servers:
    """What runs below `state`."""

    state: Path
    postgresql: PostgreSQL
    synapse: Synapse
    mail: MailServer


@asynccontextmanager
async def start_all(
    state: Path,
    *,
    matrix_port: int | None = None,
    mail_port: int | None = None,
    server_name: str = "localhost",
    durable: bool = True,
    hash_rounds: int = HASH_ROUNDS,
    claimed: Callable[[Path], None] = lambda _: None,
) -> AsyncIterator[Servers]:
    """Run all servers while the context lasts; `state/mail` is the Maildir.

    `claimed` is called with the state folder as soon as no other process has it.

    Started again on the same folder they go on with the same data and ports. Raises EmbeddedFailed, everything
    stopped again.
    """
    async with AsyncExitStack() as stack:
        # The account that PostgreSQL runs as passes through, if we are root; it reads nothing here.
        folder = await claim(state, 0o711 if os.geteuid() == 0 else 0o700)
        stack.callback(folder.release)
        claimed(folder.path)
        mail = await start_mail_server(folder.path / "mail", port=mail_port)
        stack.push_async_callback(mail.stop)
        starting = await prepare_synapse(folder.path / "synapse", matrix_port, server_name, hash_rounds)
        try:
            postgresql = await start_postgresql(folder.path / "postgresql", durable=durable)
        except BaseException:
            await starting.abandon()
            raise
        stack.push_async_callback(postgresql.stop)
        synapse = await starting.go(postgresql)
        stack.push_async_callback(synapse.stop)
        yield Servers(folder.path, postgresql, synapse, mail)
