-- Changes of CAs that are to be made at a time.

CREATE TABLE schedule (
    id            TEXT NOT NULL PRIMARY KEY
                  CHECK (length(id) = 16 AND id NOT GLOB '*[^0-9a-f]*'),
    ca            TEXT NOT NULL REFERENCES ca (id),
    -- The state that the CA is to have.
    status        TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
    at_ms         INTEGER NOT NULL CHECK (typeof(at_ms) = 'integer'),
    -- Whether it is made if it locks administrators out.
    force         INTEGER NOT NULL CHECK (typeof(force) = 'integer' AND force IN (0, 1)),
    -- Who asked for it, in the words of the audit log.
    principal     TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL CHECK (typeof(created_at_ms) = 'integer')
);
CREATE INDEX schedule_ca ON schedule (ca);

-- As with the devices: also if a CA is deleted by hand.
CREATE TRIGGER ca_takes_its_schedules AFTER DELETE ON ca
BEGIN
    DELETE FROM schedule WHERE ca = OLD.id;
END;
