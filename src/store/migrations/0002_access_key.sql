-- Access keys, which sign requests to the admin API. Of secret and sealed_secret one is there:
-- the secret as it is, or encrypted with the key that the configuration names.

CREATE TABLE access_key (
    id            TEXT NOT NULL PRIMARY KEY CHECK (length(id) > 0),
    account       TEXT NOT NULL,
    comment       TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
    created_at_ms INTEGER NOT NULL CHECK (typeof(created_at_ms) = 'integer'),
    policy        TEXT,
    secret        TEXT CHECK (secret IS NULL OR length(secret) > 0),
    sealed_secret BLOB CHECK (sealed_secret IS NULL OR typeof(sealed_secret) = 'blob'),
    CHECK ((secret IS NULL) <> (sealed_secret IS NULL))
);
