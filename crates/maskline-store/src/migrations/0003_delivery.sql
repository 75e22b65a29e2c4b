-- Events are written once. What of them is still to be delivered lies in a small table of its own, and each
-- attempt is appended to a log: an acknowledgement rewrites no body.

ALTER TABLE events RENAME TO events_of_v2;

-- position: the order of commits. The highest row is never deleted, so that none is used twice.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    event_id       TEXT   NOT NULL UNIQUE,
    session_id     TEXT   NOT NULL,
    sub_account_id TEXT   NOT NULL,
    ordinal        BIGINT NOT NULL,
    webhook_type   TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    body           TEXT   NOT NULL,
    UNIQUE (session_id, ordinal)
);

-- state: 0 pending, 1 parked. attempts: those of this round; a replay begins another.
CREATE TABLE pending (
    sub_account_id  TEXT     NOT NULL,
    session_id      TEXT     NOT NULL,
    ordinal         BIGINT   NOT NULL,
    position        BIGINT   NOT NULL,
    state           SMALLINT NOT NULL,
    attempts        BIGINT   NOT NULL,
    next_attempt_at BIGINT,
    outcome_at      BIGINT   NOT NULL,
    PRIMARY KEY (sub_account_id, session_id, ordinal)
) WITHOUT ROWID;

-- What became of each attempt, and of events that were parked or had no endpoint. The last row of an event
-- is how it stands, unless it is pending. state as above, and 2 delivered, 3 dead, 4 no endpoint.
CREATE TABLE attempts (
    position    BIGINT   NOT NULL,
    number      BIGINT   NOT NULL,
    at          BIGINT   NOT NULL,
    state       SMALLINT NOT NULL,
    attempts    BIGINT   NOT NULL,
    status      SMALLINT,
    duration_ms BIGINT,
    error       TEXT,
    answer      BLOB,
    truncated   SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (position, number)
) WITHOUT ROWID;

INSERT INTO events (event_id, session_id, sub_account_id, ordinal, webhook_type, at, body)
SELECT event_id, session_id, sub_account_id, ordinal, webhook_type, at, body FROM events_of_v2 ORDER BY rowid;

INSERT INTO pending (sub_account_id, session_id, ordinal, position, state, attempts, next_attempt_at, outcome_at)
SELECT new.sub_account_id, new.session_id, new.ordinal, new.position, old.state, old.attempts, old.next_attempt_at, old.outcome_at
FROM events_of_v2 AS old JOIN events AS new ON new.event_id = old.event_id
WHERE old.settled IS NULL;

INSERT INTO attempts (position, number, at, state, attempts, status, error)
SELECT new.position, 1, old.outcome_at, old.state, old.attempts, old.status, old.error
FROM events_of_v2 AS old JOIN events AS new ON new.event_id = old.event_id
WHERE old.settled IS NOT NULL OR old.attempts > 0;

DROP TABLE events_of_v2;

-- Calls that another switch handles. Not in `sessions`, whose rows this switch's shards adopt.
-- idle_at: when the session counts as ended if nothing more is heard of it; null once it has ended.
CREATE TABLE reported_sessions (
    session_id     TEXT   NOT NULL PRIMARY KEY,
    sub_account_id TEXT   NOT NULL,
    state          BLOB   NOT NULL,
    idle_at        BIGINT,
    updated        BIGINT NOT NULL
);

CREATE INDEX reported_sessions_idle ON reported_sessions (idle_at) WHERE idle_at IS NOT NULL;

-- The first answer to each idempotency key: the event at that position.
CREATE TABLE call_event_keys (
    sub_account_id  TEXT   NOT NULL,
    idempotency_key TEXT   NOT NULL,
    position        BIGINT NOT NULL,
    PRIMARY KEY (sub_account_id, idempotency_key)
) WITHOUT ROWID;

-- By position, to go with its event.
CREATE INDEX call_event_keys_position ON call_event_keys (position);

-- The highest position of a sub-account's events that are no longer kept.
CREATE TABLE forgotten (
    sub_account_id TEXT   NOT NULL PRIMARY KEY,
    up_to          BIGINT NOT NULL
);

-- settings: JSON without secrets; settings_sealed: header values and keys.
-- failing_since: the first of nothing but failures; null while attempts succeed.
ALTER TABLE webhooks ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE webhooks ADD COLUMN settings_sealed BLOB;
ALTER TABLE webhooks ADD COLUMN failing_since BIGINT;
ALTER TABLE webhooks ADD COLUMN disabled_reason TEXT;

-- Fields that are added to status events; JSON.
ALTER TABLE sub_accounts ADD COLUMN event_parameters TEXT NOT NULL DEFAULT '[]';
