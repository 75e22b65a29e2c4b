-- The first schema. Types are TEXT, BIGINT, SMALLINT and BLOB only, so that it carries to PostgreSQL.
-- Ids are hyphenated lower-case UUIDs (their text order is their byte order), times are
-- milliseconds since 1970 UTC. `sealed` columns are encrypted under the master key.

CREATE TABLE store_keys (
    name   TEXT NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL
);

CREATE TABLE node (
    node_id    TEXT   NOT NULL PRIMARY KEY,
    boot_epoch BIGINT NOT NULL
);

CREATE TABLE sub_accounts (
    sub_account_id TEXT   NOT NULL PRIMARY KEY,
    countries      TEXT   NOT NULL,
    created        BIGINT NOT NULL
);

-- scope: 0 admin, 1 one sub-account.
CREATE TABLE api_keys (
    key_hash       BLOB     NOT NULL PRIMARY KEY,
    scope          SMALLINT NOT NULL CHECK (scope IN (0, 1)),
    sub_account_id TEXT     REFERENCES sub_accounts (sub_account_id),
    created        BIGINT   NOT NULL,
    CHECK ((scope = 0) = (sub_account_id IS NULL))
);

CREATE TABLE numbers (
    msisdn         TEXT   NOT NULL PRIMARY KEY,
    sub_account_id TEXT   NOT NULL REFERENCES sub_accounts (sub_account_id),
    reference_id   TEXT   NOT NULL,
    trunk          TEXT,
    country_code   TEXT,
    created        BIGINT NOT NULL,
    updated        BIGINT NOT NULL
);

CREATE INDEX numbers_by_sub_account ON numbers (sub_account_id, msisdn);

CREATE TABLE webhooks (
    sub_account_id         TEXT     NOT NULL REFERENCES sub_accounts (sub_account_id),
    webhook_type           TEXT     NOT NULL,
    url                    TEXT     NOT NULL,
    enabled                SMALLINT NOT NULL,
    auth_header_sealed     BLOB,
    secret_sealed          BLOB     NOT NULL,
    previous_secret_sealed BLOB,
    previous_valid_until   BIGINT,
    created                BIGINT   NOT NULL,
    updated                BIGINT   NOT NULL,
    PRIMARY KEY (sub_account_id, webhook_type)
);

-- Sessions and events do not refer to sub_accounts: the journal must not fail for configuration.
CREATE TABLE sessions (
    session_id     TEXT NOT NULL PRIMARY KEY,
    sub_account_id TEXT NOT NULL,
    snapshot       BLOB NOT NULL,
    updated        BIGINT NOT NULL
);

-- state: 0 pending, 1 parked, 2 delivered, 3 dead, 4 no endpoint.
-- settled: when the state became final; null while it is not.
CREATE TABLE events (
    event_id        TEXT     NOT NULL PRIMARY KEY,
    session_id      TEXT     NOT NULL,
    sub_account_id  TEXT     NOT NULL,
    ordinal         BIGINT   NOT NULL,
    webhook_type    TEXT     NOT NULL,
    at              BIGINT   NOT NULL,
    body            TEXT     NOT NULL,
    state           SMALLINT NOT NULL,
    attempts        BIGINT   NOT NULL,
    next_attempt_at BIGINT,
    status          SMALLINT,
    error           TEXT,
    outcome_at      BIGINT   NOT NULL,
    settled         BIGINT,
    UNIQUE (session_id, ordinal)
);

CREATE INDEX events_unsettled ON events (session_id, ordinal) WHERE settled IS NULL;
