//! How many messages the table holds. Counting a million rows takes long, so it is done in parts, between commits.

use rusqlite::Connection;

/// How many rows are counted at once.
const PART_ROWS: u64 = 10_000;

#[derive(Debug, Default)]
pub struct Count {
    rows: u64,
    /// The id of the last row that was counted.
    through: i64,
    is_complete: bool,
}

impl Count {
    /// Counts the next part.
    pub fn advance(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql =
            "SELECT count(*), max(id) FROM (SELECT id FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2)";
        let (rows, last): (i64, Option<i64>) =
            connection.query_row(sql, [self.through, PART_ROWS.cast_signed()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        self.rows += rows.cast_unsigned();
        self.through = last.unwrap_or(self.through);
        self.is_complete = rows.cast_unsigned() < PART_ROWS;
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// `None`: not yet known.
    pub fn rows(&self) -> Option<u64> {
        self.is_complete.then_some(self.rows)
    }

    /// Rows were added, with greater ids than all before.
    pub fn added(&mut self, rows: u64) {
        // Otherwise they will be counted.
        if self.is_complete {
            self.rows += rows;
        }
    }

    /// A row was deleted.
    pub fn deleted(&mut self, id: u64) {
        if self.is_complete || id <= self.through.cast_unsigned() {
            self.rows = self.rows.saturating_sub(1);
        }
    }

    /// The oldest rows were deleted.
    pub fn deleted_oldest(&mut self, rows: u64) {
        self.rows = self.rows.saturating_sub(rows);
    }
}
