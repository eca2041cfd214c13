//! Decisions and acts of moderation, as they are stored.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::int;
use crate::chat::{Act, Action, Ban, Decision, MAX_DELETIONS, Outcome, StoredTimeOut, Username};
use crate::ops::clock;

/// The most acts in the audit log. Beyond that, the oldest are deleted.
pub const MAX_AUDIT_ROWS: u64 = 1_000_000;
/// By how much an act may be older than one that was recorded before it, because the decision took time.
const OUT_OF_ORDER_MILLIS: i64 = 60_000;
/// Who has done what was done with `tinychat moderator`. Acts of members have an address.
const COMMAND_LINE: &str = "command line";

/// Stores a decision, adds it to the audit log, and deletes the bans and time-outs that have ended. Returns how many
/// messages it has deleted.
pub fn decide(connection: &Connection, decision: &Decision) -> rusqlite::Result<(Outcome, u64)> {
    let deleted = take_effect(connection, &decision.act)?;
    if deleted == 0 && matches!(decision.act.action, Action::Delete { .. }) {
        return Ok((Outcome::NotFound, 0));
    }
    record(connection, &decision.act)?;
    Ok((Outcome::Stored, deleted))
}

/// Stores an act that has taken effect, and adds it to the audit log if it is not there. Returns how many messages it
/// has deleted.
pub fn apply(connection: &Connection, act: &Act) -> rusqlite::Result<u64> {
    let deleted = take_effect(connection, act)?;
    if let Action::Delete { id, .. } = act.action {
        add_deletion(connection, id)?;
    }
    if !is_recorded(connection, act)? {
        record(connection, act)?;
    }
    Ok(deleted)
}

/// Returns how many messages it has deleted.
fn take_effect(connection: &Connection, act: &Act) -> rusqlite::Result<u64> {
    let Act { unix_millis, by, action, .. } = act;
    let now = int(*unix_millis);
    let mut deleted = 0;
    match action {
        Action::TimeOut { name, until } => {
            end_time_out(connection, name)?;
            insert_time_out(connection, name, by, now, *until)?;
        }
        Action::EndTimeOut { name } => end_time_out(connection, name)?,
        Action::Ban { ban } => {
            // As the room does it: others may have been set since the moderator's command.
            for earlier in bans(connection, *unix_millis)? {
                let rest = earlier.without(ban);
                if rest.as_ref() != Some(&earlier) {
                    end_bans(connection, &[earlier.id])?;
                    rest.iter().try_for_each(|rest| insert_ban(connection, rest))?;
                }
            }
            insert_ban(connection, ban)?;
        }
        Action::Unban { bans, .. } => end_bans(connection, bans)?,
        Action::Delete { id, .. } => {
            deleted = connection.execute("DELETE FROM messages WHERE id = ?1", [int(*id)])? as u64;
            if deleted > 0 {
                add_deletion(connection, *id)?;
            }
        }
        Action::Login | Action::Kick { .. } => {}
    }
    connection.execute("DELETE FROM bans WHERE until <= ?1", [now])?;
    connection.execute("DELETE FROM time_outs WHERE until <= ?1", [now])?;
    Ok(deleted)
}

/// Deletes a message whose deletion was decided elsewhere.
pub fn delete(connection: &Connection, id: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM messages WHERE id = ?1", [int(id)])?;
    add_deletion(connection, id)
}

/// Adds a deletion if it is not there.
fn add_deletion(connection: &Connection, id: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO deletions (message) SELECT ?1 \
               WHERE NOT EXISTS (SELECT 1 FROM deletions WHERE message = ?1)";
    if connection.execute(sql, [int(id)])? > 0 {
        limit_rows(connection, "deletions", MAX_DELETIONS as u64)?;
    }
    Ok(())
}

/// Forgets the deletions of messages after this id.
pub fn forget_deletions(connection: &Connection, after: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM deletions WHERE message > ?1", [int(after)]).map(drop)
}

/// Adds an act to the audit log, unless an author has deleted a message of its own.
pub fn record(connection: &Connection, act: &Act) -> rusqlite::Result<()> {
    let Some(Recorded { action, target, until, reason }) = recorded(act) else { return Ok(()) };
    connection.execute(
        "INSERT INTO audit (time, moderator, address, action, target, until, reason) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![int(act.unix_millis), act.by, act.address.to_string(), action, target, until, reason],
    )?;
    limit_rows(connection, "audit", MAX_AUDIT_ROWS)
}

/// Whether the audit log has this act. Only acts that are as new, or almost, are read.
fn is_recorded(connection: &Connection, act: &Act) -> rusqlite::Result<bool> {
    let Some(Recorded { action, target, until, reason }) = recorded(act) else { return Ok(false) };
    let older = "SELECT coalesce((SELECT id FROM audit WHERE time < ?8 ORDER BY id DESC LIMIT 1), 0)";
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM audit WHERE id > ({older}) AND time = ?1 AND moderator = ?2 \
         AND address = ?3 AND action = ?4 AND target IS ?5 AND until IS ?6 AND reason IS ?7)"
    );
    let (time, address) = (int(act.unix_millis), act.address.to_string());
    connection.query_row(
        &sql,
        params![
            time,
            act.by,
            address,
            action,
            target,
            until,
            reason,
            time.saturating_sub(OUT_OF_ORDER_MILLIS)
        ],
        |row| row.get(0),
    )
}

/// An act's columns in the audit log.
struct Recorded<'a> {
    action: &'static str,
    target: Option<String>,
    until: Option<i64>,
    reason: Option<&'a str>,
}

/// `None`: it is not recorded.
fn recorded(act: &Act) -> Option<Recorded<'_>> {
    let name = |name: &Username| Some(name.shown().to_string());
    let (action, target, until, reason) = match &act.action {
        Action::Login => ("login", None, None, ""),
        Action::TimeOut { name: target, until } => ("time-out", name(target), Some(*until), ""),
        Action::EndTimeOut { name: target } => ("end-time-out", name(target), None, ""),
        Action::Kick { name: target, reason } => ("kick", name(target), None, &**reason),
        Action::Ban { ban, .. } => ("ban", Some(ban_target(ban)), ban.until, &*ban.reason),
        Action::Unban { target, .. } => ("unban", Some(target.clone()), None, ""),
        Action::Delete { is_own: true, .. } => return None,
        Action::Delete { id, .. } => ("delete", Some(id.to_string()), None, ""),
    };
    let reason = Some(reason).filter(|reason| !reason.is_empty());
    Some(Recorded { action, target, until: until.map(int), reason })
}

/// Adds a change of the named moderators to the audit log.
pub fn record_command(connection: &Connection, action: &str, name: &Username) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO audit (time, moderator, address, action, target) VALUES (?1, ?2, '', ?3, ?4)",
        params![int(clock::unix_millis()), COMMAND_LINE, action, name.shown()],
    )?;
    limit_rows(connection, "audit", MAX_AUDIT_ROWS)
}

/// Deletes the oldest rows of the table to which one was just added.
fn limit_rows(connection: &Connection, table: &str, limit: u64) -> rusqlite::Result<()> {
    let excess = connection.last_insert_rowid().saturating_sub(int(limit));
    connection.execute(&format!("DELETE FROM {table} WHERE id <= ?1"), [excess]).map(drop)
}

/// The last messages that were deleted, in order.
pub fn deleted(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let message = |row: &Row| row.get::<_, i64>(0).map(i64::cast_unsigned);
    connection.prepare("SELECT message FROM deletions ORDER BY id")?.query_map([], message)?.collect()
}

/// The bans that have not ended.
pub fn bans(connection: &Connection, now_unix_millis: u64) -> rusqlite::Result<Vec<Ban>> {
    let sql = "SELECT id, name, network, moderator, since, until, reason FROM bans \
               WHERE until IS NULL OR until > ?1 ORDER BY since, id";
    connection.prepare(sql)?.query_map([int(now_unix_millis)], ban)?.collect()
}

/// The time-outs that have not ended.
pub fn time_outs(connection: &Connection, now_unix_millis: u64) -> rusqlite::Result<Vec<StoredTimeOut>> {
    let sql = "SELECT name, until FROM time_outs WHERE until > ?1 ORDER BY since";
    let time_out = |row: &Row| {
        let until = row.get::<_, i64>(1)?.cast_unsigned();
        Ok(username(row, 0)?.map(|name| StoredTimeOut { name, until }))
    };
    let rows: Vec<_> =
        connection.prepare(sql)?.query_map([int(now_unix_millis)], time_out)?.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// A name in a column. `None`: it is null, or no longer an allowed name.
pub fn username(row: &Row, column: usize) -> rusqlite::Result<Option<Username>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| Username::parse(&text).ok()))
}

fn ban(row: &Row) -> rusqlite::Result<Ban> {
    let network: Option<String> = row.get(2)?;
    Ok(Ban {
        id: row.get::<_, i64>(0)?.cast_unsigned(),
        name: username(row, 1)?,
        network: network.and_then(|network| network.parse().ok()),
        by: row.get::<_, String>(3)?.into(),
        since: row.get::<_, i64>(4)?.cast_unsigned(),
        until: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
        reason: row.get(6)?,
    })
}

/// Stores these bans in place of the earlier ones.
pub fn replace_bans(connection: &Connection, bans: &[Ban]) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM bans", [])?;
    bans.iter().try_for_each(|ban| insert_ban(connection, ban))
}

/// Stores these time-outs in place of the earlier ones. Who has set one is known only if it is stored already.
pub fn replace_time_outs(
    connection: &Connection,
    time_outs: &[StoredTimeOut],
    now_unix_millis: u64,
) -> rusqlite::Result<()> {
    let stored = |time_out: &StoredTimeOut| {
        let sql = "SELECT moderator, since FROM time_outs WHERE name = ?1 AND until = ?2";
        let values = params![time_out.name.shown(), int(time_out.until)];
        let row = |row: &Row| Ok((row.get::<_, String>(0)?, row.get(1)?));
        let stored = connection.query_row(sql, values, row).optional()?;
        Ok(stored.unwrap_or_else(|| (String::new(), int(now_unix_millis))))
    };
    let stored = time_outs.iter().map(stored).collect::<rusqlite::Result<Vec<_>>>()?;
    connection.execute("DELETE FROM time_outs", [])?;
    time_outs.iter().zip(stored).try_for_each(|(StoredTimeOut { name, until }, (by, since))| {
        insert_time_out(connection, name, &by, since, *until)
    })
}

fn insert_time_out(
    connection: &Connection,
    name: &Username,
    by: &str,
    since: i64,
    until: u64,
) -> rusqlite::Result<()> {
    let (spelling, skeleton) = (name.key().spelling(), name.key().skeleton());
    let values = params![name.shown(), spelling, skeleton, by, since, int(until)];
    connection.execute("INSERT INTO time_outs VALUES (?1, ?2, ?3, ?4, ?5, ?6)", values).map(drop)
}

fn insert_ban(connection: &Connection, ban: &Ban) -> rusqlite::Result<()> {
    let Ban { id, name, network, by, since, until, reason } = ban;
    let (name, network) = (name.as_ref().map(Username::shown), network.map(|network| network.to_string()));
    connection
        .execute(
            "INSERT OR REPLACE INTO bans VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![int(*id), name, network, by, int(*since), until.map(int), reason],
        )
        .map(drop)
}

/// Ends the time-outs of all names that count as the same.
fn end_time_out(connection: &Connection, name: &Username) -> rusqlite::Result<()> {
    let (spelling, skeleton) = (name.key().spelling(), name.key().skeleton());
    connection
        .execute("DELETE FROM time_outs WHERE spelling = ?1 OR skeleton = ?2", [spelling, skeleton])
        .map(drop)
}

fn end_bans(connection: &Connection, ids: &[u64]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare("DELETE FROM bans WHERE id = ?1")?;
    ids.iter().try_for_each(|&id| delete.execute([int(id)]).map(drop))
}

fn ban_target(ban: &Ban) -> String {
    let network = ban.network.map(|network| {
        let is_one_address = network.prefix_len() == network.max_prefix_len();
        if is_one_address { network.addr().to_string() } else { network.to_string() }
    });
    match (&ban.name, network) {
        (Some(name), Some(network)) => format!("{} ({network})", name.shown()),
        (Some(name), None) => name.shown().to_string(),
        (None, network) => network.unwrap_or_default(),
    }
}

/// A value of the table `meta`.
pub fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

pub fn set_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, value]).map(drop)
}
