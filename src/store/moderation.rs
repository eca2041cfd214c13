//! Decisions and acts of moderation, as they are stored.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::int;
use crate::chat::{Act, Action, Ban, Decision, MAX_DELETIONS, Outcome, StoredTimeOut, Username};
use crate::ops::clock;

/// The most acts in the audit log. Beyond that, the oldest are deleted.
pub const MAX_AUDIT_ROWS: u64 = 1_000_000;
/// Who has done what was done with `tinychat moderator`. Acts of members have an address.
const COMMAND_LINE: &str = "command line";

/// Stores a decision, adds it to the audit log, and deletes the bans and time-outs that have ended. Returns how many messages it
/// has deleted.
pub fn decide(connection: &Connection, decision: &Decision) -> rusqlite::Result<(Outcome, u64)> {
    let Act { unix_millis, by, action, .. } = &decision.act;
    let now = int(*unix_millis);
    let mut deleted = 0;
    match action {
        Action::TimeOut { name, until } => {
            end_time_out(connection, name)?;
            let (spelling, skeleton) = (name.key().spelling(), name.key().skeleton());
            connection.execute(
                "INSERT INTO time_outs VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![name.shown(), spelling, skeleton, by, now, int(*until)],
            )?;
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
            if deleted == 0 {
                return Ok((Outcome::NotFound, 0));
            }
            connection.execute("INSERT INTO deletions (message) VALUES (?1)", [int(*id)])?;
            limit_rows(connection, "deletions", MAX_DELETIONS as u64)?;
        }
        Action::Login | Action::Kick { .. } => {}
    }
    connection.execute("DELETE FROM bans WHERE until <= ?1", [now])?;
    connection.execute("DELETE FROM time_outs WHERE until <= ?1", [now])?;
    record(connection, &decision.act)?;
    Ok((Outcome::Stored, deleted))
}

/// Adds an act to the audit log, unless an author has deleted a message of its own.
pub fn record(connection: &Connection, act: &Act) -> rusqlite::Result<()> {
    let Act { unix_millis, by, address, action } = act;
    let name = |name: &Username| Some(name.shown().to_string());
    let (kind, target, until, reason) = match action {
        Action::Login => ("login", None, None, None),
        Action::TimeOut { name: target, until } => ("time-out", name(target), Some(*until), None),
        Action::EndTimeOut { name: target } => ("end-time-out", name(target), None, None),
        Action::Kick { name: target, reason } => ("kick", name(target), None, Some(reason)),
        Action::Ban { ban, .. } => ("ban", Some(ban_target(ban)), ban.until, Some(&ban.reason)),
        Action::Unban { target, .. } => ("unban", Some(target.clone()), None, None),
        Action::Delete { is_own: true, .. } => return Ok(()),
        Action::Delete { id, .. } => ("delete", Some(id.to_string()), None, None),
    };
    let reason = reason.filter(|reason| !reason.is_empty());
    connection.execute(
        "INSERT INTO audit (time, moderator, address, action, target, until, reason) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![int(*unix_millis), by, address.to_string(), kind, target, until.map(int), reason],
    )?;
    limit_rows(connection, "audit", MAX_AUDIT_ROWS)
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
