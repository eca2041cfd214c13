//! Messages as rows of the table, and back.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Deserialize;

use super::int;
use crate::chat::{ChatTime, EntryTime, KeptEntry, KeptMessage, TxnId};
use crate::ops::clock;

/// A message that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    pub id: u64,
    /// The wall clock, in milliseconds since 1970.
    pub unix_millis: u64,
    /// As it was sent.
    pub json: Arc<[u8]>,
    /// The name of its author; `None`: it is from the server.
    pub author: Option<Arc<str>>,
    /// The author's own id for the message.
    pub txn_id: Option<TxnId>,
}

/// Messages from the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredPage {
    /// The oldest first.
    pub messages: Vec<StoredMessage>,
    /// Whether there are older ones.
    pub has_older: bool,
}

/// What is read of a message's JSON.
#[derive(Deserialize)]
struct Columns<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    username: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
}

/// Writes messages into the table.
pub struct Insert<'a>(rusqlite::Statement<'a>);

impl<'a> Insert<'a> {
    pub fn new(connection: &'a Connection) -> rusqlite::Result<Self> {
        // A commit may have succeeded although it reported an error, and is then repeated.
        Ok(Self(connection.prepare("INSERT OR IGNORE INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?))
    }

    /// Returns whether it was written. `false`: it is in the table, or it is neither a public nor a system message.
    pub fn add(
        &mut self,
        id: u64,
        unix_millis: u64,
        json: &[u8],
        txn_id: Option<&TxnId>,
    ) -> rusqlite::Result<bool> {
        let Ok(Columns { kind, username, content, timestamp }) = serde_json::from_slice(json) else {
            return Ok(false);
        };
        let rows = self.0.execute(params![
            int(id),
            int(unix_millis),
            timestamp,
            kind,
            username,
            content,
            txn_id.map(TxnId::text)
        ])?;
        Ok(rows > 0)
    }
}

/// The columns that [`read`] needs.
pub const COLUMNS: &str = "id, time, timestamp, type, username, content, txn_id";

/// A row of the table as a message.
pub fn read(row: &Row) -> rusqlite::Result<StoredMessage> {
    let text = |column| -> rusqlite::Result<&str> { Ok(row.get_ref(column)?.as_str()?) };
    let (id, unix_millis) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
    let (timestamp, kind, username, content) = (text(2)?, text(3)?, text(4)?, text(5)?);
    let is_public = kind == "public";
    let message =
        if is_public { KeptMessage::Public { username, content } } else { KeptMessage::System { content } };
    let utc = clock::utc(unix_millis);
    // The encoder does not use `chat`.
    let time = EntryTime { chat: ChatTime(0), unix_millis, timestamp: timestamp.into(), utc };
    let mut json = Vec::new();
    message.encode(id, &time, &mut json);
    Ok(StoredMessage {
        id,
        unix_millis,
        json: json.into(),
        author: is_public.then(|| username.into()),
        txn_id: row.get_ref(6)?.as_str_or_null()?.map(TxnId::from_store),
    })
}

impl StoredMessage {
    /// One that is not in the table yet. `None`: it is neither a public nor a system message.
    pub fn from_kept(message: KeptEntry) -> Option<Self> {
        let KeptEntry { id, unix_millis, json, txn_id } = message;
        let Columns { kind, username, .. } = serde_json::from_slice(&json).ok()?;
        let author = (kind == "public").then(|| Arc::from(&*username));
        Some(Self { id, unix_millis, author, txn_id, json })
    }

    #[allow(dead_code, reason = "only with the feature cluster")]
    pub fn into_kept(self) -> KeptEntry {
        let Self { id, unix_millis, json, author: _, txn_id } = self;
        KeptEntry { id, unix_millis, json, txn_id }
    }
}

/// At most `limit` of the newest messages before the id `before`, and at most `max_bytes` of JSON, but at least one.
/// `oldest_kept`: those with an earlier time are left out.
pub fn page(
    connection: &Connection,
    before: u64,
    oldest_kept: u64,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<StoredPage> {
    let sql =
        format!("SELECT {COLUMNS} FROM messages WHERE id < ?1 AND time >= ?2 ORDER BY id DESC LIMIT ?3");
    let mut select = connection.prepare(&sql)?;
    let mut rows =
        select.query(params![int(before), int(oldest_kept), int((limit as u64).saturating_add(1))])?;
    let mut page = StoredPage::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let message = read(row)?;
        bytes += message.json.len();
        if page.messages.len() == limit || (bytes > max_bytes && !page.messages.is_empty()) {
            page.has_older = true;
            break;
        }
        page.messages.push(message);
    }
    page.messages.reverse();
    Ok(page)
}

/// The id of the newest message before this one that is not too old.
pub fn newest_before(connection: &Connection, id: u64, oldest_kept: u64) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT id FROM messages WHERE id < ?1 AND time >= ?2 ORDER BY id DESC LIMIT 1";
    let newest = connection.query_row(sql, [int(id), int(oldest_kept)], |row| row.get::<_, i64>(0));
    Ok(newest.optional()?.map(i64::cast_unsigned))
}
