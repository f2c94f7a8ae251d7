-- What one instance keeps across restarts. Times are Unix milliseconds, flags are 0 or 1. No STRICT
-- tables, for the sqlite3 command of long-lived distributions.
--
-- Rows of a session that has no row in "session" are of no use; they are removed a while later.

CREATE TABLE written (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    at_ms    INTEGER NOT NULL
);
INSERT INTO written VALUES (1, 0);

CREATE TABLE session (
    key            INTEGER PRIMARY KEY,
    client_id      TEXT NOT NULL UNIQUE,
    purpose        TEXT NOT NULL CHECK (purpose IN ('device', 'admin')),
    administrator  INTEGER NOT NULL,
    issuer         TEXT NOT NULL,
    serial         TEXT NOT NULL,
    common_name    TEXT,
    ca_sn          TEXT NOT NULL,
    address        TEXT NOT NULL,
    since_ms       INTEGER NOT NULL,
    expires_at_ms  INTEGER,
    next_packet_id INTEGER NOT NULL
);

CREATE TABLE will (
    session        INTEGER PRIMARY KEY,
    due_at_ms      INTEGER NOT NULL,
    expiry_seconds INTEGER,
    qos            INTEGER NOT NULL,
    retain         INTEGER NOT NULL,
    topic          TEXT NOT NULL,
    properties     BLOB NOT NULL,
    payload        BLOB NOT NULL
);

CREATE TABLE subscription (
    session    INTEGER NOT NULL,
    filter     TEXT NOT NULL,
    options    INTEGER NOT NULL,
    identifier INTEGER,
    PRIMARY KEY (session, filter)
) WITHOUT ROWID;

-- QoS 2 messages of the client that were received and not released.
CREATE TABLE received (
    session   INTEGER NOT NULL,
    packet_id INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;

-- On the way to the client, in the order of sending. Without a topic: received by it (PUBREC).
CREATE TABLE in_flight (
    session          INTEGER NOT NULL,
    place            INTEGER NOT NULL,
    packet_id        INTEGER NOT NULL,
    qos              INTEGER,
    retain           INTEGER,
    expires_at_ms    INTEGER,
    queued_at_ms     INTEGER,
    subscription_ids BLOB,
    topic            TEXT,
    properties       BLOB,
    payload          BLOB,
    PRIMARY KEY (session, place)
) WITHOUT ROWID;

-- Waiting for the client, in the order of their numbers.
CREATE TABLE queued (
    session          INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    qos              INTEGER NOT NULL,
    retain           INTEGER NOT NULL,
    expires_at_ms    INTEGER,
    queued_at_ms     INTEGER NOT NULL,
    subscription_ids BLOB NOT NULL,
    topic            TEXT NOT NULL,
    properties       BLOB NOT NULL,
    payload          BLOB NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;

CREATE TABLE retained (
    topic         TEXT PRIMARY KEY,
    qos           INTEGER NOT NULL,
    publisher     INTEGER NOT NULL,
    expires_at_ms INTEGER,
    properties    BLOB NOT NULL,
    payload       BLOB NOT NULL,
    -- When all are written anew: what has another mark at the end is retained no more.
    mark          INTEGER NOT NULL
);
CREATE INDEX retained_expiry ON retained (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
