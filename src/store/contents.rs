//! What the table of messages holds: how many, and where their times go back. Reading a million rows takes long, so it
//! is done in parts, between commits.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::int;

/// How many rows are read at once.
const PART_ROWS: u64 = 10_000;
/// A time that goes back by less than this begins no run: the messages after it are deleted that much late at most.
const TOLERANCE: Duration = Duration::from_secs(10);
/// The most runs. Once there are as many, messages may be deleted as late as those before them.
const MAX_RUNS: usize = 64;

#[derive(Debug, Default)]
pub struct Contents {
    rows: u64,
    /// The id of the last row that was read.
    through: u64,
    is_complete: bool,
    runs: Vec<Run>,
}

/// Messages whose times do not go back: those that are too old come first. A new run begins where the clock was set
/// back. This takes the place of an index on the time, with which a message would take 1.4 times as long to store, and
/// 1.7 times as long to delete.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    first_id: u64,
    /// The latest time so far, in milliseconds since 1970.
    latest: u64,
}

impl Contents {
    /// Reads the next part.
    pub fn advance(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut select =
            connection.prepare("SELECT id, time FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let mut rows = select.query(params![int(self.through), int(PART_ROWS)])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let (id, time) = id_and_time(row)?;
            self.add_row(id, time);
            count += 1;
        }
        self.is_complete = count < PART_ROWS;
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// `None`: not yet known.
    pub fn rows(&self) -> Option<u64> {
        self.is_complete.then_some(self.rows)
    }

    /// A row was added, with a greater id than all before.
    pub fn added(&mut self, id: u64, unix_millis: u64) {
        // Otherwise it will be read.
        if self.is_complete {
            self.add_row(id, unix_millis);
        }
    }

    /// A row was deleted.
    pub fn deleted(&mut self, id: u64) {
        if self.is_complete || id <= self.through {
            self.rows = self.rows.saturating_sub(1);
        }
    }

    /// Rows that exceed a limit were deleted.
    pub fn expired(&mut self, rows: u64) {
        self.rows = self.rows.saturating_sub(rows);
    }

    /// Deletes at most `most` messages that are earlier than `oldest_kept`, in milliseconds since 1970. Call
    /// [`Self::aged`] once that is committed.
    pub fn delete_too_old(
        &self,
        connection: &Connection,
        oldest_kept: u64,
        most: u64,
    ) -> rusqlite::Result<Aged> {
        let mut aged = Aged::default();
        let ends = self.runs.iter().skip(1).map(|run| run.first_id).chain([u64::MAX]);
        for (first_id, end_id) in self.runs.iter().map(|run| run.first_id).zip(ends) {
            let (last_too_old, next) =
                first_kept(connection, (first_id, end_id), oldest_kept, most.saturating_sub(aged.deleted))?;
            if let Some(last_id) = last_too_old {
                let sql = "DELETE FROM messages WHERE id BETWEEN ?1 AND ?2";
                aged.deleted += connection.execute(sql, [int(first_id), int(last_id)])? as u64;
            }
            match next {
                Some(time) => aged.oldest = Some(aged.oldest.map_or(time, |oldest| oldest.min(time))),
                None => aged.empty_runs.push(first_id),
            }
        }
        Ok(aged)
    }

    /// Messages were deleted by [`Self::delete_too_old`].
    pub fn aged(&mut self, aged: &Aged) {
        self.expired(aged.deleted);
        self.runs.retain(|run| !aged.empty_runs.contains(&run.first_id));
    }

    fn add_row(&mut self, id: u64, unix_millis: u64) {
        self.rows += 1;
        self.through = id;
        let has_room = self.runs.len() < MAX_RUNS;
        match self.runs.last_mut() {
            Some(run)
                if !has_room || unix_millis.saturating_add(TOLERANCE.as_millis() as u64) >= run.latest =>
            {
                run.latest = run.latest.max(unix_millis);
            }
            _ => self.runs.push(Run { first_id: id, latest: unix_millis }),
        }
    }
}

/// What [`Contents::delete_too_old`] has done.
#[derive(Debug, Default, PartialEq)]
pub struct Aged {
    pub deleted: u64,
    /// The earliest time of a message that is left, in milliseconds since 1970; [`TOLERANCE`] applies.
    pub oldest: Option<u64>,
    /// The first ids of the runs of which nothing is left.
    empty_runs: Vec<u64>,
}

/// Of the rows `first_id..end_id`: the id of the last before the first that is not earlier than `oldest_kept`, and the
/// time of that one. Reads at most `most` rows, and the one after them.
fn first_kept(
    connection: &Connection,
    (first_id, end_id): (u64, u64),
    oldest_kept: u64,
    most: u64,
) -> rusqlite::Result<(Option<u64>, Option<u64>)> {
    let sql = "SELECT id, time FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query(params![int(first_id), int(end_id), int(most.saturating_add(1))])?;
    let (mut count, mut last_too_old) = (0, None);
    while let Some(row) = rows.next()? {
        let (id, time) = id_and_time(row)?;
        if time >= oldest_kept || count == most {
            return Ok((last_too_old, Some(time)));
        }
        count += 1;
        last_too_old = Some(id);
    }
    Ok((last_too_old, None))
}

fn id_and_time(row: &Row) -> rusqlite::Result<(u64, u64)> {
    // Somebody with `sqlite3` may have written a negative one.
    let [id, time] = [row.get::<_, i64>(0)?, row.get::<_, i64>(1)?].map(|value| value.max(0).cast_unsigned());
    Ok((id, time))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1000;

    /// A table with rows of these times, and what it holds.
    fn table(times: &[u64]) -> (Connection, Contents) {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE messages (id INTEGER PRIMARY KEY, time INTEGER)").unwrap();
        for (id, time) in (1..).zip(times) {
            connection.execute("INSERT INTO messages VALUES (?1, ?2)", [id, int(*time)]).unwrap();
        }
        let mut contents = Contents::default();
        contents.advance(&connection).unwrap();
        assert_eq!(contents.rows(), Some(times.len() as u64));
        (connection, contents)
    }

    fn times_left(connection: &Connection) -> Vec<u64> {
        let mut select = connection.prepare("SELECT time FROM messages ORDER BY id").unwrap();
        let times = select.query_map([], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned())).unwrap();
        times.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_message_from_the_future_keeps_no_others() {
        let (connection, mut contents) = table(&[900 * SECOND, 100 * SECOND, 101 * SECOND, 200 * SECOND]);
        let aged = contents.delete_too_old(&connection, 150 * SECOND, 10).unwrap();
        assert_eq!((aged.deleted, aged.oldest), (2, Some(200 * SECOND)));
        contents.aged(&aged);
        assert_eq!((times_left(&connection), contents.rows()), (vec![900 * SECOND, 200 * SECOND], Some(2)));
    }

    #[test]
    fn a_row_that_somebody_has_written_with_a_negative_time_is_too_old() {
        let (connection, _) = table(&[SECOND]);
        connection.execute_batch("INSERT INTO messages VALUES (2, -5)").unwrap();
        let mut contents = Contents::default();
        contents.advance(&connection).unwrap();
        assert_eq!(contents.delete_too_old(&connection, SECOND, 10).unwrap().deleted, 0);
        assert_eq!(contents.delete_too_old(&connection, SECOND + 1, 10).unwrap().deleted, 2);
    }

    #[test]
    fn there_are_at_most_64_runs() {
        // Each is an hour before the one before.
        let times: Vec<u64> = (0..=100).map(|hour| (1000 - hour) * 3600 * SECOND).collect();
        let (connection, mut contents) = table(&times);
        assert_eq!(contents.runs.len(), MAX_RUNS);
        // The last run is as late as its first message.
        let oldest_kept = times[MAX_RUNS - 1];
        let aged = contents.delete_too_old(&connection, oldest_kept, 1000).unwrap();
        assert_eq!(aged.deleted, 0);
        let aged = contents.delete_too_old(&connection, oldest_kept + 1, 1000).unwrap();
        assert_eq!(aged.deleted, 101 - 63);
        contents.aged(&aged);
        assert_eq!((contents.runs.len(), contents.rows()), (MAX_RUNS - 1, Some(63)));
    }

    proptest! {
        /// However the clock is set, in as many steps as it takes: what is not too old is kept, and what is left may be
        /// too old by [`TOLERANCE`].
        #[test]
        fn what_is_too_old_is_deleted(
            steps in prop::collection::vec((-40 * SECOND as i64..50 * SECOND as i64, 1_usize..20), 1..40),
            oldest_kept in 0..2000 * SECOND,
            most in 1_u64..50,
        ) {
            let mut time = 1000 * SECOND as i64;
            let mut times = Vec::new();
            for (step, messages) in steps {
                time = (time + step).max(0);
                times.extend((0..messages as u64).map(|millis| time.cast_unsigned() + millis));
            }
            let (connection, mut contents) = table(&times);
            let mut later = Contents::default();
            later.advance(&table(&[]).0).unwrap();
            (1..).zip(&times).for_each(|(id, &time)| later.added(id, time));
            prop_assert_eq!(&later.runs, &contents.runs);
            loop {
                let aged = contents.delete_too_old(&connection, oldest_kept, most).unwrap();
                prop_assert!(aged.deleted <= most);
                contents.aged(&aged);
                if aged.deleted < most {
                    break;
                }
            }
            let left = times_left(&connection);
            prop_assert_eq!(contents.rows(), Some(left.len() as u64));
            let kept = times.iter().filter(|&&time| time >= oldest_kept).count();
            prop_assert_eq!(left.iter().filter(|&&time| time >= oldest_kept).count(), kept);
            let tolerance = TOLERANCE.as_millis() as u64;
            prop_assert!(left.iter().all(|time| time + tolerance >= oldest_kept), "{left:?}");
        }
    }
}
