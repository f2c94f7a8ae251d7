-- The registry: CA certificates, device certificates, register codes, and the number of the
-- last commit. Identifiers and serial numbers are lower-case hexadecimal text.
--
-- No STRICT tables: the sqlite3 command of several long-lived distributions is older than they
-- are and would refuse the whole file. The checks below do their work.

CREATE TABLE head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seq      INTEGER NOT NULL CHECK (typeof(seq) = 'integer' AND seq >= 0)
);
INSERT INTO head (only_row, seq) VALUES (1, 0);

CREATE TABLE ca (
    id               TEXT NOT NULL PRIMARY KEY
                     CHECK (length(id) = 64 AND id NOT GLOB '*[^0-9a-f]*'),
    -- Serial number, for the eye of an operator: written from der, never read back.
    sn               TEXT,
    instance         TEXT NOT NULL,
    name             TEXT NOT NULL,
    status           TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
    registered_at_ms INTEGER NOT NULL CHECK (typeof(registered_at_ms) = 'integer'),
    register_code    TEXT,
    verification_pem TEXT,
    der              BLOB NOT NULL CHECK (typeof(der) = 'blob' AND length(der) > 0)
);
CREATE INDEX ca_sn ON ca (sn);

CREATE TABLE device (
    instance      TEXT NOT NULL,
    issuer        TEXT NOT NULL CHECK (length(issuer) = 64 AND issuer NOT GLOB '*[^0-9a-f]*'),
    serial        TEXT NOT NULL CHECK (length(serial) BETWEEN 2 AND 42
                                       AND length(serial) % 2 = 0
                                       AND serial NOT GLOB '*[^0-9a-f]*'),
    ca            TEXT NOT NULL REFERENCES ca (id),
    name          TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
    first_seen_ms INTEGER NOT NULL CHECK (typeof(first_seen_ms) = 'integer'),
    der           BLOB NOT NULL CHECK (typeof(der) = 'blob' AND length(der) > 0),
    PRIMARY KEY (instance, issuer, serial)
);
CREATE INDEX device_ca ON device (ca);

-- A trigger and not ON DELETE CASCADE: the sqlite3 command has foreign keys off unless told
-- otherwise, and a CA deleted by hand must take its devices along too.
CREATE TRIGGER ca_takes_its_devices AFTER DELETE ON ca
BEGIN
    DELETE FROM device WHERE ca = OLD.id;
END;

CREATE TABLE register_code (
    code          TEXT NOT NULL PRIMARY KEY CHECK (length(code) > 0),
    instance      TEXT NOT NULL,
    account       TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL CHECK (typeof(expires_at_ms) = 'integer'),
    used          INTEGER NOT NULL CHECK (typeof(used) = 'integer' AND used IN (0, 1))
);
