// A person's Element without its face. Reads one JSON command a line, answers each by one line {"id", "ok"} or
// {"id", "error"}, and tells every timeline event by a line {"event"}; an event that could not be decrypted is told
// with its reason, and again once it could. All logging goes to stderr.
import { Console } from "node:console";
import { createInterface } from "node:readline";

globalThis.console = new Console({ stdout: process.stderr, stderr: process.stderr });

const { ClientEvent, MatrixEventEvent, RoomEvent, createClient } = await import("matrix-js-sdk");
const { OnlySignedDevicesIsolationMode } = await import("matrix-js-sdk/lib/crypto-api/index.js");

let client, password, storageKey;

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const commands = {
    async login({ homeserver, user_id, password: given, signed }) {
        password = given;
        const made = await createClient({ baseUrl: homeserver }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: user_id },
            password,
            initial_device_display_name: "Element engine",
        });
        client = createClient({
            baseUrl: homeserver,
            userId: made.user_id,
            deviceId: made.device_id,
            accessToken: made.access_token,
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], storageKey],
                cacheSecretStorageKey: (id, info, key) => (storageKey = key),
            },
        });
        await client.initRustCrypto({ useIndexedDB: false });
        const crypto = client.getCrypto();
        crypto.setDeviceIsolationMode(new OnlySignedDevicesIsolationMode());
        if (signed) await commands.cross_sign();
        client.on(RoomEvent.Timeline, (event) => event.isEncrypted() || tellEvent(event));
        client.on(MatrixEventEvent.Decrypted, tellEvent);
        await client.startClient({ initialSyncLimit: 100 });
        await until(() => client.getSyncState() === "PREPARED" || client.getSyncState() === "SYNCING");
        return { user_id: made.user_id, device_id: made.device_id, master_key: await crypto.getCrossSigningKeyId() };
    },

    async cross_sign() {
        await client.getCrypto().bootstrapCrossSigning({
            setupNewCrossSigning: true,
            authUploadDeviceSigningKeys: prove,
        });
        return {};
    },

    async reset() {
        await client.getCrypto().resetEncryption(prove);
        return {};
    },

    async keep_keys() {
        const made = await client.getCrypto().createRecoveryKeyFromPassphrase();
        await client.getCrypto().bootstrapSecretStorage({
            createSecretStorageKey: async () => made,
            setupNewSecretStorage: true,
        });
        return { recovery_key: Buffer.from(made.privateKey).toString("base64") };
    },

    async recover({ recovery_key }) {
        storageKey = new Uint8Array(Buffer.from(recovery_key, "base64"));
        await until(() => client.getAccountData("m.secret_storage.default_key"));
        await client.getCrypto().bootstrapCrossSigning({});
        return {};
    },

    async join({ room_id }) {
        await until(() => ["invite", "join"].includes(client.getRoom(room_id)?.getMyMembership()));
        if (client.getRoom(room_id).getMyMembership() === "invite") await client.joinRoom(room_id);
        await until(() => client.getRoom(room_id)?.getMyMembership() === "join");
        await until(() => client.getRoom(room_id).hasEncryptionStateEvent());
        return {};
    },

    async send({ room_id, type, content }) {
        return { event_id: (await client.sendEvent(room_id, type, content)).event_id };
    },

    async react({ room_id, event_id, key }) {
        const relation = { rel_type: "m.annotation", event_id, key };
        return { event_id: (await client.sendEvent(room_id, "m.reaction", { "m.relates_to": relation })).event_id };
    },

    async quit() {
        client?.stopClient();
        return {};
    },
};

/** Let a change of the identity through by the password. */
function prove(upload) {
    return upload({ type: "m.login.password", identifier: { type: "m.id.user", user: client.getUserId() }, password });
}

/** Wait until `holds()` is true, looking at once and after each sync. */
function until(holds) {
    return new Promise((resolve) => {
        const look = () => {
            if (!holds()) return;
            client.off(ClientEvent.Sync, look);
            resolve();
        };
        client.on(ClientEvent.Sync, look);
        look();
    });
}

async function tellEvent(event) {
    if (event.isState() || event.status !== null) return; // a local echo comes again from the server
    const failed = event.isDecryptionFailure();
    const shield = event.isEncrypted() && !failed ? await client.getCrypto().getEncryptionInfoForEvent(event) : null;
    tell({
        event: {
            event_id: event.getId(),
            room_id: event.getRoomId(),
            sender: event.getSender(),
            type: failed ? "m.room.encrypted" : event.getType(),
            content: failed ? {} : { ...event.getContent(), "m.relates_to": event.getRelation() ?? undefined },
            encrypted: event.isEncrypted(),
            failure: failed ? event.decryptionFailureReason : null,
            shield: shield?.shieldReason ?? null,
        },
    });
}

for await (const line of createInterface({ input: process.stdin })) {
    const { id, command, ...values } = JSON.parse(line);
    // Not awaited: a command may wait for what a later one brings about.
    commands[command](values)
        .then((ok) => tell({ id, ok }))
        .catch((error) => tell({ id, error: String(error?.stack ?? error) }))
        .finally(() => command === "quit" && process.exit(0));
}
process.exit(0);
