-- A fence around tables: writers say by which fencing token they write, and none that is older
-- than another before it gets through. The guard is in the database, so that no writer can
-- forget it, and none can be overtaken between its check and its write.
--
--     psql -f examples/postgres/fence.sql
--
-- A writer sets two variables for its session:
--   quorate.fencing_token     $QUORATE_FENCING_TOKEN: rises with every attempt
--   quorate.fencing_resource  what it writes, in words of your own: a table, a day of it, a file

CREATE SCHEMA quorate;

CREATE TABLE quorate.fences (
    resource text PRIMARY KEY,
    token bigint NOT NULL
);

-- For triggers. Takes the fence of the resource for the rest of the transaction: another
-- writer waits here until this one has committed, or is gone.
CREATE FUNCTION quorate.guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mine bigint := nullif(current_setting('quorate.fencing_token', true), '')::bigint;
    what text := nullif(current_setting('quorate.fencing_resource', true), '');
    newest bigint;
BEGIN
    IF mine IS NULL OR what IS NULL THEN
        RAISE EXCEPTION 'table % is fenced: set quorate.fencing_token and quorate.fencing_resource',
            TG_TABLE_NAME USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO quorate.fences AS fence VALUES (what, mine)
        ON CONFLICT (resource) DO UPDATE SET token = greatest(fence.token, excluded.token)
        RETURNING token INTO newest;
    IF mine < newest THEN
        RAISE EXCEPTION 'fencing token % is stale: % was written by %', mine, what, newest
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NULL;
END $$;

-- The table of the example. A trigger like this one fences any other.
CREATE TABLE revenue (
    day date,
    country text,
    amount numeric NOT NULL,
    PRIMARY KEY (day, country)
);

CREATE TRIGGER fenced
    BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON revenue
    FOR EACH STATEMENT EXECUTE FUNCTION quorate.guard();
