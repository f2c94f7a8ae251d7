-- Lists of revoked certificates that were imported, and what is demanded of the lists of a CA.
-- The lists themselves are files beside the database: crls/SHA256.crl, in DER.

CREATE TABLE crl (
    instance       TEXT NOT NULL,
    -- The list, the same for all of its issues.
    id             TEXT NOT NULL CHECK (length(id) = 64 AND id NOT GLOB '*[^0-9a-f]*'),
    issuer         TEXT NOT NULL CHECK (length(issuer) = 64 AND issuer NOT GLOB '*[^0-9a-f]*'),
    -- The issue of it.
    sha256         TEXT NOT NULL CHECK (length(sha256) = 64 AND sha256 NOT GLOB '*[^0-9a-f]*'),
    -- For the eye of an operator: written from the list, never read back.
    number         TEXT,
    imported_at_ms INTEGER NOT NULL CHECK (typeof(imported_at_ms) = 'integer'),
    PRIMARY KEY (instance, id)
);

CREATE TABLE crl_policy (
    instance TEXT NOT NULL,
    issuer   TEXT NOT NULL CHECK (length(issuer) = 64 AND issuer NOT GLOB '*[^0-9a-f]*'),
    policy   TEXT NOT NULL CHECK (policy IN ('required', 'in_date', 'optional')),
    PRIMARY KEY (instance, issuer)
);
